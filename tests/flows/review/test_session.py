"""Decisions are kept at once, change what was decided before, and can be taken back, by several people at once."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.review.session import Decision, ReviewSession
from refseg_core.analysis.decisions import standing
from refseg_core.errors import ConfigurationError, ConflictError
from refseg_core.masks.rle import union_of
from tasks.store.reviews import StoredReview, read_reviewed
from tests.refseg_core.analysis.drawn_decisions import square
from tests.support.projects.reviewable import FOUND, Reviewable, rectangle

pytest_plugins = ["tests.support.projects.reviewable_project"]

_WRITERS, _EACH = 4, 5


@pytest.fixture
def session(reviewable: Reviewable) -> ReviewSession:
    return _session(reviewable)


def _session(reviewable: Reviewable) -> ReviewSession:
    """A session as another process would begin it."""
    return ReviewSession(reviewable.index(), StoredReview.open(reviewable.run))


def _decide(
    session: ReviewSession, verdict: str, row: int | None = None, *, by: str = "Anna", **given: Any
) -> list[str]:
    instance = None if row is None else session.index.instances.identity[row]
    return session.decide(Decision(uuid.uuid4().hex, by, verdict, instance, **given))


def _labels(reviewable: Reviewable) -> list[tuple[str, int, float]]:
    """(image, category, score) of the first image's labels after what was decided."""
    ((found, _), *_) = read_reviewed(reviewable.run, reviewable.images())
    first = found[found.image_id == found.image_id[0]]
    return list(zip(first.image_id, first.category_id.tolist(), first.score.round(2).tolist(), strict=True))


def _scores(reviewable: Reviewable) -> list[float]:
    return [round(score, 2) for _, _, score in _labels(reviewable)]


_ALL = sorted((score for _, score, _ in FOUND), reverse=True)


def test_every_verdict_changes_labels_at_once_and_is_there_for_a_session_begun_later(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    assert _scores(reviewable) == _ALL
    _decide(session, "accept", 0)
    _decide(session, "reject", 2)
    _decide(session, "category", 3, category=3)
    _decide(session, "part", 4)
    assert _scores(reviewable) == [1.0, 1.0, 0.72, 0.35, 0.05]
    later = _session(reviewable)
    assert later.verdicts() == session.verdicts() == {"accept": 1, "reject": 1, "category": 1, "part": 1}
    assert later.is_decided.tolist() == session.is_decided.tolist()
    assert np.flatnonzero(later.is_decided).tolist() == [0, 2, 3, 4]
    assert later.by_reviewer == {"Anna": 4}


def test_merging_gives_the_whole_all_pixels_also_of_a_third_and_undoing_takes_them_back(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    whole, part, third = (session.index.instances.identity[row] for row in (1, 3, 4))
    masks = [session.mask_of(one) for one in (whole, part, third)]
    _decide(session, "merge", 3, into=whole)
    _decide(session, "merge", 4, into=whole)
    assert session.mask_of(whole) == union_of(masks)
    assert _scores(reviewable) == [1.0, 0.81, 0.55, 0.35, 0.05]
    assert set(session.undo("Anna")) == {whole, third}
    assert session.mask_of(whole) == union_of(masks[:2])
    session.undo("Anna")
    assert session.mask_of(whole) == masks[0]
    assert (_scores(reviewable), session.verdicts()) == (_ALL, {})


def test_a_corrected_mask_stays_when_the_instance_is_accepted_or_gets_another_category(session: ReviewSession) -> None:
    whole = session.index.instances.identity[1]
    _decide(session, "merge", 3, into=whole)
    merged = session.mask_of(whole)
    _decide(session, "accept", 1)
    assert session.mask_of(whole) == merged
    _decide(session, "category", 1, category=3)
    decided = session.decision_on(whole, "label")
    assert decided is not None
    assert (session.mask_of(whole), decided.category_id[0]) == (merged, 3)


def test_an_object_is_added_changed_and_removed_again(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    mask = rectangle(100, 70, 20, 20)
    (added,) = _decide(session, "add", image=0, mask=(mask, 0.7), category=3)
    assert _labels(reviewable)[0] == (session.index.images[0].image_id, 3, 1.0)
    assert session.added[0] == [added]
    later = _session(reviewable)
    assert (later.added[0], later.mask_of(added)) == ([added], mask)
    changed = Decision(uuid.uuid4().hex, "Bob", "category", added, category=8)
    later.decide(changed)
    assert _labels(reviewable)[0][1:] == (8, 1.0)
    later.decide(Decision(uuid.uuid4().hex, "Bob", "reject", added))
    assert _scores(reviewable) == _ALL
    later.undo("Bob")
    assert _labels(reviewable)[0][1:] == (8, 1.0)


def test_an_instance_may_be_rejected_and_yet_be_an_example_of_what_its_category_is_not(session: ReviewSession) -> None:
    identity = session.index.instances.identity[4]
    _decide(session, "reject", 4)
    _decide(session, "negative", 4)
    assert session.verdicts() == {"reject": 1, "negative": 1}
    session.undo("Anna")
    assert (session.decision_on(identity, "bank"), session.verdicts()) == (None, {"reject": 1})


def test_an_example_of_what_its_category_is_not_is_rejected_and_what_is_right_is_no_such_example(
    reviewable: Reviewable,
) -> None:
    session = _session(reviewable)
    assert _decide(session, "accept", 0) != []
    _decide(session, "negative", 0)
    _decide(session, "negative", 1)
    assert _scores(reviewable) == _ALL[2:]
    assert (session.verdicts(), session.is_decided.sum()) == ({"negative": 2, "reject": 2}, 2)
    _decide(session, "accept", 1)
    assert session.verdicts() == {"reject": 1, "negative": 1, "accept": 1}
    session.undo("Anna")
    session.undo("Anna")
    assert (session.verdicts(), session.is_decided.sum()) == ({"reject": 1, "negative": 1}, 1)
    _decide(session, "reference", 0)
    assert (session.verdicts(), session.is_decided.sum()) == ({"reference": 1}, 0)
    session.undo("Anna")
    session.undo("Anna")
    assert (_scores(reviewable)[0], session.verdicts()) == (1.0, {"accept": 1})


def test_a_negative_of_an_earlier_store_is_rejected_too_until_it_is_taken_back(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    _decide(session, "negative", 0)
    stored = StoredReview.open(reviewable.run)
    rows, folder = stored.read(), Path(reviewable.steps.store.uri) / stored.root / "decisions"
    (folder / stored.part_names()[0]).unlink()
    stored.append(rows[rows.verdict == "negative"])  # all that earlier code kept
    later = _session(reviewable)
    assert (np.flatnonzero(later.is_decided).tolist(), _scores(reviewable)) == ([0], _ALL[1:])
    later.undo("Anna")
    assert (later.is_decided.sum(), _scores(reviewable)) == (0, _ALL)


def test_undo_takes_back_what_the_person_did_last_and_nothing_that_others_did_since(session: ReviewSession) -> None:
    _decide(session, "accept", 0)
    _decide(session, "accept", 1)
    _decide(session, "reject", 1, by="Bob")
    session.undo("Anna")
    assert session.verdicts() == {"reject": 1}
    assert session.undo("Anna") == []
    session.undo("Bob")
    assert session.verdicts() == {"accept": 1}
    assert session.undo("Nobody") == []


def test_what_an_undo_brings_back_stands_under_the_name_of_who_decided_it(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    identity = session.index.instances.identity[0]
    _decide(session, "accept", 0)
    _decide(session, "reject", 0, by="Bob")
    assert session.decided_by(identity) == "Bob"
    session.undo("Bob")
    for one in (session, _session(reviewable)):
        assert (one.verdicts(), one.decided_by(identity)) == ({"accept": 1}, "Anna")
    session.undo("Anna")
    assert session.decided_by(identity) is None


_REJECT, _CATEGORY = {"verdict": "reject", "by": "Bob"}, {"verdict": "category", "category": 3, "by": "Anna"}


@pytest.mark.parametrize("first", [_REJECT, _CATEGORY])
@pytest.mark.parametrize("is_heard", [True, False], ids=["read before", "written blindly"])
def test_undo_in_one_session_leaves_what_was_decided_in_another_before_or_since(
    reviewable: Reviewable, first: dict[str, Any], is_heard: bool
) -> None:
    sessions = {"Bob": _session(reviewable), "Anna": _session(reviewable)}
    with pytest.MonkeyPatch.context() as patch:
        if not is_heard:
            patch.setattr(ReviewSession, "refresh", lambda _: None)
        for one in (first, _CATEGORY if first is _REJECT else _REJECT):
            _decide(sessions[one["by"]], row=1, **one)
        sessions["Bob"].undo("Bob")
    identity = sessions["Bob"].index.instances.identity[1]
    for session in (*sessions.values(), _session(reviewable)):
        session.refresh()
        assert (session.verdicts(), session.decided_by(identity)) == ({"category": 1}, "Anna")
    decided = standing(StoredReview.open(reviewable.run).read())
    assert (decided.verdict.tolist(), decided.reviewer.tolist()) == (["category"], ["Anna"])
    assert sessions["Anna"].undo("Anna") == [identity]


def test_undo_goes_on_in_a_session_begun_later(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    for row in (0, 1, 2):
        _decide(session, "accept", row)
    session.undo("Anna")
    later = _session(reviewable)
    later.undo("Anna")
    assert np.flatnonzero(later.is_decided).tolist() == [0]


def test_a_name_holds_what_can_be_seen(session: ReviewSession) -> None:
    _decide(session, "accept", 0, by=" A\x00nn\x1b[31ma\u202e \n Ö\x85 ")
    assert session.by_reviewer == {"Ann[31ma Ö": 1}
    assert session.undo("Ann[31ma\tÖ\x00") != []


def test_a_decision_that_is_sent_twice_counts_once(session: ReviewSession) -> None:
    decision = Decision("0" * 32, "Anna", "accept", session.index.instances.identity[0])
    assert session.decide(decision) != []
    assert session.decide(decision) == []
    assert session.by_reviewer == {"Anna": 1}


def test_an_id_of_another_decision_is_refused_also_where_another_session_took_it(reviewable: Reviewable) -> None:
    session, other = _session(reviewable), _session(reviewable)
    first, second, *_ = session.index.instances.identity
    category = Decision("0" * 32, "Anna", "category", first, category=3)
    whole = Decision("1" * 32, "Anna", "merge", session.index.instances.identity[3], into=second)
    for sent in (category, whole):
        session.decide(sent)
    session.undo("Anna", "2" * 32)
    for one in (session, other):
        assert (one.decide(category), one.decide(whole), one.undo("Anna", "2" * 32)) == ([], [], [])
        for changed in ({"reviewer": "Bob"}, {"instance": second}, {"verdict": "reject"}, {"category": 8}):
            with pytest.raises(ConflictError, match=f"another decision with the id {'0' * 32}: 'category' of 'Anna'"):
                one.decide(replace(category, **changed))
        with pytest.raises(ConflictError):
            one.decide(replace(category, decision_id="2" * 32))
        for reviewer, known in (("Bob", "2" * 32), ("Anna", "0" * 32)):
            with pytest.raises(ConflictError):
                one.undo(reviewer, known)
        assert one.verdicts() == {"category": 1}


def test_taking_back_that_is_sent_twice_counts_once(session: ReviewSession) -> None:
    for row in (0, 1):
        _decide(session, "accept", row)
    assert session.undo("Anna", "1" * 32) != []
    assert session.undo("Anna", "1" * 32) == []
    assert session.is_decided.sum() == 1


def test_two_sessions_see_what_the_other_decided(reviewable: Reviewable) -> None:
    one, other = _session(reviewable), _session(reviewable)
    _decide(one, "accept", 0)
    _decide(other, "reject", 0, by="Bob")
    _decide(other, "reject", 1, by="Bob")
    version = one.version
    one.refresh()
    identities = one.index.instances.identity
    assert one.changes_since(version) == [identities[0], identities[1]]
    other.refresh()
    for session in (one, other):
        assert session.verdicts() == {"reject": 2}
        assert session.by_reviewer == {"Anna": 1, "Bob": 2}


def test_many_people_at_once_lose_nothing(reviewable: Reviewable) -> None:
    session = _session(reviewable)

    def review(person: int) -> None:
        for number in range(_EACH):
            _decide(session, "accept", person * _EACH + number, by=f"person {person}")

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(review, range(_WRITERS)))
    later = _session(reviewable)
    assert later.by_reviewer == {f"person {person}": _EACH for person in range(_WRITERS)}
    assert later.is_decided.sum() == _WRITERS * _EACH


def test_of_labels_made_later_what_was_decided_stays_so(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    for verdict, row in (("accept", 0), ("reject", 4)):
        _decide(session, verdict, row)
    steps = reviewable.steps
    other = steps.plan(steps.prototypes(), labeling=steps.config.labeling.model_copy(update={"points_per_side": 2}))
    run = type(reviewable.run)(steps.store, other.key)
    for shard in other.pending:
        found, labeled = reviewable.run.read_shard(shard) or (None, None)
        assert found is not None and labeled is not None
        grown = [rectangle(*box) for box in _grown(found.box_xyxy)]
        run.commit(shard, found.replace(mask_rle=np.fromiter(grown, dtype=object, count=len(grown))), labeled)
    later = _session(Reviewable(steps, run))
    assert not set(later.index.instances.identity) & set(session.index.instances.identity)
    # Row 2 is the same mask as 0, of another category: since it was accepted as the one, it is not the other.
    assert np.flatnonzero(later.is_decided).tolist() == [0, 2, 4]


def _grown(boxes: Any) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, width, height), one pixel wider than they were."""
    return [(int(x1), int(y1), int(x2 - x1) + 1, int(y2 - y1)) for x1, y1, x2, y2 in boxes]


def test_the_audit_counts_what_was_drawn_by_chance(session: ReviewSession) -> None:
    audited = [row for row in range(len(session.index)) if session.ranking.is_audit(row)]
    first, second = [row for row in audited if session.index.instances.category[row] == 3][:2]
    _decide(session, "accept", first)
    _decide(session, "reject", second)
    precision = session.precision(3, 0.5)
    assert (precision.num_right, precision.num_decided) == (1, 2)
    session.undo("Anna")
    assert session.precision(3, 0.5).num_decided == 1


@pytest.mark.parametrize(
    ("verdict", "given", "message"),
    [
        ("maybe", {}, "'maybe' is no verdict"),
        ("accept", {"instance": "0" * 16}, "There is no instance"),
        ("accept", {"instance": None}, "needs an instance"),
        ("category", {"category": 99}, "There is no category 99; there are box, bar"),
        ("merge", {}, "needs another instance"),
        ("add", {"category": 3}, "draw a box or click on the object"),
        ("add", {"category": 3, "image": 99, "mask": (rectangle(0, 0, 5, 5), 0.5)}, "needs an image and a mask"),
        ("add", {"category": 3, "image": 0, "mask": (square(0, 0), 0.5)}, "is of 20 x 20 pixels, and the image of 128"),
        ("mask", {"image": 0}, "needs a mask"),
        ("mask", {"image": 1, "mask": (rectangle(0, 0, 5, 5), 0.5)}, "of another image than the instance"),
        ("mask", {"image": 0, "mask": (square(0, 0), 0.5)}, "is of 20 x 20 pixels, and the image of 128 x 96"),
    ],
)
def test_what_says_too_little_is_refused_and_changes_nothing(
    session: ReviewSession, verdict: str, given: dict[str, Any], message: str
) -> None:
    given = {"instance": session.index.instances.identity[0]} | given
    with pytest.raises(ConfigurationError, match=message):
        session.decide(Decision("0" * 32, "Anna", verdict, **given))
    assert session.version == 0


def test_a_stored_mask_that_does_not_fit_its_image_leaves_the_instance_as_it_was(reviewable: Reviewable) -> None:
    session = _session(reviewable)
    _decide(session, "accept", 0)
    (row,) = (stored := StoredReview.open(reviewable.run)).read().mask_rle
    last = stored.read().replace(decision_id=np.array(["2" * 32], dtype=object))
    bad = np.empty(1, dtype=object)
    bad[0] = square(0, 0)
    stored.append(last.replace(new_mask_rle=bad, decided_at=np.array(["2999-01-01T00:00:00.000000Z"], dtype=object)))
    later, identity = _session(reviewable), session.index.instances.identity[0]
    assert (later.mask_of(identity), later.verdicts()) == (row, {"accept": 1})
    assert _scores(reviewable)[0] == 1.0


def test_instances_of_different_images_are_not_merged(session: ReviewSession) -> None:
    with pytest.raises(ConfigurationError, match="Only instances of one image"):
        _decide(session, "merge", 0, into=session.index.instances.identity[8])
