"""What people use as references or negatives in a review is one of the next bank, until they take it back."""

import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.oddities import report_leakage
from flows.pipeline import make_prototypes
from flows.review.session import Decision, ReviewSession
from refseg_core.settings import EvaluationSettings
from refseg_core.tables import Categories, Metrics, NegativePrototypes, Prototypes, References
from tasks.datasets.promoted_references import add_promoted
from tasks.datasets.reference_edits import ReferenceEdits, edit_references
from tasks.datasets.shared_images import added_image_ids, shared_image_ids
from tasks.store.lineage import reference_dataset, references_of
from tasks.store.reviews import StoredReview
from tasks.store.store import Artifact, NotMadeError, Store
from tests.support.projects.reviewable import Reviewable, rectangle, without_images

pytest_plugins = ["tests.support.projects.reviewable_project"]


@pytest.fixture
def session(reviewable: Reviewable) -> ReviewSession:
    return ReviewSession(reviewable.index(), StoredReview.open(reviewable.run))


def _decide(session: ReviewSession, verdict: str, row: int, category: int | None = None) -> None:
    identity = session.index.instances.identity[row]
    session.decide(Decision(uuid.uuid4().hex, "Anna", verdict, identity, category))


def _references(reviewable: Reviewable) -> References:
    """The references of the next bank."""
    steps = reviewable.steps
    dataset, source = steps.dataset(), steps.config.references.source
    add_promoted(steps.store, source, dataset)
    _, references = edit_references(steps.store, source, dataset, steps.references())
    return steps.store.load(references, References)


def test_a_promoted_instance_is_a_reference_with_the_mask_and_category_that_were_decided(
    reviewable: Reviewable, session: ReviewSession
) -> None:
    before = _references(reviewable)
    _decide(session, "category", 4, category=8)
    _decide(session, "reference", 4)
    after = _references(reviewable)
    (added,) = (
        after[row : row + 1] for row in range(len(after)) if after.annotation_id[row] not in before.annotation_id
    )
    assert (added.category_id[0], added.mask_rle[0]) == (8, rectangle(100, 4, 20, 14))
    assert added.box_xyxy[0].tolist() == [100, 4, 120, 18]
    stored = Path(reviewable.steps.store.uri) / str(added.file_name[0]).removeprefix("store:")
    target = Path(reviewable.steps.config.targets.images) / "t0.png"
    assert stored.read_bytes() == target.read_bytes()
    assert _references(reviewable).equals(after)


def test_the_next_bank_is_made_of_it(reviewable: Reviewable, session: ReviewSession) -> None:
    config, store = reviewable.steps.config, reviewable.steps.store
    before = make_prototypes(config, store)
    _decide(session, "reference", 0)
    with pytest.raises(NotMadeError, match="1 instance to add"):
        make_prototypes(config, Store(config.store, find_only=True))
    after = make_prototypes(config, store)
    assert after.name != before.name
    numbers = [len(store.load(references_of(store, prototypes), References)) for prototypes in (before, after)]
    assert numbers[1] == numbers[0] + 1
    assert make_prototypes(config, Store(config.store, find_only=True)) == after


@pytest.mark.slow  # with the others here
def test_the_image_of_a_promoted_instance_is_named_and_left_out_of_an_evaluation(
    reviewable: Reviewable, session: ReviewSession
) -> None:
    config, store, images = reviewable.steps.config, reviewable.steps.store, reviewable.images()
    before, dataset = make_prototypes(config, store), reviewable.run.requested()
    _decide(session, "reference", 0)
    after = make_prototypes(config, store)
    assert dataset is not None
    assert [shared_image_ids(store, one, dataset, images) for one in (before, after)] == [[], [images.image_id[0]]]
    told: list[str] = []
    report_leakage(config, told.append, reviewable.steps.dataset(), dataset)
    assert f"1 of 5 targets are images of references, too ({images.image_id[0]})" in told[0]
    counts = []
    for prototypes, are_excluded in ((before, True), (after, False), (after, True)):
        plan = replace(reviewable.steps.plan(before), dataset=dataset, key=reviewable.run.key)
        settings = EvaluationSettings(exclude_references=are_excluded)
        metrics = reviewable.steps.evaluate(prototypes, plan, settings=settings)
        counts.append(int(store.load(metrics, Metrics).num_instances.max()))
    assert counts == [10, 10, 8]
    for picture in (Path(store.uri) / "added_references").iterdir():
        picture.unlink()  # as where the picture was saved anew, upright
    assert added_image_ids(store, after, dataset, images) == [images.image_id[0]]
    changed = images.replace(version=np.full(len(images), "changed", dtype=object))
    assert added_image_ids(store, after, dataset, changed) == []


def _vectors(store: Store, prototypes: Artifact) -> tuple[Prototypes, NegativePrototypes]:
    return store.load(prototypes, Prototypes), store.load(prototypes, NegativePrototypes)


@pytest.mark.slow  # with the others here
def test_each_negative_is_a_vector_that_nothing_is_labeled_with(reviewable: Reviewable, session: ReviewSession) -> None:
    config, store = reviewable.steps.config, reviewable.steps.store
    plain = store.load(make_prototypes(config, store), Prototypes)
    for row in (4, 5, 6):
        _decide(session, "negative", row)
    made = make_prototypes(config, store)
    categories, negatives = _vectors(store, made)
    assert categories.equals(plain), "what is labeled stays as it was"
    known = store.load(reference_dataset(store, made), Categories)
    names = [str(known.name[known.category_id == one][0]) for one in negatives.category_id.tolist()]
    assert sorted(names) == ["not bar (review)", "not box (review)", "not box (review)"]
    assert len(np.unique(negatives.prototype, axis=0)) == 3
    named = config.references.model_copy(update={"negatives": ("bar",)})
    categories, negatives = _vectors(store, make_prototypes(config.model_copy(update={"references": named}), store))
    assert (categories.category_id.tolist(), len(negatives)) == ([3], 4)
    for _ in range(3):
        session.undo("Anna")
    assert store.load(make_prototypes(config, store), Prototypes).equals(plain)


@pytest.mark.slow  # with the others here
def test_what_is_taken_back_is_no_reference_any_more(reviewable: Reviewable, session: ReviewSession) -> None:
    before = _references(reviewable)
    _decide(session, "reference", 0)
    assert len(_references(reviewable)) == len(before) + 1
    session.undo("Anna")
    assert np.array_equal(_references(reviewable).annotation_id, before.annotation_id)
    _decide(session, "reference", 0)
    assert len(_references(reviewable)) == len(before) + 1


def test_what_was_dropped_by_hand_stays_dropped(reviewable: Reviewable, session: ReviewSession) -> None:
    _decide(session, "reference", 0)
    added = set(_references(reviewable).annotation_id) - set(
        reviewable.steps.store.load(reviewable.steps.references(), References).annotation_id
    )
    ReferenceEdits(reviewable.steps.store, reviewable.steps.config.references.source).drop(added.pop())
    assert len(_references(reviewable)) == len(reviewable.steps.store.load(reviewable.steps.references(), References))


def test_an_instance_of_an_image_that_is_gone_is_left_out_with_a_warning(
    reviewable: Reviewable, session: ReviewSession, caplog: pytest.LogCaptureFixture
) -> None:
    before = _references(reviewable)
    _decide(session, "reference", 0)
    with without_images(reviewable):
        assert _references(reviewable).equals(before)
    assert "was promoted to a reference, but: " in caplog.text
