"""A shard is labeled once, whatever is wrong with single images, and its labels depend on no other shard."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from refseg_core.masks.rle import decode_mask
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.tables import CategorySimilarities, Images
from tasks import label_shard as label_module
from tasks.datasets.image_reader import ReadImage
from tasks.label_shard import _find_each, _Framed
from tasks.runtime.cancellation import StoppedError, request_stop, request_stop_of, save_finished, stopping_with_this
from tasks.runtime.progress import Progress, ProgressStep, listening
from tasks.specs import LabelJob
from tasks.storage.folder import Folder
from tasks.store.parquet import table_from_parquet
from tasks.store.shard_plans import LabelPlan
from tasks.store.verify import verify_store
from tests.support.projects.project import CATEGORIES, scene
from tests.support.projects.steps import Steps, forbid
from tests.support.samples import table_rows, write_images

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_every_image_is_labeled_once_in_the_plans_order(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    heard: list[Progress] = []
    with listening(heard.append):
        counts = steps.label(prototypes, plan)
    assert [sum(of_shard.values()) for of_shard in counts] == [2, 2, 1]
    assert [of_shard["unreadable"] for of_shard in counts] == [0, 0, 0]
    finished, step = Progress(ProgressStep.LABEL, 1, unsaved=1), ProgressStep.LABEL
    saved = [Progress(step, 0, unsaved=-number) for number in (2, 2, 1)]
    assert heard == [finished, finished, saved[0], finished, finished, saved[1], finished, saved[2]]
    detections, labeled = steps.labels(plan)
    assert labeled.image_id.tolist() == ["1", "2", "3", "4", "5"]
    assert sum(of_shard["ok"] for of_shard in counts) == len(set(detections.image_id)) > 0
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


def test_a_labeled_shard_is_neither_planned_nor_labeled_again(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    assert steps.plan(prototypes).pending == ()
    forbid(monkeypatch, label_module, "BatchLabeler")
    assert steps.label(prototypes, plan) == [{}, {}, {}]


def test_images_that_cannot_be_read_become_rows_with_their_reasons(steps: Steps) -> None:
    targets = Path(steps.config.targets.images)
    (targets / "t1.png").write_bytes(b"no image")
    (targets / "t2.png").unlink()
    write_images(targets, {"t3.png": scene(3)[:50]})
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    assert [of_shard["unreadable"] for of_shard in steps.label(prototypes, plan)] == [1, 2, 0]
    detections, labeled = steps.labels(plan)
    assert [status == "unreadable" for status in labeled.status] == [False, True, True, True, False]
    for row, reason in ((1, "not an image"), (2, "t2.png: not found"), (3, "declare 96 x 128")):
        assert reason in labeled.error[row]
        assert labeled.num_detections[row] == labeled.height[row] == 0
    assert not set(detections.image_id) & {"2", "3", "4"}


def test_an_image_in_which_nothing_is_found_is_empty(steps: Steps) -> None:
    prototypes = steps.prototypes()
    labeling = LabelingSettings(method="published", points_per_side=1, pred_iou_thresh=1)
    plan = steps.plan(prototypes, labeling=labeling)
    steps.label(prototypes, plan, labeling=labeling)
    detections, labeled = steps.labels(plan)
    assert labeled.status.tolist() == ["empty"] * 5
    assert len(detections) == 0


def _similarities(steps: Steps, plan: LabelPlan) -> CategorySimilarities:
    folder = Folder(f"{steps.store.uri}/labels/{plan.key}/category_similarities")
    parts = [folder.read(file.name) for file in folder.list_files()]
    return CategorySimilarities.concatenate([table_from_parquet(part, CategorySimilarities) for part in parts])


def test_what_an_image_resembles_is_stored_with_guided_labels(steps: Steps) -> None:
    prototypes = steps.prototypes()
    everything = LabelingSettings(path="guided", guidance_thresh=-1, points_per_side=2)
    plan = steps.plan(prototypes, labeling=everything)
    steps.label(prototypes, plan, labeling=everything)
    labeled, similarities = steps.labels(plan)[1], _similarities(steps, plan)
    found = list(zip(similarities.image_id, similarities.category_id.tolist(), strict=True))
    assert found == [(image_id, category) for image_id in labeled.image_id for category in sorted(CATEGORIES)]
    largest = [similarities.similarity[similarities.image_id == image_id].max() for image_id in labeled.image_id]
    assert largest == labeled.max_similarity.tolist()


def test_what_an_image_does_not_resemble_is_absent(steps: Steps) -> None:
    prototypes = steps.prototypes()
    nothing = LabelingSettings(path="guided", guidance_thresh=1, points_per_side=2)
    plan = steps.plan(prototypes, labeling=nothing)
    steps.label(prototypes, plan, labeling=nothing)
    assert len(_similarities(steps, plan)) == 0
    assert steps.labels(plan)[1].num_prompts.tolist() == [0] * 5
    assert verify_store(steps.store).problems == []


def test_paths_that_prompt_everywhere_store_no_similarities(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    assert not any("category_similarities" in file.name for file in steps.store.folder.list_files())


@pytest.mark.parametrize("images_per_batch", [1, 3])
@pytest.mark.slow
def test_guided_labels_do_not_depend_on_which_images_fill_a_batch(steps: Steps, images_per_batch: int) -> None:
    prototypes = steps.prototypes()
    everything = LabelingSettings(path="guided", guidance_thresh=None, points_per_side=2, pred_iou_thresh=0)
    exact = steps.plan(prototypes, labeling=everything.model_copy(update={"path": "exact"}))
    steps.label(prototypes, exact, labeling=everything.model_copy(update={"path": "exact"}))
    batches = BatchSettings(images_per_batch=images_per_batch, images_per_shard=5)
    guided = steps.plan(prototypes, labeling=everything, batches=batches)
    steps.label(prototypes, guided, labeling=everything, batches=batches)
    for ours, theirs in zip(steps.labels(guided), steps.labels(exact), strict=True):
        near = ["score", "predicted_iou", "box_xyxy", "mask_rle", "seconds", "max_similarity"]
        without = [name for name in near if hasattr(ours, name)]
        assert table_rows(ours, without=without) == table_rows(theirs, without=without)


@dataclass
class _CountedLabeler:
    """Sees whether an image, a number, is worth a prompt, and notes which ones come together."""

    images_per_batch: int
    prompted: Callable[[int], bool]
    encoded: list[list[int]] = field(default_factory=list)
    segmented: list[list[int]] = field(default_factory=list)

    def encode(self, images: list[int]) -> list[Any]:
        self.encoded.append(images)
        return [SimpleNamespace(number=image, is_prompted=self.prompted(image)) for image in images]

    def find_in(self, images: list[Any]) -> list[int]:
        if segmented := [image.number for image in images if image.is_prompted]:
            self.segmented.append(segmented)
        return [image.number for image in images]


def _found(labeler: _CountedLabeler, numbers: Iterable[int], unreadable: Collection[int] = ()) -> list[tuple[int, Any]]:
    """The images in the order in which they come, each with what was found in it."""
    framed = (_Framed(ReadImage(i, None, None), None if i in unreadable else i) for i in numbers)  # type: ignore[arg-type]
    return [(image.read.row, image.found) for image in _find_each(labeler, framed)]  # type: ignore[arg-type]


def test_the_segmenter_gets_whole_batches_of_the_images_that_need_it() -> None:
    labeler = _CountedLabeler(4, prompted=lambda number: number % 3 == 0)
    assert _found(labeler, range(30), unreadable=[3, 7]) == [(i, None if i in (3, 7) else i) for i in range(30)]
    assert labeler.segmented == [[0, 6, 9, 12], [15, 18, 21, 24], [27]]
    assert {len(batch) for batch in labeler.encoded} <= {2, 3, 4}


def test_an_image_waits_for_a_batch_only_so_long() -> None:
    """However few images are prompted, no more than eight batches of images are held."""
    labeler = _CountedLabeler(2, prompted=lambda number: number in (0, 40))
    taken: list[int] = []

    def images() -> Iterator[int]:
        for number in range(60):
            taken.append(number)
            yield number

    framed = (_Framed(ReadImage(i, None, None), i) for i in images())  # type: ignore[arg-type]
    for place, image in enumerate(_find_each(labeler, framed)):  # type: ignore[arg-type]
        assert image.read.row == place
        assert len(taken) - place <= 16
    assert labeler.segmented == [[0], [40]]


def test_one_image_at_a_time_waits_for_none() -> None:
    labeler = _CountedLabeler(1, prompted=lambda number: number == 2)
    framed = (_Framed(ReadImage(i, None, None), i) for i in range(4))  # type: ignore[arg-type]
    assert [image.read.row for image in islice(_find_each(labeler, framed), 3)] == [0, 1, 2]  # type: ignore[arg-type]
    assert labeler.encoded == [[0], [1], [2]]


def test_a_fault_of_the_world_leaves_the_shard_to_be_labeled_again(
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


@pytest.fixture(autouse=True)
def _nothing_stays_stopped() -> Iterator[None]:
    yield
    with stopping_with_this():
        pass


def test_work_for_a_stopped_run_of_another_process_is_not_begun(steps: Steps) -> None:
    plan = steps.plan(prototypes := steps.prototypes())
    request_stop_of("that run")
    job = LabelJob(**dict(steps.config.label_spec), store=steps.store.uri, key=plan.key, prototypes=prototypes.name)
    assert label_module.label_shard.fn(job, plan.pending[0], "that run") == {}
    assert steps.plan(prototypes).pending == plan.pending


def _stopping_at(number: int) -> Callable[[Progress], None]:
    """A listener that stops the work when so many images are finished."""
    finished: list[int] = []

    def listen(progress: Progress) -> None:
        finished.extend(range(progress.advanced))
        if len(finished) == number:
            request_stop()

    return listen


@pytest.mark.parametrize("path", ["exact", "guided"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.slow
def test_work_that_is_stopped_commits_what_is_finished_and_goes_on_from_there(
    steps: Steps, number: int, path: str
) -> None:
    prototypes = steps.prototypes()
    elsewhere = steps.elsewhere()
    special: dict[str, Any] = {
        "batches": BatchSettings(images_per_shard=5),
        "labeling": LabelingSettings(path=path, guidance_thresh=-1, points_per_side=2),  # type: ignore[arg-type]
    }
    plan = steps.plan(prototypes, **special)
    heard: list[Progress] = []
    stopping = listening(_stopping_at(number))
    with (
        stopping_with_this(),
        stopping,
        listening(heard.append),
        pytest.raises(StoppedError, match="same run continues"),
    ):
        steps.label(prototypes, plan, **special)
    num_kept = len(steps.labels(plan)[1])
    assert number <= num_kept < 5
    assert num_kept - number <= 2, "no more than what the threads had begun"
    assert sum(progress.advanced for progress in heard) == num_kept
    assert sum(progress.unsaved for progress in heard) == 0
    (rest,) = steps.plan(prototypes, **special).pending
    assert len(rest) == 5 - num_kept
    assert verify_store(steps.store).problems == []
    with stopping_with_this():
        steps.label(prototypes, LabelPlan(plan.dataset, plan.key, plan.pending), **special)
    assert verify_store(steps.store).problems == []
    assert steps.plan(prototypes, **special).pending == ()
    elsewhere.label(elsewhere.prototypes(), elsewhere.plan(prototypes, **special), **special)
    for found, expected in zip(steps.labels(plan), elsewhere.labels(plan), strict=True):
        without = [name for name in ("seconds",) if hasattr(found, name)]
        assert table_rows(found, without=without) == table_rows(expected, without=without)


def test_what_is_finished_is_saved_while_the_image_at_hand_takes_long(steps: Steps) -> None:
    prototypes = steps.prototypes()
    special = {"batches": BatchSettings(images_per_shard=5)}
    plan = steps.plan(prototypes, **special)
    kept: list[int] = []

    def listen(progress: Progress) -> None:
        if progress.advanced:
            save_finished()
            kept.append(len(steps.labels(plan)[1]))

    with listening(listen):
        counts = steps.label(prototypes, plan, **special)
    assert kept == [1, 2, 3, 4, 5]
    assert [sum(of_shard.values()) for of_shard in counts] == [5]
    assert verify_store(steps.store).problems == []


def test_images_of_work_that_fails_are_taken_back(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)

    def fail(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(Folder, "create", fail)
    heard: list[Progress] = []
    with listening(heard.append), pytest.raises(TimeoutError):
        steps.label(prototypes, plan)
    assert heard[-1] == Progress(ProgressStep.LABEL, -2, unsaved=-2)


def test_pictures_are_written_while_labeling_when_asked(steps: Steps, tmp_path: Path) -> None:
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
    assert steps.label(prototypes, plan)[0] == {"ok": 0, "empty": 0, "unreadable": 2}
    assert steps.labels(plan)[1].error.tolist() == ["gone (100000000)"] * 5
