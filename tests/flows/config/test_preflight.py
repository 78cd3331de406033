"""Problems that would stop a run are reported before a model is loaded or Prefect is started."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flows.config.preflight import check
from flows.config.run_config import PATHS
from flows.oddities import report_oddities
from refseg_core.errors import ConfigurationError, DatasetError, RefsegError
from refseg_core.models.acceleration import pick_device
from tasks.store.store import Store
from tests.support.projects.project import Project, read_coco, write_coco

pytest_plugins = ["tests.support.projects.tiny_project"]

_NOWHERE = "/nowhere/at/all"


def _message(project: Project, changes: dict[str, Any]) -> str:
    with pytest.raises(RefsegError) as caught:
        check(project.config_with(changes))
    return str(caught.value)


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError("read-only")


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tasks.models.loading.load_weights", load)


def test_a_right_configuration_passes(project: Project) -> None:
    check(project.config)
    check(project.config_with({"targets.annotations": None, "device": "auto"}))


def test_oddities_of_references_and_targets_are_told_before_a_model_is_loaded(project: Project) -> None:
    for folder in ("references", "targets"):
        for file in (project.folder / folder).glob("*.png"):
            with Image.open(file) as image:
                image.crop((0, 0, 127, 96)).save(file)  # the annotations declare 128 x 96
    config = project.config_with({"references.sampling.num_shots": 3})
    told: list[str] = []
    with pytest.raises(DatasetError, match="num_shots"):
        check(config, partial(report_oddities, config, told.append))
    assert told[0] == "References:"
    assert any("Odd: 2 images whose declared size differs by at most 2 px" in line for line in told)
    assert "Odd: 2 categories with fewer annotations than num_shots (3)" in told
    told.clear()
    check(project.config, partial(report_oddities, project.config, told.append))
    heads = [line for line in told if not line.startswith("  ")]
    assert [line.partition(":")[0] for line in heads] == ["References", "Odd", "Targets", "Odd"]
    assert "Odd: 5 images whose declared size differs" in heads[3]
    again: list[str] = []
    check(project.config, partial(report_oddities, project.config, again.append))
    assert again == [
        f"{title}: one kind of oddity, told before; `refseg index` shows what." for title in ("References", "Targets")
    ]


def test_missing_images_of_references_are_told_with_their_number_before_the_bank(project: Project) -> None:
    (project.folder / "references" / "r1.png").unlink()
    told: list[str] = []
    check(project.config, partial(report_oddities, project.config, told.append))
    assert f"Odd: images with annotations that are not in {project.folder}/references, of 2 (1)" in told
    assert "  r1.png" in told


def test_a_memory_limit_that_cannot_be_kept_is_reported_before_the_bank(project: Project) -> None:
    message = _message(project, {"batches.max_memory": "300MB"})
    assert "max_memory: 300MB is too little" in message and "GB are needed" in message
    check(project.config_with({"batches.max_memory": "8GB"}))


def test_what_it_makes_is_what_the_run_makes_and_is_made_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(project.config)
    store = Store(project.config.store)
    made = [file.name for file in store.folder.list_files()]
    assert {name.partition("/")[0] for name in made} >= {"dataset", "references"}
    monkeypatch.setattr("refseg_core.references.sampling.sample_references", None)
    check(project.config)
    assert [file.name for file in store.folder.list_files()] == made


@pytest.mark.parametrize("name", [name for name in PATHS if name not in ("store", "pictures")])
def test_a_place_that_does_not_exist_is_named(name: str, project: Project) -> None:
    assert _NOWHERE in _message(project, {name: _NOWHERE})


@pytest.mark.parametrize("name", PATHS)
def test_a_place_of_an_unknown_kind_is_named(name: str, project: Project) -> None:
    assert "gopher9://host/place" in _message(project, {name: "gopher9://host/place"})


@pytest.mark.parametrize("name", ["store", "pictures"])
def test_a_place_that_cannot_be_written_is_named(name: str, project: Project) -> None:
    (project.folder / "file").write_text("no folder")
    assert str(project.folder / "file") in _message(project, {name: str(project.folder / "file")})


def test_a_store_that_became_read_only_is_refused_though_all_but_labels_is_made(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first shard would be labeled, and then be lost."""
    check(project.config)
    monkeypatch.setattr(Path, "open", _refuse)
    assert "access denied" in _message(project, {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"references.sampling.categories": ["box", "boat"]}, ["boat", "box, bar"]),
        ({"references.sampling.split": "coco-novell"}, ["coco-novell", "expected one of"]),
        ({"references.sampling.num_shots": 3}, ["num_shots", "box (2)", "bar (2)"]),
        (
            {"references.sampling.selection": "all", "conventions": "original"},
            ["more than 1", "box (2)", "bar (2)", "num_shots"],
        ),
        ({"references.annotation_ids": [1, 77]}, ["references.annotation_ids", "77"]),
        ({"targets.image_ids": [1, 77]}, ["77"]),
        ({"device": "cuda:7"}, ["device", "cuda:7", "cpu"]),
        ({"device": "gpu"}, ["device", "gpu", "cpu"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_that_does_not_fit_the_data_or_the_machine_is_named(
    changes: dict[str, Any], expected: list[str], project: Project
) -> None:
    message = _message(project, changes)
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("name", ["references", "targets"])
def test_a_broken_annotation_file_is_named(name: str, project: Project) -> None:
    (project.folder / f"{name}.json").write_bytes(b'{"images": [')
    message = _message(project, {})
    assert f"{name}.json is not valid json" in message


def test_categories_that_targets_number_differently_are_named_before_hours_are_spent(project: Project) -> None:
    write_coco(project.folder / "targets.json", ["t0.png"], with_masks=True, categories={3: "bar", 8: "stool"})
    assert "'box'" in _message(project, {})


def test_a_protocol_that_the_ground_truth_does_not_fit_is_named(project: Project) -> None:
    for fitting in ("auto", "coco", "semantic"):
        check(project.config_with({"evaluation.protocol": fitting}))
    message = _message(project, {"evaluation.protocol": "lvis"})
    assert "evaluation.protocol is 'lvis', but" in message
    assert "neg_category_ids" in message
    boxes = {
        "targets.images": str(project.folder / "references"),
        "targets.annotations": str(project.folder / "boxes.json"),
    }
    assert "none of 4 annotations has one" in _message(project, boxes | {"evaluation.protocol": "semantic"})


def test_annotated_targets_in_another_folder_are_named(project: Project) -> None:
    """Else every image would be labeled as unreadable."""
    (project.folder / "elsewhere").mkdir()
    message = _message(project, {"targets.images": str(project.folder / "elsewhere")})
    assert "elsewhere: holds none of 5 images that the annotations list; expected t0.png" in message


def test_targets_that_lie_further_down_are_said_to(project: Project) -> None:
    targets = project.folder / "targets"
    for folder in ("one", "other"):
        shutil.copytree(targets, project.folder / "deeper" / folder)
    changes = {"targets.images": str(project.folder / "deeper")}
    message = _message(project, changes)
    for folder in ("one", "other"):
        assert f"{project.folder}/deeper/{folder} (5)" in message
    check(project.config_with({"targets.images": str(project.folder / "deeper" / "one")}))


@pytest.mark.parametrize("key", ["references.images", "references.annotations", "targets.images"])
def test_a_place_that_does_not_exist_is_named_with_its_key(project: Project, key: str) -> None:
    changes = {key: _NOWHERE} | ({"targets.annotations": None} if key == "targets.images" else {})
    message = _message(project, changes)
    assert message.startswith(f"{key}: {_NOWHERE}")
    assert message.count(key) == 1


def test_annotations_of_other_categories_than_those_named_are_refused(project: Project) -> None:
    ids = [str(annotation["id"]) for annotation in read_coco(project.folder / "references.json")["annotations"]]
    names = {"references.sampling.categories": ["box"], "references.annotation_ids": ids}
    message = _message(project, names)
    assert "references.annotation_ids and references.sampling.categories contradict each other" in message
    check(project.config_with({"references.annotation_ids": ids}))


def test_an_empty_folder_of_targets_is_named(project: Project) -> None:
    (project.folder / "empty").mkdir()
    changes = {"targets.images": str(project.folder / "empty"), "targets.annotations": None}
    assert "empty holds no image" in _message(project, changes)


def test_packaged_weights_need_no_place(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REFSEG_WEIGHTS", str(tmp_path / "no weights here"))
    check(project.config_with({"segmenter.weights": None, "encoder.weights": None}))
    message = _message(project, {"segmenter": {"model": "sam2_hiera_tiny"}})
    assert "refseg weights pull sam2_hiera_tiny" in message


def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ConfigurationError, match="device: 'nonsense'"):
        pick_device("nonsense")


@pytest.mark.slow
def test_prefects_server_is_not_needed(project: Project) -> None:
    """In a process of its own: here, other tests may have started a server before."""
    program = (
        "import sys\n"
        "from flows.config.loading import load_config\n"
        "from flows.config.preflight import check\n"
        "check(load_config(sys.argv[1]))\n"
        "sys.exit('prefect.server.api.server' in sys.modules)\n"
    )
    config = str(project.write_config())
    assert subprocess.run([sys.executable, "-c", program, config], check=False).returncode == 0
