"""Decisions are appended part by part, and read whole: by whoever, however many write at once, also after kills."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flows.reports.store_report import report_status
from flows.terminal import results
from refseg_core.errors import StoreError
from refseg_core.masks.rle import encode_masks
from refseg_core.tables import Categories, Decisions, Prototypes
from tasks.storage.folder import Folder
from tasks.store import reviews
from tasks.store.garbage import find_garbage
from tasks.store.reviews import StoredReview, read_reviewed
from tasks.store.status import store_status
from tasks.store.store import Artifact, Recipe, Store
from tasks.store.verify import verify_store
from tests.refseg_core.analysis.drawn_decisions import decision, square
from tests.support.label_stores import LabelStore

_MASK = square(0, 0)
_WRITERS, _EACH = 4, 8


@pytest.fixture
def labels() -> LabelStore:
    labels = LabelStore()
    labels.night("a.png", "b.png")
    return labels


def test_nothing_is_there_before_somebody_decides(labels: LabelStore) -> None:
    before = labels.names()
    review = StoredReview.of_labels(labels.run)
    assert (review.recipe(), len(review.read()), labels.names()) == (None, 0, before)


def test_what_was_appended_is_read_by_others_in_the_order_of_time(labels: LabelStore) -> None:
    review = StoredReview.open(labels.run)
    rows = [decision("accept", _MASK), decision("reject", _MASK, reviewer="Bob")]
    for row in rows:
        review.append(row)
    other = StoredReview.of_labels(labels.run)
    assert other.read().equals(Decisions.concatenate(rows))
    review.append(third := decision("accept", square(5, 5)))
    assert other.read().equals(Decisions.concatenate([*rows, third]))


def test_decisions_are_of_the_images_whatever_labels_they_were_seen_in(labels: LabelStore) -> None:
    StoredReview.open(labels.run).append(decision("accept", _MASK))
    labels.recipe_version = 2
    assert len(StoredReview.of_labels(labels.run).read()) == 1


def test_many_writers_lose_nothing(labels: LabelStore) -> None:
    def write(number: int) -> None:
        review = StoredReview.open(labels.run)
        for _ in range(_EACH):
            review.append(decision("accept", _MASK, reviewer=f"person {number}"))

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, range(_WRITERS)))
    found = StoredReview.of_labels(labels.run).read()
    assert len(set(found.decision_id)) == len(found) == _WRITERS * _EACH


def _rows(review: StoredReview) -> list[str]:
    return sorted(set(review.read().decision_id))


def test_many_parts_are_merged_into_one_that_is_read_in_their_place(
    labels: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "_MOST_LOOSE", 3)
    first = StoredReview.open(labels.run)
    for _ in range(4):
        first.append(decision("accept", _MASK))
    expected = _rows(first)
    opened = StoredReview.open(labels.run)
    assert len(first.part_names()) == 5
    last = opened.append(decision("reject", _MASK))
    read: list[str] = []
    original = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, name: (read.append(name), original(self, name))[1])
    later = StoredReview.of_labels(labels.run)
    rows = _rows(later)
    assert set(expected) < set(rows) == set(_rows(opened)) == set(_rows(first))
    assert len(later.read()) == 5
    parts = [name for name in read if "/decisions/" in name and name.endswith(".parquet")]
    assert [name for name in parts[:2] if "-merged.4-" in name or name.endswith(last)] == parts[:2]
    for _ in range(4):
        opened.append(decision("accept", _MASK))
    again = StoredReview.open(labels.run)
    assert len(StoredReview.of_labels(labels.run).read()) == len(again.read()) == 9
    assert verify_store(labels.store).problems == []


def test_a_name_of_any_characters_is_kept_in_the_table_and_harmless_in_the_path(labels: LabelStore) -> None:
    review = StoredReview.open(labels.run)
    names = ["../<b>Ānna</b>", "  ", "x" * 300]
    parts = [review.append(decision("accept", _MASK, reviewer=name)) for name in names]
    assert [part.split("-")[1] for part in parts] == ["b_nna_b", "someone", "x" * 32]
    assert StoredReview.of_labels(labels.run).read().reviewer.tolist() == names


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    labels = LabelStore(Store(str(tmp_path)))
    labels.night("a.png")
    review = StoredReview.open(labels.run)
    part = tmp_path / review.root / "decisions" / review.append(decision("accept", _MASK))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StoreError, match=f"{part.name}: damaged"):
        StoredReview.of_labels(labels.run).read()
    (problem,) = verify_store(labels.store).problems
    assert problem.name == f"{review.root}/decisions/{part.name}"
    part.unlink()
    assert verify_store(labels.store).problems == []


def test_a_decision_whose_mask_does_not_fit_its_image_is_named(labels: LabelStore) -> None:
    review = StoredReview.open(labels.run)
    mask = encode_masks(np.ones((1, 30, 40), dtype=bool))[0]
    part = review.append(Decisions.concatenate([decision("accept", _MASK), decision("mask", _MASK, new_mask_rle=mask)]))
    (problem,) = verify_store(labels.store).problems
    assert problem.name == f"{review.root}/decisions/{part}"
    assert "of Anna on a.png counts for nothing: its mask is of 40 x 30 pixels, expected 20 x 20" in problem.what


def test_a_store_with_decisions_is_whole_and_its_status_counts_them(labels: LabelStore) -> None:
    before = verify_store(labels.store)
    review = StoredReview.open(labels.run)
    for verdict, name in (("accept", "Bob"), ("reject", "Anna"), ("negative", "Anna")):
        review.append(last := decision(verdict, _MASK, reviewer=name))
    verified = verify_store(labels.store)
    assert (verified.problems, verified.num_parts - before.num_parts) == ([], 3)
    (status,) = store_status(labels.store).reviews
    assert (status.verdicts, status.reviewers) == ({"reject": 1, "negative": 1}, ("Anna", "Bob"))
    with results.capture() as captured:
        report_status(labels.store.uri, store_status(labels.store), all_failed=False)
    assert f"of s3://bucket/images, last decision {last.decided_at[0]}" in captured.get()


def test_nothing_is_written_where_a_store_was(tmp_path: Path) -> None:
    labels = LabelStore(Store(str(tmp_path / "store")))
    labels.night("a.png")
    review = StoredReview.open(labels.run)
    (tmp_path / "store").rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="the store is gone"):
        review.append(decision("accept", _MASK))
    assert [one.name for one in tmp_path.iterdir()] == ["moved"]
    (tmp_path / "moved").rename(tmp_path / "store")
    review.append(decision("accept", _MASK))
    assert len(StoredReview.of_labels(labels.run).read()) == 1


def test_decisions_are_never_garbage(labels: LabelStore) -> None:
    review = StoredReview.open(labels.run)
    review.append(decision("accept", _MASK))
    garbage = find_garbage(labels.store, min_age_hours=0, gone=True, labels=[labels.run.key])
    assert garbage
    assert not [one for one in garbage if one.name.startswith(review.root)]


class _Categorized(LabelStore):
    """Labels whose prototypes lead back to a dataset with the category `boat`, of id 1."""

    def prototypes(self) -> Artifact:
        categories = Categories.row(category_id=1, class_index=0, name="boat", frequency=None)
        dataset = self.store.make(Recipe("index_dataset", "dataset", version=1), lambda: [categories])
        references = self.store.make(
            Recipe("sample_references", "references", version=1, inputs={"dataset": dataset.name}), lambda: []
        )
        inputs = {"dataset": dataset.name, "references": references.name}
        bank = self.store.make(Recipe("fill_memory_bank", "memory_bank", version=1, inputs=inputs), lambda: [])
        prototypes = Prototypes.row(category_id=1, num_references=1, prototype=[1.0, 1.0])
        recipe = Recipe("postprocess_memory_bank", "prototypes", version=1, inputs={"memory_bank": bank.name})
        return self.store.make(recipe, lambda: [prototypes])


def test_labels_are_read_by_what_was_decided_on_them() -> None:
    labels = _Categorized()
    labels.night("a.png", "b.png")
    run = labels.run
    images = run.images()
    ((found, labeled),) = run.read(images)
    assert [part.equals(found) for part, _ in read_reviewed(run, images)] == [True]
    StoredReview.open(run).append(decision("reject", found.mask_rle[0]))
    ((reviewed, images_after),) = read_reviewed(run, images)
    assert reviewed.equals(found[found.image_id == "b.png"])
    assert images_after.status.tolist() == ["empty", "ok"]
    assert images_after.num_detections.tolist() == [0, 1]
    assert labeled.num_detections.tolist() == [1, 1]
