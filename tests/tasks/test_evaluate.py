"""Each task loads, calls its step and saves: what it makes, from what, and that it makes it once."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg_core import evaluation
from refseg_core.errors import DatasetError, ImageError, StoreError
from refseg_core.masks.rle import decode_mask, decode_masks
from refseg_core.settings import BatchSettings, Conventions, EvaluationSettings, LabelingSettings, SamplingSettings
from refseg_core.tables import (
    Annotations,
    Categories,
    Confusion,
    Detections,
    FederatedLabels,
    Images,
    LabeledImages,
    MemoryBank,
    Metrics,
    Misses,
    Prototypes,
    References,
)
from tasks import fill_memory_bank as fill_module
from tasks import label_shard as label_module
from tasks.datasets.image_reader import ReadImage
from tasks.evaluate import evaluate
from tasks.fill_memory_bank import fill_memory_bank
from tasks.index_dataset import index_dataset
from tasks.label_shard import ShardSummary, label_shard
from tasks.plan_shards import plan_shards
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.runtime.progress import Progress, listening
from tasks.sample_references import sample_references
from tasks.segment_references import segment_references
from tasks.specs import DatasetSource, LabelJob
from tasks.storage.folder import Folder
from tasks.store.label_store import LabelRun
from tasks.store.reviews import load_review, protocol_of
from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Artifact, Recipe, Store
from tests.support.models import TINY_ENCODER
from tests.support.projects.project import CATEGORIES, Project, read_coco, scene, write_coco
from tests.support.samples import table_rows, write_images

pytest_plugins = ["tests.support.projects.tiny_project"]


class Steps:
    """The steps of a project's run, each callable on its own with something changed."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.config = project.config
        self.store = Store(self.config.store)

    def elsewhere(self) -> "Steps":
        """The same in another store, where nothing is made yet."""
        content = self.project.content | {"store": str(self.project.folder / "elsewhere")}
        return Steps(Project(self.project.folder, content))

    def dataset(self, source: DatasetSource | None = None) -> Artifact:
        return index_dataset.fn(self.store.uri, source or self.config.references.source)

    def references(
        self,
        settings: SamplingSettings | None = None,
        ids: list[str] | None = None,
        conventions: Conventions = "corrected",
    ) -> Artifact:
        settings = settings or SamplingSettings()
        return sample_references.fn(self.store.uri, self.dataset(), settings, ids, conventions=conventions)

    def boxes_only(self) -> tuple[Artifact, Artifact]:
        source = DatasetSource(
            images=self.config.references.images, annotations=str(self.project.folder / "boxes.json")
        )
        dataset = self.dataset(source)
        return dataset, sample_references.fn(self.store.uri, dataset, SamplingSettings())

    def segment(self, dataset: Artifact, references: Artifact, conventions: Conventions = "corrected") -> Artifact:
        return segment_references.fn(
            self.store.uri,
            dataset=dataset,
            references=references,
            images_uri=self.config.references.images,
            segmenter=self.config.segmenter,
            device="cpu",
            conventions=conventions,
        )

    def fill(self, dataset: Artifact, references: Artifact) -> Artifact:
        return fill_memory_bank.fn(
            self.store.uri,
            dataset=dataset,
            references=references,
            images_uri=self.config.references.images,
            settings=self.config.references.crop,
            encoder=self.config.encoder,
            device="cpu",
        )

    def prototypes(self) -> Artifact:
        references = self.references()
        return postprocess_memory_bank.fn(self.store.uri, references, self.fill(self.dataset(), references))

    def plan(self, prototypes: Artifact, **changes: Any) -> LabelPlan:
        given: dict[str, Any] = {
            "dataset": self.dataset(self.config.targets.source),
            "prototypes": prototypes,
            "images_uri": self.config.targets.images,
            "labeling": self.config.labeling,
            "batches": self.config.batches,
            "segmenter": self.config.segmenter,
            "encoder": self.config.encoder,
        }
        return plan_shards.fn(self.store.uri, **given | changes)

    def label(self, prototypes: Artifact, plan: LabelPlan, **changes: Any) -> list[ShardSummary]:
        given: dict[str, Any] = {
            "store": self.store.uri,
            "key": plan.key,
            "prototypes": prototypes.name,
            "images": self.config.targets.images,
            "labeling": self.config.labeling,
            "batches": self.config.batches,
            "segmenter": self.config.segmenter,
            "encoder": self.config.encoder,
            "device": "cpu",
        }
        job = LabelJob(**given | changes)
        return [label_shard.fn(job, shard) for shard in plan.pending]

    def labels(self, plan: LabelPlan) -> tuple[Detections, LabeledImages]:
        parts = list(LabelRun(self.store, plan.key).read())
        return Detections.concatenate([part for part, _ in parts]), LabeledImages.concatenate([p for _, p in parts])

    def evaluate(
        self,
        prototypes: Artifact,
        plan: LabelPlan,
        conventions: Conventions = "corrected",
        settings: EvaluationSettings | None = None,
        *,
        is_novel: bool = False,
    ) -> Artifact:
        return evaluate.fn(
            self.store.uri,
            dataset=plan.dataset,
            prototypes=prototypes,
            labels_key=plan.key,
            settings=settings or EvaluationSettings(),
            conventions=conventions,
            is_novel=is_novel,
        )

    def manifest(self, artifact: Artifact) -> dict[str, Any]:
        manifest = self.store.manifest(artifact.name)
        assert manifest is not None
        return manifest


@pytest.fixture
def steps(project: Project) -> Steps:
    return Steps(project)


def _forbid(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} was called again")

    monkeypatch.setattr(module, name, again)


# --- 0: index --------------------------------------------------------------------------------------------------------


def test_an_annotation_file_becomes_images_annotations_and_categories(steps: Steps) -> None:
    dataset = steps.dataset()
    assert dataset.num_rows == {"images": 2, "annotations": 4, "categories": 2}
    assert steps.store.load(dataset, Images).file_name.tolist() == ["r0.png", "r1.png"]
    assert steps.store.load(dataset, Categories).name.tolist() == ["box", "bar"]
    assert steps.store.load(dataset, Annotations).category_id.tolist() == [3, 8, 3, 8]


def test_a_folder_becomes_images_with_sizes_and_versions(steps: Steps) -> None:
    dataset = steps.dataset(DatasetSource(images=steps.config.targets.images))
    images = steps.store.load(dataset, Images)
    assert images.image_id.tolist() == images.file_name.tolist() == [f"t{number}.png" for number in range(5)]
    folder = Path(steps.config.targets.images)
    assert images.size.tolist() == [(folder / name).stat().st_size for name in images.file_name]
    assert all(images.version)
    assert dataset.num_rows == {"images": 5, "annotations": 0, "categories": 0}


def test_files_that_are_no_images_are_not_listed(steps: Steps) -> None:
    folder = Path(steps.config.targets.images)
    (folder / "notes.txt").write_text("no image")
    (folder / "deep").mkdir()
    (folder / "t0.png").rename(folder / "deep" / "T0.PNG")
    dataset = steps.dataset(DatasetSource(images=str(folder)))
    names = steps.store.load(dataset, Images).file_name.tolist()
    assert names == ["deep/T0.PNG", "t1.png", "t2.png", "t3.png", "t4.png"]


def test_the_same_content_is_the_same_dataset_and_another_is_another(steps: Steps) -> None:
    listed = DatasetSource(images=steps.config.targets.images)
    first = steps.dataset(), steps.dataset(listed)
    assert (steps.dataset(), steps.dataset(listed)) == first
    steps.project.add_target("t9.png", 9)
    write_coco(steps.project.folder / "references.json", ["r0.png"], with_masks=True)
    assert steps.dataset() != first[0]
    assert steps.dataset(listed) != first[1]


def test_what_lvis_says_of_categories_is_a_fourth_table_and_others_keep_their_keys(steps: Steps) -> None:
    plain = steps.dataset()
    assert steps.manifest(plain)["version"] == 1
    _make_federated(steps.project.folder / "references.json")
    dataset = steps.dataset()
    assert steps.manifest(dataset)["version"] == 2
    assert dataset.num_rows == plain.num_rows | {"federated_labels": 4}
    assert steps.store.load(dataset, FederatedLabels).kind.tolist() == ["negative", "not_exhaustive"] * 2


def test_masks_of_another_file_make_a_dataset_of_their_own_by_their_content_and_how_they_are_found(
    steps: Steps,
) -> None:
    boxes = DatasetSource(images=steps.config.references.images, annotations=str(steps.project.folder / "boxes.json"))
    full = steps.project.folder / "references.json"
    source = boxes.model_copy(update={"masks_from": str(full)})
    borrowed = steps.dataset(source)
    annotations = steps.store.load(borrowed, Annotations)
    assert annotations.equals(steps.store.load(steps.dataset(), Annotations))
    manifest = steps.manifest(borrowed)
    assert manifest["settings"]["masks_from"] == str(full)
    assert set(manifest["inputs"]) == {"content", "masks"}
    assert set(steps.manifest(steps.dataset(boxes))["settings"]) == {"images", "annotations", "image_ids"}

    content = read_coco(full)
    content["annotations"].insert(0, content["annotations"][0] | {"id": 99})
    full.write_text(json.dumps(content))
    original = index_dataset.fn(steps.store.uri, source, conventions="original")
    assert len({steps.dataset(boxes).key, borrowed.key, steps.dataset(source).key, original.key}) == 4
    assert steps.store.load(original, Annotations).equals(annotations), "here an id is a position"


def test_chosen_images_are_a_dataset_of_their_own(steps: Steps) -> None:
    source = steps.config.targets.source.model_copy(update={"image_ids": ("4", "2")})
    dataset = steps.dataset(source)
    assert steps.store.load(dataset, Images).image_id.tolist() == ["2", "4"]
    assert dataset != steps.dataset(steps.config.targets.source)
    with pytest.raises(DatasetError, match="77"):
        steps.dataset(source.model_copy(update={"image_ids": ("2", "77")}))


def test_a_folder_without_images_is_an_error_that_says_what_is_expected(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: no images.*\.jpg"):
        steps.dataset(DatasetSource(images=str(tmp_path / "empty")))


@pytest.mark.parametrize("place", ["images", "annotations"])
def test_what_is_absent_is_named(place: str, steps: Steps) -> None:
    source = DatasetSource(images=steps.config.targets.images).model_copy(update={place: "/nowhere/at/all"})
    with pytest.raises(StoreError, match="/nowhere/at/all: not found"):
        steps.dataset(source)


def test_a_manifest_of_a_dataset_shows_where_it_came_from_but_no_secret(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (steps.project.folder / "references.json").read_bytes()
    for module in ("tasks.datasets.annotation_files", "tasks.index_dataset"):
        monkeypatch.setattr(f"{module}.read_uri", lambda _: data)
    source = DatasetSource(
        images="s3://user:hunter2@bucket/images",
        annotations="https://user:hunter2@host/refs.json?X-Amz-Signature=hunter2",
    )
    manifest = steps.manifest(steps.dataset(source))
    assert manifest["settings"]["images"] == "s3://bucket/images"
    assert manifest["settings"]["annotations"] == "https://host/refs.json"
    for file in steps.store.folder.list_files():
        assert b"hunter2" not in steps.store.folder.read(file.name)


# --- 1: sample -------------------------------------------------------------------------------------------------------


def test_one_reference_of_each_category_is_sampled(steps: Steps) -> None:
    references = steps.store.load(steps.references(), References)
    assert references.category_id.tolist() == list(CATEGORIES)
    assert references.mask_source.tolist() == ["dataset", "dataset"]
    assert all(rle is not None for rle in references.mask_rle)


def test_other_settings_sample_another_set_and_the_same_the_same(steps: Steps) -> None:
    one = steps.references()
    assert steps.references() == one
    two = steps.references(SamplingSettings(num_shots=2))
    assert two.num_rows == {"references": 4}
    assert steps.references(SamplingSettings(seed=1)) != one


def test_named_annotations_are_taken_instead(steps: Steps) -> None:
    artifact = steps.references(ids=["4", "1"])
    references = steps.store.load(artifact, References)
    assert references.annotation_id.tolist() == ["4", "1"]
    assert steps.manifest(artifact)["settings"] == {"annotation_ids": ["4", "1"]}
    with pytest.raises(DatasetError, match="99"):
        steps.references(ids=["99"])


def test_sampled_references_keep_the_key_they_had_before_there_was_a_choice(steps: Steps) -> None:
    sampled = steps.references()
    assert steps.manifest(sampled)["settings"] == {
        "split": None,
        "categories": None,
        "num_shots": 1,
        "seed": 33,
        "on_shortage": "error",
    }
    assert steps.references(conventions="original") == sampled
    assert steps.references(ids=["4"], conventions="original") == steps.references(ids=["4"])


def test_all_annotations_become_references_whose_key_follows_what_matters(steps: Steps) -> None:
    every = SamplingSettings(selection="all")
    two, three, boxes = (
        every.model_copy(update=change) for change in ({"num_shots": 2}, {"num_shots": 3}, {"categories": ("box",)})
    )
    corrected = steps.references(every)
    assert corrected.num_rows == {"references": 4}
    assert steps.references(two) == steps.references(every.model_copy(update={"seed": 1})) == corrected
    keys = [reference.key for reference in (corrected, steps.references(boxes))]
    keys += [steps.references(settings, conventions="original").key for settings in (two, three)]
    assert len(set(keys)) == 4


# --- 2: segment ------------------------------------------------------------------------------------------------------


def test_references_that_have_masks_stay_as_they_are(steps: Steps) -> None:
    references = steps.references()
    assert steps.segment(steps.dataset(), references) == references


def test_references_with_boxes_only_get_masks_of_the_segmenter(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    before = steps.store.load(references, References)
    assert before.mask_source.tolist() == ["none", "none"]
    after = steps.store.load(steps.segment(dataset, references), References)
    assert after.mask_source.tolist() == ["segmenter", "segmenter"]
    assert all(0 <= score <= 1 for score in after.mask_score)
    masks = decode_masks(list(after.mask_rle))
    assert masks.shape == (2, 96, 128)
    assert masks.any(axis=(1, 2)).all()
    lost = ("mask_rle", "mask_source", "mask_score")
    assert table_rows(after, without=lost) == table_rows(before, without=lost)


def test_masks_that_the_dataset_gives_are_kept_where_others_are_segmented(steps: Steps) -> None:
    path = steps.project.folder / "references.json"
    content = read_coco(path)
    del content["annotations"][1]["segmentation"]
    path.write_text(json.dumps(content))
    references = steps.references(ids=["1", "2"])
    before = steps.store.load(references, References)
    after = steps.store.load(steps.segment(steps.dataset(), references), References)
    assert after.mask_source.tolist() == ["dataset", "segmenter"]
    assert after.mask_rle[0] == before.mask_rle[0]
    assert after.mask_score[0] is None
    assert after.mask_score[1] is not None


def test_masks_made_as_published_are_others_and_those_made_before_keep_their_key(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    corrected, original = (steps.segment(dataset, references, which) for which in ("corrected", "original"))
    assert steps.manifest(corrected)["settings"] == {}
    assert original != corrected
    exact, polygons = (steps.store.load(made, References).mask_rle.tolist() for made in (corrected, original))
    assert exact != polygons
    with_masks = steps.references()
    assert steps.segment(steps.dataset(), with_masks, "original") == with_masks


def test_segmented_masks_follow_the_images_content(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    first = steps.segment(dataset, references)
    assert steps.segment(dataset, references) == first
    for name in ("r0.png", "r1.png"):
        write_images(steps.project.folder / "references", {name: scene(55)})
    assert steps.segment(dataset, references) != first


def test_a_reference_image_that_cannot_be_read_stops_with_its_name(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    for name in ("r0.png", "r1.png"):
        (steps.project.folder / "references" / name).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"r\d\.png cannot be read: not an image") as caught:
        steps.segment(dataset, references)
    assert isinstance(caught.value.__cause__, ImageError)


# --- 3: fill ---------------------------------------------------------------------------------------------------------


def test_every_reference_becomes_one_vector(steps: Steps) -> None:
    bank = steps.store.load(steps.fill(steps.dataset(), steps.references()), MemoryBank)
    assert bank.category_id.tolist() == list(CATEGORIES)
    assert bank.feature.shape == (2, TINY_ENCODER.embed_dim)
    assert (bank.foreground_weight > 0).all()
    assert np.isfinite(bank.feature).all()


def test_the_bank_is_filled_once_and_follows_encoder_and_images(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, references = steps.dataset(), steps.references()
    first = steps.fill(dataset, references)
    assert set(steps.manifest(first)["weights"]) == {"encoder"}
    with monkeypatch.context() as patch:
        _forbid(patch, fill_module, "encode_references")
        assert steps.fill(dataset, references) == first
    steps.config = steps.project.config_with({"references.crop.context_ratio": 0.5})
    assert steps.fill(dataset, references) != first


def test_more_references_than_a_batch_are_all_encoded_and_each_as_alone(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = steps.references(SamplingSettings(num_shots=2))
    together = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    monkeypatch.setattr(fill_module, "_CROPS_PER_BATCH", 1)
    elsewhere = steps.elsewhere()
    bank = elsewhere.fill(elsewhere.dataset(), elsewhere.references(SamplingSettings(num_shots=2)))
    alone = elsewhere.store.load(bank, MemoryBank)
    assert together.shot.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(together.feature, alone.feature, rtol=1e-4, atol=1e-5)


def test_a_reference_whose_mask_vanishes_is_left_out_with_a_warning(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    path = steps.project.folder / "references.json"
    content = read_coco(path)
    content["annotations"][0]["segmentation"] = [[120, 90, 124, 90, 124, 94, 120, 94]]  # outside its box
    path.write_text(json.dumps(content))
    references = steps.references(ids=["1", "2", "3"])
    bank = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    assert sorted(zip(bank.category_id.tolist(), bank.shot.tolist(), strict=True)) == [(3, 1), (8, 0)]
    assert "reference annotation 1 (category 3, image r0.png) vanishes" in caplog.text


# --- 4: postprocess --------------------------------------------------------------------------------------------------


def test_each_category_becomes_one_unit_vector(steps: Steps) -> None:
    references = steps.references(SamplingSettings(num_shots=2))
    artifact = postprocess_memory_bank.fn(steps.store.uri, references, steps.fill(steps.dataset(), references))
    prototypes = steps.store.load(artifact, Prototypes)
    assert prototypes.category_id.tolist() == list(CATEGORIES)
    assert prototypes.num_references.tolist() == [2, 2]
    np.testing.assert_allclose(np.linalg.norm(prototypes.prototype, axis=1), 1, rtol=1e-5)


def test_a_category_that_lost_all_its_references_is_an_error_that_names_it(steps: Steps) -> None:
    references = steps.references()
    bank = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    left = steps.store.make(Recipe("test", "memory_bank", version=1), lambda: [bank[bank.category_id == 8]])
    with pytest.raises(DatasetError, match=r"\[3\]"):
        postprocess_memory_bank.fn(steps.store.uri, references, left)


# --- 5: plan and label -----------------------------------------------------------------------------------------------


def test_targets_are_planned_in_shards_and_announced(steps: Steps) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        plan = steps.plan(steps.prototypes())
    assert [len(shard) for shard in plan.pending] == [2, 2, 1]
    assert heard[-1] == Progress("label", 0, 5)


def test_what_matters_makes_new_labels_and_what_does_not_makes_none(steps: Steps) -> None:
    prototypes = steps.prototypes()
    key = steps.plan(prototypes).key
    assert steps.plan(prototypes, batches=BatchSettings(points_per_batch=1, images_per_shard=1)).key == key
    assert steps.plan(prototypes, labeling=LabelingSettings(points_per_side=2)).key != key
    other = postprocess_memory_bank.fn(
        steps.store.uri,
        steps.references(ids=["1", "2"]),
        steps.fill(steps.dataset(), steps.references(ids=["1", "2"])),
    )
    if other != prototypes:
        assert steps.plan(other).key != key


def test_every_image_is_labelled_once_in_the_plans_order(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    heard: list[Progress] = []
    with listening(heard.append):
        summaries = steps.label(prototypes, plan)
    assert [summary.num_images for summary in summaries] == [2, 2, 1]
    assert [summary.num_unreadable for summary in summaries] == [0, 0, 0]
    assert heard == [Progress("label", 1)] * 5
    detections, labeled = steps.labels(plan)
    assert labeled.image_id.tolist() == ["1", "2", "3", "4", "5"]
    assert sum(summary.num_detections for summary in summaries) == len(detections) > 0
    assert labeled.num_detections.tolist() == [int((detections.image_id == i).sum()) for i in labeled.image_id]
    assert set(labeled.height.tolist()) == {96}
    assert set(labeled.width.tolist()) == {128}
    assert set(detections.category_id.tolist()) <= set(CATEGORIES)
    assert all(decode_mask(rle).shape == (96, 128) for rle in detections.mask_rle)


@pytest.mark.slow
def test_labels_do_not_depend_on_how_the_work_is_cut_up(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    elsewhere = steps.elsewhere()
    assert elsewhere.prototypes() == prototypes
    batches = BatchSettings(points_per_batch=2, images_per_shard=5)
    again = elsewhere.plan(prototypes, batches=batches)
    elsewhere.label(prototypes, again, batches=batches)
    assert again.key == plan.key
    ours, theirs = steps.labels(plan), elsewhere.labels(again)
    near = ("score", "predicted_iou")
    assert table_rows(ours[0], without=near) == table_rows(theirs[0], without=near)
    for name in near:
        np.testing.assert_allclose(getattr(ours[0], name), getattr(theirs[0], name), rtol=1e-3, atol=1e-5)
    assert table_rows(ours[1], without=["seconds"]) == table_rows(theirs[1], without=["seconds"])


def test_a_labelled_shard_is_neither_planned_nor_labelled_again(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    assert steps.plan(prototypes).pending == ()
    _forbid(monkeypatch, label_module, "Labeler")
    assert steps.label(prototypes, plan) == [ShardSummary(2, 0, 0), ShardSummary(2, 0, 0), ShardSummary(1, 0, 0)]


def test_images_that_cannot_be_read_become_rows_with_their_reasons(steps: Steps) -> None:
    targets = Path(steps.config.targets.images)
    (targets / "t1.png").write_bytes(b"no image")
    (targets / "t2.png").unlink()
    write_images(targets, {"t3.png": scene(3)[:50]})
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    summaries = steps.label(prototypes, plan)
    assert [summary.num_unreadable for summary in summaries] == [1, 2, 0]
    detections, labeled = steps.labels(plan)
    assert [status == "unreadable" for status in labeled.status] == [False, True, True, True, False]
    for row, reason in ((1, "not an image"), (2, "t2.png: not found"), (3, "declare 96 x 128")):
        assert reason in labeled.error[row]
        assert labeled.num_detections[row] == labeled.height[row] == 0
    assert not set(detections.image_id) & {"2", "3", "4"}


def test_an_image_in_which_nothing_is_found_is_empty(steps: Steps) -> None:
    prototypes = steps.prototypes()
    labeling = LabelingSettings(points_per_side=1, pred_iou_thresh=1)
    plan = steps.plan(prototypes, labeling=labeling)
    steps.label(prototypes, plan, labeling=labeling)
    detections, labeled = steps.labels(plan)
    assert labeled.status.tolist() == ["empty"] * 5
    assert len(detections) == 0


def test_a_fault_of_the_world_leaves_the_shard_to_be_labelled_again(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    read = Folder.read

    def faulty(folder: Folder, name: str) -> bytes:
        if name == "t3.png":
            raise TimeoutError("the network sleeps")
        return read(folder, name)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", faulty)
        with pytest.raises(TimeoutError, match="the network sleeps"):
            steps.label(prototypes, plan)
    pending = steps.plan(prototypes).pending
    assert pending == plan.pending[1:]
    steps.label(prototypes, LabelPlan(plan.dataset, plan.key, pending))
    assert len(steps.labels(plan)[1]) == 5


def test_pictures_are_written_while_labelling_when_asked(steps: Steps, tmp_path: Path) -> None:
    prototypes = steps.prototypes()
    steps.label(prototypes, steps.plan(prototypes), pictures=str(tmp_path / "pictures"))
    names = [file.name for file in Folder(str(tmp_path / "pictures")).list_files()]
    assert names == [f"t{number}.png.jpg" for number in range(5)]


def test_a_shard_is_committed_though_an_image_vanished_meanwhile(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_readable(_: Folder, images: Images, *, max_pixels: int) -> Iterator[ReadImage]:
        return iter([ReadImage(row, None, f"gone ({max_pixels})") for row in range(len(images))])

    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    monkeypatch.setattr(label_module, "read_images", none_readable)
    assert steps.label(prototypes, plan)[0] == ShardSummary(2, 2, 0)
    assert steps.labels(plan)[1].error.tolist() == ["gone (100000000)"] * 5


# --- 6: evaluate -----------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(steps: Steps) -> tuple[Artifact, LabelPlan]:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    return prototypes, plan


def test_labels_are_evaluated_over_the_prototypes_categories(
    steps: Steps, labelled: tuple[Artifact, LabelPlan]
) -> None:
    made = load_review(steps.store, steps.evaluate(*labelled))
    metrics = made.metrics
    assert set(metrics.iou_type) == {"bbox", "segm"}
    assert {name for name in metrics.category_name if name is not None} == set(CATEGORIES.values())
    detections, _ = steps.labels(labelled[1])
    dataset = labelled[1].dataset
    expected = evaluation.review(
        steps.store.load(dataset, Images),
        steps.store.load(dataset, Annotations),
        steps.store.load(dataset, Categories),
        detections,
    )
    assert [type(table) for table in made.tables] == [Metrics, Confusion, Misses]
    assert all(own.equals(other) for own, other in zip(made.tables, expected.tables, strict=True))


def test_metrics_that_were_made_before_there_was_more_than_numbers_are_all_there_is(steps: Steps) -> None:
    metrics = Metrics.empty()
    old = steps.store.make(Recipe("evaluate", "metrics", version=1), lambda: [metrics])
    (kept,) = load_review(steps.store, old).tables
    assert kept.equals(metrics)


def test_ap_over_a_benchmarks_novel_categories_is_told_as_nap(
    steps: Steps, labelled: tuple[Artifact, LabelPlan]
) -> None:
    metrics = steps.evaluate(*labelled, is_novel=True)
    assert {"nAP", "nAP50"} <= set(steps.store.load(metrics, Metrics).metric)


def test_the_evaluation_is_made_once_for_each_convention(
    steps: Steps, labelled: tuple[Artifact, LabelPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = steps.evaluate(*labelled)
    original = steps.evaluate(*labelled, "original")
    assert corrected.key != original.key
    _forbid(monkeypatch, evaluation, "review")
    assert steps.evaluate(*labelled) == corrected


def test_only_what_decides_the_numbers_is_in_the_metrics_key(
    steps: Steps, labelled: tuple[Artifact, LabelPlan]
) -> None:
    coco = steps.evaluate(*labelled)
    chosen = EvaluationSettings(protocol="coco", semantic_score_thresh=0.1, score_threshes=(0.7, 0.3, 0.5))
    assert steps.evaluate(*labelled, settings=chosen) == coco
    assert steps.evaluate(*labelled, settings=EvaluationSettings(score_threshes=(0.3,))) != coco
    semantic = [
        steps.evaluate(*labelled, settings=EvaluationSettings(protocol="semantic", semantic_score_thresh=thresh))
        for thresh in (0.0, 0.5)
    ]
    assert len({artifact.key for artifact in (coco, *semantic)}) == 3
    assert [protocol_of(steps.store, one) for one in (coco, *semantic)] == ["coco", "semantic", "semantic"]
    assert set(steps.store.load(semantic[0], Metrics).iou_type) == {"semantic"}


def _make_federated(path: Path) -> None:
    content = read_coco(path)
    for image in content["images"]:
        image |= {"neg_category_ids": [8], "not_exhaustive_category_ids": [3]}
    content["categories"][0]["frequency"] = "r"
    path.write_text(json.dumps(content))


def test_lvis_is_evaluated_by_its_own_protocol_and_originally_by_cocos(steps: Steps) -> None:
    _make_federated(steps.project.folder / "targets.json")
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    metrics = steps.evaluate(prototypes, plan)
    assert protocol_of(steps.store, metrics) == "lvis"
    table = steps.store.load(metrics, Metrics)
    value_of = dict(zip(table.metric, table.value.tolist(), strict=True))
    assert value_of["APr"] >= 0, "the targets, not the references, say how frequent a category is"
    assert value_of["APf"] == -1
    original = steps.evaluate(prototypes, plan, "original")
    assert protocol_of(steps.store, original) == "coco"
    assert "APr" not in steps.store.load(original, Metrics).metric


def test_incomplete_labels_are_not_evaluated(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, LabelPlan(plan.dataset, plan.key, plan.pending[:1]))
    with pytest.raises(StoreError, match="only 2 of 5 images are labelled"):
        steps.evaluate(prototypes, plan)


def test_an_evaluation_may_be_of_some_of_the_labelled_images(
    steps: Steps, labelled: tuple[Artifact, LabelPlan]
) -> None:
    prototypes, plan = labelled
    some = steps.dataset(steps.config.targets.source.model_copy(update={"image_ids": ("2", "3")}))
    metrics = steps.store.load(steps.evaluate(prototypes, LabelPlan(some, plan.key, ())), Metrics)
    overall = metrics[np.array([category is None for category in metrics.category_id])]
    assert set(overall.num_instances.tolist()) == {4}


def test_categories_that_targets_number_differently_are_an_error_that_names_them(steps: Steps) -> None:
    names = [f"t{number}.png" for number in range(5)]
    write_coco(steps.project.folder / "targets.json", names, with_masks=True, categories={3: "bar", 8: "bar stool"})
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    with pytest.raises(DatasetError, match=r"3 is 'box' in the references and 'bar' in the targets.*8 is 'bar'"):
        steps.evaluate(prototypes, plan)


def test_targets_that_number_the_same_names_differently_are_evaluated_by_name(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    numbers = table_rows(steps.store.load(steps.evaluate(prototypes, plan), Metrics))
    path = steps.project.folder / "targets.json"
    content = read_coco(path)
    other_id = {3: 0, 8: 3}
    for one in content["annotations"]:
        one["category_id"] = other_id[one["category_id"]]
    for one in content["categories"]:
        one["id"] = other_id[one["id"]]
    path.write_text(json.dumps(content))
    renumbered = LabelPlan(steps.dataset(steps.config.targets.source), plan.key, ())
    assert table_rows(steps.store.load(steps.evaluate(prototypes, renumbered), Metrics)) == numbers


def test_categories_that_only_the_targets_have_are_left_out(steps: Steps) -> None:
    path = steps.project.folder / "targets.json"
    content = read_coco(path)
    content["categories"].append({"id": 99, "name": "unknown"})
    content["annotations"][0]["category_id"] = 99
    path.write_text(json.dumps(content))
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    metrics = steps.store.load(steps.evaluate(prototypes, plan), Metrics)
    assert "unknown" not in set(metrics.category_name)


def test_messages_show_no_secret(project: Project) -> None:
    steps = Steps(project)
    steps.store = Store(f"memory://user:hunter2@{uuid.uuid4().hex}/store")
    prototypes = steps.prototypes()
    with pytest.raises(StoreError, match="only 0 of 5 images are labelled") as caught:
        steps.evaluate(prototypes, steps.plan(prototypes))
    assert "hunter2" not in str(caught.value)
