"""What people decide is what labels say afterwards, in these labels and in those that are made later."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.analysis.decisions import (
    UNDO,
    VERDICTS,
    DecidedInstances,
    in_categories,
    instance_ids,
    label_decisions,
    of_aspect,
    standing,
)
from refseg_core.masks.rle import Rle, encode_masks
from refseg_core.tables import Categories, Decisions, Detections
from tests.refseg_core.analysis.drawn_decisions import CATEGORIES, decision, detections, labeled_images, square

_ONE, _OTHER = square(0, 0), square(10, 10)
_FOUND = detections(("a.png", 1, 0.6, _ONE), ("a.png", 1, 0.4, _OTHER), ("b.png", 1, 0.7, _ONE))
_IMAGES = labeled_images("a.png", "b.png")


def _after(*decisions: Decisions, found: Detections = _FOUND) -> list[tuple[str, int, float, Rle]]:
    """(image, category, score, mask) of the labels after decisions."""
    labels = DecidedInstances(Decisions.concatenate(decisions)).apply(found, _IMAGES)
    columns = (labels.image_id, labels.category_id.tolist(), labels.score.round(2).tolist(), labels.mask_rle)
    return [(image, category, round(score, 2), mask) for image, category, score, mask in zip(*columns, strict=True)]


_REST = [("a.png", 1, 0.4, _OTHER), ("b.png", 1, 0.7, _ONE)]


def test_labels_without_decisions_stay_as_they_are() -> None:
    assert DecidedInstances(Decisions.empty()).apply(_FOUND, _IMAGES) is _FOUND


def test_what_is_accepted_is_certain_and_comes_first() -> None:
    assert _after(decision("accept", _OTHER)) == [
        ("a.png", 1, 1.0, _OTHER),
        ("a.png", 1, 0.6, _ONE),
        ("b.png", 1, 0.7, _ONE),
    ]


@pytest.mark.parametrize("verdict", ["reject", "part", "merge"])
def test_what_is_rejected_is_gone_in_its_image_only(verdict: str) -> None:
    assert _after(decision(verdict, _ONE)) == _REST


def test_of_a_label_that_is_there_twice_the_best_counts_and_a_decision_speaks_of_both() -> None:
    twice = Detections.concatenate([detections(("a.png", 1, 0.2, _ONE), ("a.png", 2, 0.9, _ONE)), _FOUND])
    assert twice.unrepeated().tolist() == [1, 2, 3, 4]
    rejected = _after(decision("reject", _ONE), found=twice)
    assert rejected == sorted([*_REST, ("a.png", 2, 0.9, _ONE)], key=rejected.index)
    assert _after(decision("accept", _ONE), found=twice).count(("a.png", 1, 1.0, _ONE)) == 1
    assert DecidedInstances(decision("reject", _ONE)).num_removed(twice, _IMAGES) == 2


def test_what_people_removed_is_counted_and_what_they_corrected_is_not() -> None:
    rows = Decisions.concatenate([decision("reject", _ONE), decision("mask", _OTHER, new_mask_rle=square(9, 9, 9))])
    assert DecidedInstances(rows).num_removed(_FOUND, _IMAGES) == 1
    elsewhere = Decisions.concatenate([decision("part", _ONE, image_id="b.png"), decision("merge", _ONE)])
    assert DecidedInstances(elsewhere).num_removed(_FOUND, _IMAGES) == 2
    assert DecidedInstances(rows).num_removed(_FOUND[2:], _IMAGES) == 0


def test_another_category_or_mask_takes_the_place_of_what_was_found() -> None:
    assert _after(decision("category", _ONE, found_category_id=1, category_id=2)) == [("a.png", 2, 1.0, _ONE), *_REST]
    larger = square(0, 0, 14)
    assert _after(decision("mask", _ONE, new_mask_rle=larger)) == [("a.png", 1, 1.0, larger), *_REST]


def test_a_box_follows_the_mask() -> None:
    corrected = Decisions.concatenate([decision("mask", _ONE, new_mask_rle=square(3, 5, 7))])
    assert DecidedInstances(corrected).apply(_FOUND, _IMAGES).box_xyxy[0].tolist() == [3, 5, 10, 12]


def test_a_missed_object_is_added_also_where_nothing_was_found() -> None:
    missed = decision("add", _ONE, image_id="b.png", found_category_id=None, score=None, category_id=2)
    assert _after(missed, found=_FOUND[:2]) == [
        ("a.png", 1, 0.6, _ONE),
        ("a.png", 1, 0.4, _OTHER),
        ("b.png", 2, 1.0, _ONE),
    ]


def test_the_last_decision_counts_whatever_the_order_of_rows_and_how_often_they_are_there() -> None:
    first, last = decision("reject", _ONE), decision("accept", _ONE)
    assert _after(last, first, first) == [("a.png", 1, 1.0, _ONE), *_REST]


def test_what_is_undone_is_as_it_was() -> None:
    assert _after(decision("reject", _ONE), decision("undecided", _ONE)) == [("a.png", 1, 0.6, _ONE), *_REST]


def test_an_undo_takes_back_its_own_reviewers_row_and_what_it_brings_back_counts_since_then() -> None:
    by_bob = {"reviewer": "Bob"}
    first, last = decision("accept", _ONE), decision("reject", _ONE, **by_bob)
    undo = decision("undecided", _ONE, source=UNDO, **by_bob)
    brought_back = standing(Decisions.concatenate([undo, first, last, undo]))
    assert brought_back.equals(first.replace(decision_id=undo.decision_id))
    last, first = decision("reject", _ONE, **by_bob), decision("accept", _ONE)
    undo = decision("undecided", _ONE, source=UNDO, **by_bob)
    assert standing(Decisions.concatenate([last, first, undo])).equals(first)


def test_use_in_the_bank_and_the_label_are_decided_apart() -> None:
    decisions = Decisions.concatenate([decision("reject", _ONE), decision("negative", _ONE)])
    assert of_aspect(standing(decisions), "bank").verdict.tolist() == ["negative"]
    assert _after(decisions) == _REST
    undone = Decisions.concatenate([decisions, decision("unused", _ONE)])
    assert standing(undone).verdict.tolist() == ["reject"]


def test_a_negative_is_rejected_unless_its_label_was_decided_on_since() -> None:
    accepted, negative, renamed = (
        decision("accept", _ONE),
        decision("negative", _ONE),
        decision("category", _ONE, category_id=2),
    )
    assert _after(accepted, negative) == _REST
    assert _after(negative, decision("unused", _ONE)) == _after()
    assert _after(negative, renamed) == [("a.png", 2, 1.0, _ONE), *_REST]
    assert label_decisions(Decisions.concatenate([accepted, negative])).verdict.tolist() == ["reject"]


def test_an_image_that_has_changed_or_has_another_size_is_not_decided_on() -> None:
    rejected = DecidedInstances(decision("reject", _ONE))
    found = _FOUND[:2]
    assert len(rejected.apply(found, labeled_images("a.png", version="2"))) == 2
    assert len(rejected.apply(found, labeled_images("a.png", side=21))) == 2
    assert len(rejected.apply(found, labeled_images("a.png", version=""))) == 1


def test_a_mask_of_another_image_s_size_counts_for_nothing_and_what_was_decided_before_stands() -> None:
    misfit = decision("mask", _ONE, new_mask_rle=encode_masks(np.ones((1, 30, 40), dtype=bool))[0])
    assert _after(misfit) == [("a.png", 1, 0.6, _ONE), *_REST]
    assert _after(decision("reject", _ONE), misfit) == _REST


# --- labels made later ----------------------------------------------------------------------------------------------

_SHIFTED, _SMALLER, _HALF = square(0, 0, 11), square(0, 0, 8), square(0, 0, 6)


def test_of_labels_made_later_the_same_object_is_decided_on() -> None:
    found = detections(("a.png", 1, 0.55, _SHIFTED), ("a.png", 2, 0.5, _SHIFTED), ("a.png", 2, 0.3, _OTHER))
    others = [("a.png", 2, 0.3, _OTHER)]
    assert _after(decision("accept", _ONE), found=found) == [("a.png", 1, 1.0, _ONE), *others]
    assert _after(decision("reject", _ONE), found=found) == [("a.png", 2, 0.5, _SHIFTED), *others]


def test_a_better_mask_than_a_rejected_one_is_not_rejected_with_it() -> None:
    found = detections(("a.png", 1, 0.55, _SMALLER))
    assert _after(decision("reject", _ONE), found=found) == [("a.png", 1, 0.55, _SMALLER)]
    assert _after(decision("accept", _ONE), found=found) == [("a.png", 1, 1.0, _ONE)]


def test_another_object_in_an_accepted_one_stays() -> None:
    found = detections(("a.png", 1, 0.55, _HALF), ("a.png", 2, 0.5, _SMALLER))
    kept = [("a.png", 1, 0.55, _HALF), ("a.png", 2, 0.5, _SMALLER)]
    assert _after(decision("accept", _ONE), found=found) == [("a.png", 1, 1.0, _ONE), *kept]


def test_a_corrected_instance_is_known_by_its_new_category_and_its_new_mask_too() -> None:
    moved = decision("mask", _ONE, new_mask_rle=_OTHER)
    assert _after(moved, found=detections(("a.png", 1, 0.5, _OTHER))) == [("a.png", 1, 1.0, _OTHER)]
    renamed = decision("category", _ONE, found_category_id=1, category_id=2)
    assert _after(renamed, found=detections(("a.png", 2, 0.5, _SMALLER))) == [("a.png", 2, 1.0, _ONE)]


def test_of_the_very_instance_that_was_shown_only_it_is_decided_on() -> None:
    found = detections(("a.png", 1, 0.6, _ONE), ("a.png", 2, 0.5, _ONE), ("a.png", 1, 0.4, _SHIFTED))
    assert _after(decision("accept", _ONE), found=found) == [
        ("a.png", 1, 1.0, _ONE),
        ("a.png", 2, 0.5, _ONE),
        ("a.png", 1, 0.4, _SHIFTED),
    ]


def _categories(**ids: int) -> Categories:
    return Categories(
        category_id=np.array(list(ids.values())),
        class_index=np.arange(len(ids)),
        name=np.array(list(ids), dtype=object),
        frequency=np.full(len(ids), None),
    )


def test_categories_are_known_by_name_and_those_of_others_are_left_out() -> None:
    decisions = Decisions.concatenate(
        [decision("accept", _ONE), decision("accept", _OTHER, found_category_id=1, category_id=2)]
    )
    numbered = in_categories(decisions, _categories(boat=7))
    assert (numbered.category_id.tolist(), numbered.found_category_id.tolist()) == ([7], [7])
    both = in_categories(decisions, _categories(bird=5, boat=7))
    assert (both.category_id.tolist(), both.found_category_id.tolist()) == ([7, 5], [7, 7])


# --- properties -----------------------------------------------------------------------------------------------------

_Instance = tuple[str, int, Rle]
_verdicts = st.sampled_from([name for name, verdict in VERDICTS.items() if verdict.aspect == "label"])
_squares = st.builds(square, st.integers(0, 9), st.integers(0, 9), st.integers(3, 11))
_instances = st.tuples(st.sampled_from(["a.png", "b.png"]), st.sampled_from(list(CATEGORIES)), _squares)


@given(st.lists(_instances, max_size=6), st.lists(st.tuples(_verdicts, _instances), max_size=6), st.randoms())
@pytest.mark.slow
def test_every_standing_yes_is_there_once_with_the_order_of_rows_never_mattering(
    found: list[_Instance], decided: list[tuple[str, _Instance]], random: Random
) -> None:
    labels = detections(*((image, category, 0.5, mask) for image, category, mask in sorted(found)))
    rows = [decision(verdict, mask, image_id=image, category=category) for verdict, (image, category, mask) in decided]
    decisions = Decisions.concatenate(rows)
    random.shuffle(rows)
    after = DecidedInstances(decisions).apply(labels, _IMAGES)
    assert DecidedInstances(Decisions.concatenate(rows)).apply(labels, _IMAGES).equals(after)
    stood = standing(decisions)
    expected = [one for one, verdict in zip(stood.instance_id, stood.verdict, strict=True) if VERDICTS[verdict][1]]
    certain = after[after.score == 1]
    assert sorted(instance_ids(certain)) == sorted(expected)
    assert set(instance_ids(after[after.score < 1])) <= set(instance_ids(labels)) - set(stood.instance_id)
