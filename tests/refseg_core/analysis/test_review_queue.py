"""People look first at what tells most, at images in turns, and now and then at something drawn by chance."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.analysis.review_queue import AUDIT, AUDIT_SIZE, Instances, audit_sample, rank, reference_sides

_BOXES = [[0, 0, 10, 10], [50, 0, 60, 10], [0, 50, 10, 60], [50, 50, 60, 60]]


def _instances(*scores: float, **given: Any) -> Instances:
    """Instances of one category, each in an image of its own."""
    number = len(scores)
    known: dict[str, Any] = {
        "identity": [f"instance {row}" for row in range(number)],
        "image": np.arange(number),
        "category": np.zeros(number, dtype=np.int64),
        "score": np.array(scores),
        "thresh": np.full(number, 0.5),
        "box_xyxy": np.tile(np.array([[0.0, 0, 10, 10]]), (number, 1)),
        "area": np.full(number, 100.0),
        "reference_side": np.full((number, 2), 10.0),
        "is_lacking": np.zeros(number, dtype=bool),
    }
    return Instances(**known | given)


def _order(instances: Instances) -> list[int]:
    """The order of what is not drawn by chance."""
    ranking = rank(instances)
    return [row for row in ranking.order.tolist() if not ranking.is_audit(row)]


def _reason(instances: Instances, row: int) -> str:
    return rank(instances).reason_of(row).name


def test_scores_just_below_the_threshold_come_before_those_far_below() -> None:
    instances = _instances(0.1, 0.48, 0.3, 0.42)
    assert _order(instances) == [1, 3, 2, 0]
    assert _reason(instances, 1) == "threshold"


def test_a_rival_of_another_category_with_a_score_alike_is_told() -> None:
    same_place = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10], [80, 0, 90, 10]])
    instances = _instances(
        *(0.3, 0.31, 0.3, 0.3), image=np.zeros(4, dtype=np.int64), category=np.array([0, 1, 0, 0]), box_xyxy=same_place
    )
    assert set(_order(instances)[:2]) == {0, 1}
    assert (_reason(instances, 0), _reason(instances, 1)) == ("rival", "rival")


def test_a_part_of_another_instance_of_its_category_is_told() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 40, 40], [60, 0, 70, 10]])
    instances = _instances(0.3, 0.9, 0.3, image=np.zeros(3, dtype=np.int64), box_xyxy=boxes)
    assert _order(instances)[0] == 0
    assert _reason(instances, 0) == "overlap"


def test_sizes_unlike_the_references_and_what_other_labels_lack_are_told() -> None:
    sized = _instances(0.3, 0.3, area=np.array([1600.0, 100]))
    assert (_order(sized), _reason(sized, 0)) == ([0, 1], "size")
    lacking = _instances(0.3, 0.3, is_lacking=np.array([False, True]))
    assert (_order(lacking), _reason(lacking, 1)) == ([1, 0], "disagreement")


def test_categories_without_references_have_no_odd_sizes() -> None:
    sides = reference_sides(np.array([3, 4]), {3: [100.0, 400.0]})
    assert sides[0].tolist() == [10, 20]
    assert np.isnan(sides[1]).all()
    unknown = _instances(0.3, 0.3, reference_side=np.full((2, 2), np.nan), area=np.array([1.0, 1e6]))
    assert np.array_equal(_order(unknown), [0, 1])


def test_images_take_turns() -> None:
    instances = _instances(0.45, 0.45, 0.45, 0.44, image=np.array([0, 0, 0, 1]), box_xyxy=np.array(_BOXES) * 1.0)
    assert _order(instances) == [0, 3, 1, 2]


def test_the_audit_is_of_labels_only_and_in_between_by_categories_in_turns() -> None:
    number = 4 * AUDIT_SIZE
    scores = [0.45] * number + [0.9] * number
    instances = _instances(*scores, category=np.arange(2 * number) % 2)
    ranking = rank(instances)
    drawn = [row for row in ranking.order.tolist() if ranking.is_audit(row)]
    assert len(drawn) == 2 * AUDIT_SIZE
    assert set(instances.score[drawn]) == {0.9}
    assert ranking.reason_of(drawn[0]) is AUDIT
    places = [place for place, row in enumerate(ranking.order.tolist()) if ranking.is_audit(row)]
    assert places[:3] == [5, 11, 17]
    assert len({int(instances.category[row]) for row in drawn[:2]}) == 2


def test_an_audit_is_the_same_when_there_is_more_to_draw_from_unless_that_is_drawn() -> None:
    scores = [0.9] * (3 * AUDIT_SIZE)
    some, more = _instances(*scores[: 2 * AUDIT_SIZE]), _instances(*scores)
    kept = {row for row in audit_sample(more).tolist() if row < len(some)}
    assert kept <= set(audit_sample(some).tolist())
    assert len(kept) > AUDIT_SIZE / 3


@pytest.mark.parametrize("number", [0, 1])
def test_few_instances_are_no_trouble(number: int) -> None:
    assert len(rank(_instances(*[0.5] * number)).order) == number


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_everything_comes_once(rows: list[tuple[float, int, int]]) -> None:
    rows.sort(key=lambda row: row[1])
    instances = dataclasses.replace(
        _instances(*[score for score, _, _ in rows]),
        image=np.array([image for _, image, _ in rows], dtype=np.int64),
        category=np.array([category for _, _, category in rows], dtype=np.int64),
    )
    assert sorted(rank(instances).order.tolist()) == list(range(len(rows)))
