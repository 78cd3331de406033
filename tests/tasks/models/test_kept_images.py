"""Images are labeled by what a store keeps of them, and the labels are those of a run from nothing."""

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from flows.cli.main import main
from refseg_core.labeling.batch_labeler import kept_version
from refseg_core.settings import AreaSettings, LabelingSettings
from refseg_core.tables import ImageProposals, Images
from tasks.models import kept_images, loading
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.storage.folder import Folder
from tasks.store.garbage import find_garbage, remove
from tasks.store.kept_proposals import kept_status
from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Artifact
from tasks.store.verify import verify_store
from tests.support.projects.project import scene
from tests.support.projects.steps import Steps, forbid
from tests.support.samples import table_rows, write_images

pytest_plugins = ["tests.support.projects.tiny_project"]
pytestmark = pytest.mark.slow  # together: each labels images twice

_GRID: dict[str, Any] = {"points_per_side": 4, "pred_iou_thresh": 0.0, "box_nms_thresh": 0.9, "keep_proposals": True}
_SETTINGS = {
    "exact": LabelingSettings(method="published", path="exact", **_GRID),
    "accurate": LabelingSettings(method="accurate", path="guided", guidance_thresh=0.15, **_GRID),
}


class _Kept(Steps):
    """Steps that keep proposals, with the references of some categories."""

    def prototypes_of(self, *categories: str) -> Artifact:
        settings = self.config.references.sampling.model_copy(update={"categories": categories or None})
        project = self.project.config_with({"references.sampling": settings.model_dump()})
        self.config = project
        references = self.references(project.references.sampling)
        return postprocess_memory_bank.fn(self.store, references, self.fill(self.dataset(), references))

    def labels_of(self, prototypes: Artifact, labeling: LabelingSettings) -> tuple[LabelPlan, Any]:
        plan = self.plan(prototypes, labeling=labeling)
        self.label(prototypes, plan, labeling=labeling)
        detections, images = self.labels(plan)
        return plan, (table_rows(detections), table_rows(images, without=["seconds"]))


@pytest.fixture
def kept(steps: Steps) -> _Kept:
    return _Kept(steps.project)


@pytest.mark.parametrize("labeling", _SETTINGS.values(), ids=_SETTINGS)
def test_labels_by_what_is_kept_are_those_of_a_run_from_nothing(kept: _Kept, labeling: LabelingSettings) -> None:
    elsewhere = _Kept(kept.elsewhere().project)
    for categories in (("box",), ("bar",), (), ("bar", "box")):
        _, ours = kept.labels_of(kept.prototypes_of(*categories), labeling)
        _, theirs = elsewhere.labels_of(elsewhere.prototypes_of(*categories), labeling)
        assert ours == theirs
        assert len(ours[0]) > 0
        remove(elsewhere.store, find_garbage(elsewhere.store, proposals=True))
        assert kept_status(elsewhere.store) == []
    assert verify_store(kept.store).problems == []


def test_other_thresholds_and_merging_need_neither_images_nor_models(
    kept: _Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = {"box_nms_thresh": 1, "max_detections": 1000, "max_second_looks": 1000, "max_refined_masks": 1000}
    labeling = _SETTINGS["accurate"].model_copy(update=everything)
    prototypes = kept.prototypes_of()
    kept.labels_of(prototypes, labeling)
    forbid(monkeypatch, loading, "build_segmenter")
    forbid(monkeypatch, loading, "build_encoder")
    loading._segmenter.cache_clear()
    loading._encoder.cache_clear()
    forbid(monkeypatch, kept_images, "read_images")
    for changed in (
        {"box_nms_thresh": 0.5},
        {"max_detections": 3},
        {"guidance_thresh": 0.2},
        {"quality_in_score": False},
        {"min_island": 4, "min_hole": 4, "area": AreaSettings(max="bar=99%")},
    ):
        _, (detections, _) = kept.labels_of(prototypes, labeling.model_copy(update=changed))
        assert len(detections) > 0


def test_labels_with_and_without_keeping_are_the_same_labels(kept: _Kept) -> None:
    labeling = _SETTINGS["accurate"]
    prototypes = kept.prototypes_of()
    plan, _ = kept.labels_of(prototypes, labeling)
    without = kept.plan(prototypes, labeling=labeling.model_copy(update={"keep_proposals": False}))
    assert (without.key, without.pending) == (plan.key, ())


def test_an_image_that_cannot_be_read_is_not_kept(kept: _Kept) -> None:
    targets = Path(kept.config.targets.images)
    (targets / "t1.png").write_bytes(b"no image")
    _, (_, images) = kept.labels_of(kept.prototypes_of(), _SETTINGS["exact"])
    assert [row["status"] == "unreadable" for row in images] == [False, True, False, False, False]
    assert "not an image" in images[1]["error"]
    (status,) = kept_status(kept.store)
    assert status.num_images == 4


def test_an_image_larger_than_allowed_is_refused_though_it_is_kept(kept: _Kept) -> None:
    labeling = _SETTINGS["exact"]
    prototypes = kept.prototypes_of()
    kept.labels_of(prototypes, labeling)
    _, (_, images) = kept.labels_of(prototypes, labeling.model_copy(update={"max_image_pixels": 1000}))
    assert {row["status"] for row in images} == {"unreadable"}


@pytest.mark.parametrize("opened", [{"white": [4095]}, {"frame": ["upright"]}, {"height": [128], "width": [96]}])
def test_an_image_that_is_opened_otherwise_is_another(kept: _Kept, opened: dict[str, list[Any]]) -> None:
    prototypes, labeling = kept.prototypes_of(), _SETTINGS["exact"]
    plan, _ = kept.labels_of(prototypes, labeling)
    spec = kept.config.label_spec.model_copy(update={"labeling": labeling})
    proposals = kept_images.kept_proposals_of(kept.store, spec, version=kept_version())
    image = kept.store.load(plan.dataset, Images)[:1]
    assert proposals.read(image)[1] == 1
    assert proposals.read(image.replace(size=np.array([7])))[1] == 1
    changed = {name: np.array(value, dtype=getattr(image, name).dtype) for name, value in opened.items()}
    assert proposals.read(image.replace(**changed)) == (None, 0)


def test_a_changed_image_is_computed_anew(kept: _Kept) -> None:
    labeling = _SETTINGS["exact"]
    prototypes = kept.prototypes_of()
    kept.labels_of(prototypes, labeling)
    write_images(Path(kept.config.targets.images), {"t1.png": scene(77)})
    plan, _ = kept.labels_of(prototypes, labeling)
    elsewhere = _Kept(kept.elsewhere().project)
    _, theirs = elsewhere.labels_of(elsewhere.prototypes_of(), labeling)
    detections = kept.labels(plan)[0]
    ours = [row for row in table_rows(detections) if row["image_id"] == "2"]
    assert ours[-len([row for row in theirs[0] if row["image_id"] == "2"]) :] == [
        row for row in theirs[0] if row["image_id"] == "2"
    ]
    (status,) = kept_status(kept.store)
    assert (status.num_images, status.num_parts) == (6, 6)


def test_a_damaged_part_costs_time_only(kept: _Kept, caplog: pytest.LogCaptureFixture) -> None:
    labeling = _SETTINGS["exact"]
    kept.labels_of(kept.prototypes_of("box"), labeling)
    (part, *_) = sorted(Path(kept.store.uri).glob("proposals/*/image_proposals.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    _, ours = kept.labels_of(kept.prototypes_of("bar"), labeling)
    assert "damaged" in caplog.text
    assert "gc --proposals" in caplog.text
    elsewhere = _Kept(kept.elsewhere().project)
    assert ours == elsewhere.labels_of(elsewhere.prototypes_of("bar"), labeling)[1]
    assert [problem.name for problem in verify_store(kept.store).problems] == [str(part.relative_to(kept.store.uri))]


def test_without_space_to_keep_anything_images_are_labeled_all_the_same(
    kept: _Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create = Folder._create

    def with_no_space(folder: Folder, name: str, data: bytes) -> bool:
        if name.startswith("proposals/"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(folder, name, data)

    monkeypatch.setattr(Folder, "_create", with_no_space)
    _, (found, images) = kept.labels_of(kept.prototypes_of(), _SETTINGS["exact"])
    assert (len(found) > 0, len(images), kept_status(kept.store)) == (True, 5, [])
    assert [one.getMessage().startswith(f"{kept.store.uri}: no space left to keep") for one in caplog.records] == [True]


def test_grids_and_methods_keep_apart_what_paths_share(kept: _Kept) -> None:
    prototypes, exact = kept.prototypes_of(), _SETTINGS["exact"]
    kept.labels_of(prototypes, exact)
    kept.labels_of(prototypes, exact.model_copy(update={"path": "guided", "guidance_thresh": 0.2}))
    assert [(one.num_images, one.num_parts) for one in kept_status(kept.store)] == [(5, 5)]
    kept.labels_of(prototypes, exact.model_copy(update={"points_per_side": 3}))
    kept.labels_of(prototypes, _SETTINGS["accurate"])
    assert sorted((one.points_per_side, one.all_masks) for one in kept_status(kept.store)) == [
        (3, False),
        (4, False),
        (4, True),
    ]


def _names(kept: _Kept) -> Iterator[str]:
    return (file.name for file in kept.store.folder.list_files() if file.name.startswith("proposals/"))


def test_what_is_kept_is_garbage_when_no_labels_of_its_images_are_wanted(kept: _Kept) -> None:
    plan, _ = kept.labels_of(kept.prototypes_of(), _SETTINGS["exact"])
    assert find_garbage(kept.store, min_age_hours=0) == []
    on_request = find_garbage(kept.store, proposals=True)
    assert {one.name for one in on_request} == set(_names(kept))
    assert {one.why for one in on_request} == {"proposals"}
    without_labels = find_garbage(kept.store, min_age_hours=0, labels=[plan.key])
    assert {one.name for one in without_labels if one.why == "unused"} >= set(_names(kept))
    (lost, *_) = sorted(Path(kept.store.uri).glob("proposals/*/image_proposals.parquet"))
    lost.unlink()
    manifest = str((lost.parent / "manifest.json").relative_to(kept.store.uri))
    garbage = find_garbage(kept.store)  # of any age: it is of no use
    assert [(one.name, one.why) for one in garbage] == [(manifest, "proposals")]
    remove(kept.store, garbage)
    assert verify_store(kept.store).problems == []


def test_what_is_kept_of_images_that_are_gone_is_garbage(kept: _Kept) -> None:
    prototypes = kept.prototypes_of()
    kept.labels_of(prototypes, _SETTINGS["exact"])
    write_images(Path(kept.config.targets.images), {"t1.png": scene(77)})
    kept.labels_of(prototypes, _SETTINGS["exact"])
    unused = [one.name for one in find_garbage(kept.store, min_age_hours=0) if one.name.startswith("proposals/")]
    assert len(unused) == 2
    assert len({name.split("/")[1] for name in unused}) == 1


def test_status_tells_the_size_of_what_is_kept(kept: _Kept) -> None:
    kept.labels_of(kept.prototypes_of(), _SETTINGS["accurate"])
    (status,) = kept_status(kept.store)
    parts = [part.stat().st_size for part in Path(kept.store.uri).glob("proposals/*/*.parquet")]
    assert (status.num_images, status.num_parts, status.size) == (5, 5, sum(parts))
    shown = CliRunner().invoke(main, ["status", kept.store.uri])
    lines = " ".join(shown.output.split())
    assert "in 5 parts, all masks of points of a grid of 4x4, 5 images" in lines
    assert "keep_proposals" not in lines


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_paths_that_cannot_keep_say_so(path: str) -> None:
    with pytest.raises(ValueError, match=r"keep_proposals: the path .* keeps none; take the path exact or guided"):
        LabelingSettings(path=path, keep_proposals=True)


def test_the_table_names_what_it_holds(kept: _Kept) -> None:
    kept.labels_of(kept.prototypes_of(), _SETTINGS["accurate"])
    manifest: Mapping[str, Any] = kept.store.manifests("proposals")[0]
    table = kept.store.read_part(f"proposals/{manifest['key']}", manifest["tables"][0], ImageProposals)
    assert (int(table.height[0]), int(table.width[0])) == (96, 128)
    assert len(table.point[0]) <= 16
    assert len(table.mask_predicted_iou[0]) == len(table.mask_key[0]) == 3 * len(table.point[0])
