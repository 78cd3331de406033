"""Whole runs with Prefect: they complete, resume, and repeat nothing that is finished."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from prefect.client.orchestration import get_client

from flows.cli import main as cli
from flows.cli.main import main
from flows.config.loading import load_config
from flows.config.run_config import RunConfig
from flows.demo import write_demo
from flows.errors import ShardsFailedError
from flows.pipeline import RunResult, build_bank, evaluate_labels, label_targets, run_pipeline
from refseg_core.errors import ConfigurationError, DatasetError
from refseg_core.references import sampling
from refseg_core.tables import Detections, GuidanceThresholds, Images, LabeledImages, Metrics, Prototypes, References
from tasks import label_shard as label_module
from tasks.datasets.image_reader import ReadImage, read_images
from tasks.label_shard import label_shard
from tasks.storage.folder import Folder
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import references_of
from tasks.store.store import Store
from tests.support.label_rows import assert_exact, read_label_rows
from tests.support.projects.project import Project, in_bucket, write_coco
from tests.support.samples import coco, table_rows
from tests.support.servers.object_stores import ObjectStore
from tests.support.servers.prefect_harness import prefect_harness

pytest_plugins = ["tests.support.servers.stores", "tests.support.projects.tiny_project"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """A Prefect server of the tests' own."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with prefect_harness():
        yield
    torch.set_num_threads(num_threads)


def _labels(config: RunConfig, result: RunResult) -> tuple[Detections, LabeledImages]:
    parts = list(StoredLabels(Store(config.store), result.plan.key).read())
    return Detections.concatenate([part for part, _ in parts]), LabeledImages.concatenate([part for _, part in parts])


def _contents(config: RunConfig) -> dict[str, tuple[str, bytes]]:
    """Everything in the store: name -> version and bytes."""
    folder = Folder(config.store)
    return {file.name: (file.version, folder.read(file.name)) for file in folder.list_files()}


@pytest.fixture
def listed(project: Project) -> RunConfig:
    """The project's run over a folder of images without annotations."""
    return project.config_with({"targets.annotations": None})


@pytest.fixture
def labeled_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are read to be labeled, as they are."""
    names: list[str] = []

    def watched(folder: Folder, images: Images, *, max_pixels: int) -> Iterator[ReadImage]:
        names.extend(images.file_name)
        return read_images(folder, images, max_pixels=max_pixels)

    monkeypatch.setattr(label_module, "read_images", watched)
    return names


# --- whole runs ------------------------------------------------------------------------------------------------------


def test_a_run_makes_prototypes_labels_and_metrics_and_again_it_makes_nothing(
    project: Project, labeled_names: list[str]
) -> None:
    config = project.config
    result = run_pipeline(config)
    store = Store(config.store)
    assert len(store.load(result.prototypes, Prototypes)) == 2
    assert result.metrics is not None
    metrics = store.load(result.metrics, Metrics)
    assert set(metrics.iou_type) == {"bbox", "segm"}
    assert {name for name in metrics.category_name if name} == {"box", "bar"}
    detections, labeled = _labels(config, result)
    assert labeled.image_id.tolist() == ["1", "2", "3", "4", "5"]
    assert labeled.num_detections.sum() == len(detections) > 0
    assert sorted(labeled_names) == [f"t{number}.png" for number in range(5)]

    before = _contents(config)
    labeled_names.clear()
    again = run_pipeline(config)
    assert (again.prototypes, again.metrics, again.plan.key) == (result.prototypes, result.metrics, result.plan.key)
    assert again.plan.pending == ()
    assert labeled_names == []
    assert _contents(config) == before


def test_guided_prompts_take_their_threshold_from_the_references(project: Project, refseg: Callable[..., str]) -> None:
    project.content["labeling"]["path"] = "guided"
    file = project.write_config()
    assert "% of the points prompted" in refseg("run", file)
    store = Store(project.config.store)
    (guidance,) = store.manifests("guidance")
    (thresh,) = store.load(store.named(f"guidance/{guidance['key']}"), GuidanceThresholds).thresh.tolist()
    (labels,) = store.manifests("labels", "recipe.json")
    assert labels["settings"]["guidance_thresh"] == thresh
    refseg("run", file)
    assert len(store.manifests("guidance")) == len(store.manifests("labels", "recipe.json")) == 1


def test_new_and_changed_images_are_labeled_and_no_others(
    project: Project, listed: RunConfig, labeled_names: list[str]
) -> None:
    first = run_pipeline(listed)
    assert first.metrics is None
    before = _contents(listed)
    labeled_names.clear()
    project.add_target("new.png", 50)
    project.add_target("t2.png", 51)
    second = run_pipeline(listed)
    assert second.plan.key == first.plan.key
    assert sorted(labeled_names) == ["new.png", "t2.png"]
    after = _contents(listed)
    assert {name: after[name] for name in before} == before
    _, labeled = _labels(listed, second)
    assert sorted(labeled.image_id) == ["new.png", "t0.png", "t1.png", "t2.png", "t2.png", "t3.png", "t4.png"]
    assert len(set(zip(labeled.image_id, labeled.version, strict=True))) == 7


def test_boxes_only_references_get_masks_of_the_segmenter(project: Project) -> None:
    config = project.config_with({"references.annotations": str(project.folder / "boxes.json")})
    result = run_pipeline(config)
    store = Store(config.store)
    references = store.load(references_of(store, result.prototypes), References)
    assert set(references.mask_source) == {"segmenter"}
    assert len(_labels(config, result)[1]) == 5


def test_the_published_conventions_reach_references_and_masks(project: Project) -> None:
    changes = {"references.annotations": str(project.folder / "boxes.json"), "references.sampling.selection": "all"}
    config = project.config_with(changes | {"references.sampling.num_shots": 3, "conventions": "original"})
    store = Store(config.store)
    segmented = references_of(store, build_bank(config))
    references = store.load(segmented, References)
    assert references.category_id.tolist() == [3, 3, 3, 8, 8, 8]
    manifest = store.manifest(segmented.name)
    assert manifest is not None
    assert manifest["settings"] == {"conventions": "original"}


def test_an_image_that_cannot_be_read_is_a_row_with_the_reason(project: Project, listed: RunConfig) -> None:
    (project.folder / "targets" / "t1.png").write_bytes(b"")
    detections, labeled = _labels(listed, run_pipeline(listed))
    bad = labeled[labeled.status == "unreadable"]
    assert bad.image_id.tolist() == ["t1.png"]
    assert "empty" in bad.error[0]
    assert len(labeled) == 5
    assert "t1.png" not in set(detections.image_id)


def test_categories_that_conflict_are_an_error_that_names_them(project: Project) -> None:
    names = [f"t{number}.png" for number in range(5)]
    write_coco(project.folder / "targets.json", names, with_masks=True, categories={3: "bar", 8: "stool"})
    with pytest.raises(DatasetError, match=r"3 is 'box' in the references and 'bar' in the targets"):
        run_pipeline(project.config)


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["manifest", "manifest and detections", "manifest and labeled_images"])
def test_a_shard_that_was_killed_before_its_manifest_is_finished_and_no_other(
    lost: str, listed: RunConfig, labeled_names: list[str]
) -> None:
    result = run_pipeline(listed)
    labels = _labels(listed, result)
    root = Path(listed.store) / "labels" / result.plan.key
    (root / "shards" / "0000-00001.json").unlink()
    for table in ("detections", "labeled_images"):
        if table in lost:
            (root / table / "0000-00001.parquet").unlink()
    before = _contents(listed)
    labeled_names.clear()
    assert [shard.name for shard in run_pipeline(listed).plan.pending] == ["0000-00001"]
    assert labeled_names == ["t2.png", "t3.png"]
    after = _contents(listed)
    assert {name: after[name] for name in before} == before
    again = _labels(listed, result)
    assert again[0].equals(labels[0])
    assert table_rows(again[1], without=["seconds"]) == table_rows(labels[1], without=["seconds"])


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(label_shard, "retry_delay_seconds", [0, 0, 0])


def _fail_to_read(monkeypatch: pytest.MonkeyPatch, name: str, times: float) -> list[str]:
    """Makes reading an image fail so many times; gives the failures."""
    failures: list[str] = []
    read = Folder.read

    def faulty(folder: Folder, wanted: str) -> bytes:
        if wanted == name and len(failures) < times:
            failures.append(wanted)
            raise ConnectionResetError("the network hiccups")
        return read(folder, wanted)

    monkeypatch.setattr(Folder, "read", faulty)
    return failures


@pytest.mark.usefixtures("no_waiting")
def test_a_passing_fault_is_retried(listed: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = _fail_to_read(monkeypatch, "t3.png", 2)
    _, labeled = _labels(listed, run_pipeline(listed))
    assert len(failures) == 2
    assert labeled.image_id.tolist() == [f"t{number}.png" for number in range(5)]
    assert "unreadable" not in set(labeled.status)


def test_failed_shards_are_told_in_whole_sentences() -> None:
    told = str(ShardsFailedError.of({"0000-00000": "store: no space left. What is done is kept."}, 3))
    assert told.endswith(
        "The first: store: no space left. What is done is kept. Finished shards are kept; the same command resumes."
    )


@pytest.mark.usefixtures("no_waiting")
def test_a_shard_that_keeps_failing_stops_no_other_and_is_finished_later(
    listed: RunConfig, monkeypatch: pytest.MonkeyPatch, labeled_names: list[str]
) -> None:
    with monkeypatch.context() as patch:
        failures = _fail_to_read(patch, "t0.png", float("inf"))
        expected = r"1 of 3 shards .*: 0000-00000\. The first: Connection.* hiccups"
        with pytest.raises(ShardsFailedError, match=expected) as caught:
            run_pipeline(listed)
        assert list(caught.value.reason_of) == ["0000-00000"]
    assert len(failures) == 5  # once to look at its brightness, and four times to label it
    labeled_names.clear()
    _, labeled = _labels(listed, run_pipeline(listed))
    assert labeled_names == ["t0.png", "t1.png"]
    assert labeled.image_id.tolist() == [f"t{number}.png" for number in range(5)]


def test_an_error_of_our_own_is_raised_as_it_is_and_not_retried(
    listed: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []

    def wrong(*_: object, **__: object) -> None:
        calls.append(None)
        raise DatasetError("the annotations are wrong")

    monkeypatch.setattr(sampling, "sample_references", wrong)
    with pytest.raises(DatasetError, match="the annotations are wrong"):
        run_pipeline(listed)
    assert len(calls) == 1


# --- Prefect ---------------------------------------------------------------------------------------------------------


def test_prefect_sees_one_task_for_each_shard_and_none_for_images(listed: RunConfig) -> None:
    with get_client(sync_client=True) as client:
        before = {run.id for run in client.read_task_runs(limit=200)}
        run_pipeline(listed)
        names = sorted(run.name for run in client.read_task_runs(limit=200) if run.id not in before)
    assert names == sorted(
        [
            "build bank-0",  # a flow below another shows as a task, too
            "label-0",
            "label shards-0",
            "publish references",
            "publish labels",
            "index dataset",
            "sample references",
            "segment references",
            "fill memory bank",
            "postprocess memory bank",
            "index dataset",
            "plan shards",
            "find gone labels",
            *(f"label 0000-0000{number}" for number in range(3)),
        ]
    )


def test_a_password_in_an_address_is_refused_and_not_repeated(project: Project) -> None:
    """Prefect shows a run's parameters, so it must not come that far."""
    with pytest.raises(ConfigurationError, match=r"targets\.images: holds a user or password") as caught:
        project.config_with({"targets.images": "s3://user:hunter2@bucket/targets"})
    assert "hunter2" not in str(caught.value)


# --- the command line over a run -------------------------------------------------------------------------------------


@pytest.fixture
def refseg(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must succeed; gives what it prints as its result."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments], standalone_mode=False) in (None, 0)
        return capsys.readouterr().out

    return run


def test_the_commands_in_turn_do_what_the_run_does(project: Project, refseg: Callable[..., str]) -> None:
    file, store, out = project.write_config(), project.config.store, project.folder / "out"
    assert "2 prototypes in" in refseg("bank", file)
    assert "5 images: " in refseg("label", file)
    before = _contents(project.config)
    assert "All categories" in refseg("evaluate", file)
    printed = refseg("run", file)
    assert {name: _contents(project.config)[name] for name in before} == before
    for part in ("5 images: ", "All categories", "By category", "box", f"refseg show {store}", "metrics.parquet"):
        assert part in printed

    refseg("export", store, "--out", out / "results.json")
    results = json.loads((out / "results.json").read_bytes())
    refseg("export", store, "--format", "coco", "--out", out / "coco.json")
    dataset = json.loads((out / "coco.json").read_bytes())
    assert len(results) == len(dataset["annotations"]) > 0
    assert [image["id"] for image in dataset["images"]] == [1, 2, 3, 4, 5]
    assert {category["name"] for category in dataset["categories"]} == {"box", "bar"}

    assert "predictions: all labels" in refseg("show", store, "--out", out / "pictures", "--score", "0")
    names = [picture.name for picture in Folder(str(out / "pictures")).list_files()]
    sheets = ["reference-sheets/bar.jpg", "reference-sheets/box.jpg"]
    assert names == [*(f"images/t{number}.png.jpg" for number in range(5)), *sheets, "references.jpg"]


def test_thresholds_are_proposed_and_what_is_evaluated_follows_them(
    project: Project, refseg: Callable[..., str]
) -> None:
    config, out = project.write_config(), project.folder / "thresholds"
    refseg("run", config)
    assert "F1@own" not in refseg("evaluate", config)
    printed = refseg("thresholds", project.config.store, "--out", out)
    assert "ground truth" in printed
    assert sorted(path.name for path in out.iterdir()) == ["thresholds.png", "thresholds.yaml"]
    assert "F1@own" in refseg("evaluate", config)
    of_file = refseg("evaluate", config, "--thresholds", out / "thresholds.yaml", "--categories", "box")
    assert "F1@own" in of_file
    assert "box" in of_file.split()
    assert "bar" not in of_file.split()


def test_references_are_assessed_without_labels(project: Project, refseg: Callable[..., str]) -> None:
    out = project.folder / "sheets"
    printed = refseg("references", project.write_config(), "--references.sampling.num_shots", "2", "--out", out)
    assert "of 4 references most like the others of the same category" in printed
    assert sorted(path.name for path in out.iterdir()) == ["bar.jpg", "box.jpg"]
    assert not (Path(project.config.store) / "labels").exists()


def test_a_study_is_so_many_runs(project: Project, refseg: Callable[..., str]) -> None:
    out = project.folder / "study"
    printed = refseg("study", project.write_config(), "--seeds", "1,2", "--shots", "1,2", "--out", out)
    assert "per category: segm AP" in printed
    assert len(Folder(f"{project.config.store}/metrics").list_folders()) == len(
        {run["metrics"] for run in json.loads((out / "study.json").read_text())["runs"]}
    )


@pytest.mark.usefixtures("no_waiting")
def test_a_run_whose_shards_fail_says_so_without_a_traceback(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_to_read(monkeypatch, "t0.png", float("inf"))
    with pytest.raises(SystemExit) as caught:
        main(["run", str(project.write_config())])
    assert caught.value.code == 1
    assert "1 of 3 shards could not be labeled: 0000-00000" in capsys.readouterr().err


def test_all_of_a_run_may_lie_in_a_bucket(
    project: Project, seaweedfs: ObjectStore, refseg: Callable[..., str], tmp_path: Path
) -> None:
    bucket = seaweedfs.new_bucket()
    there = in_bucket(project, seaweedfs.filesystem(), bucket)
    store, out = there.config.store, f"s3://{bucket}/out"
    local = refseg("run", project.write_config())
    printed = refseg("run", there.write_config())
    assert _tables_shown(printed) == _tables_shown(local)
    assert_exact(store, read_label_rows(project.config.store))

    refseg("export", store, "--out", f"{out}/results.json")
    refseg("export", project.config.store, "--out", tmp_path / "results.json")
    assert Folder(out).read("results.json") == (tmp_path / "results.json").read_bytes()
    assert "Wrote 5 pictures of images" in refseg("show", store, "--out", f"{out}/pictures", "--score", "0")
    assert len(Folder(f"{out}/pictures").list_files()) == 8
    assert "complete" in refseg("status", store)
    assert "no problems" in refseg("verify", store)
    assert "To remove: nothing" in refseg("gc", store, "--min-age", "0")


def _tables_shown(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if "://" not in line and "/store" not in line]


def test_the_steps_are_flows_of_their_own(listed: RunConfig) -> None:
    prototypes = build_bank(listed)
    plan = label_targets(listed, prototypes)
    assert len(plan.pending) == 3
    assert label_targets(listed, prototypes).pending == ()


def test_evaluating_before_labeling_says_what_is_missing(project: Project) -> None:
    config = project.config
    prototypes = build_bank(config)
    plan = label_targets(config, prototypes)
    for manifest in (Path(config.store) / "labels" / plan.key / "shards").iterdir():
        manifest.unlink()
    with pytest.raises(Exception, match="only 0 of 5 images are labeled"):
        evaluate_labels(config, prototypes, plan)


def test_references_and_targets_may_be_of_any_shape(project: Project) -> None:
    """String ids, an image without any annotation, a crowd, one category referenced only."""
    document = json.loads(coco(["t0.png", "t1.png"], categories={3: "box"}))
    for image in document["images"]:
        image["id"] = f"image {image['id']}"
    crowd = {"id": "a", "image_id": "image 1", "category_id": 3, "iscrowd": 1, "bbox": [12, 14, 40, 40]}
    document["annotations"] = [crowd | {"area": 1600}]
    (project.folder / "targets.json").write_text(json.dumps(document))
    config = project.config
    result = run_pipeline(config)
    assert _labels(config, result)[1].image_id.tolist() == ["image 1", "image 2"]
    assert result.metrics is not None
    metrics = Store(config.store).load(result.metrics, Metrics)
    values = dict(zip(metrics.metric, metrics.value.tolist(), strict=True))
    assert {values[name] for name in ("AP", "AP50", "APl", "AR100")} == {-1.0}


# --- the demo's trained models ---------------------------------------------------------------------------------------


def test_the_demos_models_find_categories_they_never_saw(tmp_path: Path) -> None:
    missing = [name for name in ("sam2_demo", "dinov2_demo") if not _packaged(name).exists()]
    if missing:
        pytest.skip(f"the trained weights of {', '.join(missing)} are not in refseg_core/demo/weights")
    file = write_demo(tmp_path)
    config = load_config(str(file), {"targets.image_ids": list(range(1, 7))})
    result = run_pipeline(config)
    assert result.metrics is not None
    metrics = Store(config.store).load(result.metrics, Metrics)
    overall = np.array([category is None for category in metrics.category_id])
    segm = metrics[overall & (metrics.iou_type == "segm") & (metrics.metric == "AP")]
    assert segm.value[0] > 0.4


def _packaged(name: str) -> Path:
    return Path(cli.__file__).parents[2] / "refseg_core" / "demo" / "weights" / f"{name}.pt"
