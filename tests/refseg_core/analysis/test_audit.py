"""What an audit says of the precision of labels."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.analysis.audit import reviewed_scores, wilson_interval
from refseg_core.tables import Decisions
from tests.refseg_core.analysis.drawn_decisions import decision, square


@pytest.mark.parametrize(
    ("num_right", "num", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (47, 50, 0.8378, 0.9794), (1, 2, 0.0945, 0.9055)],
)
def test_the_interval_is_the_published_one(num_right: int, num: int, low: float, high: float) -> None:
    assert wilson_interval(num_right, num) == pytest.approx((low, high), abs=5e-5)


def test_nothing_observed_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0, 1)


@given(st.integers(1, 500).flatmap(lambda num: st.tuples(st.integers(0, num), st.just(num))))
def test_the_interval_solves_its_equation_and_holds_the_share(counts: tuple[int, int]) -> None:
    num_right, num = counts
    low, high = wilson_interval(num_right, num)
    share = num_right / num
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / num), abs=1e-9)


def test_precision_counts_what_was_drawn_by_chance_and_found_at_that_score() -> None:
    masks = [square(left, 0) for left in range(6)]
    decisions = Decisions.concatenate(
        [
            decision("accept", masks[0], score=0.9, is_audit=True),
            decision("reject", masks[1], score=0.6, is_audit=True),
            decision("category", masks[2], score=0.7, is_audit=True, found_category_id=1, category_id=2),
            decision("accept", masks[3], score=0.3, is_audit=True),
            decision("accept", masks[4], score=0.8),
            decision("add", masks[5], score=None, found_category_id=None),
        ]
    )
    scores = reviewed_scores(decisions)
    assert scores.is_right.tolist() == [True, False, False, True, True]
    precision = scores.precision(1, 0.5)
    assert (precision.num_right, precision.num_decided) == (1, 3)
    assert precision.describe("boat") == "boat: 0.33, 0.06 to 0.79, at 0.50, of 3"
    assert scores.precision(2, 0.5).describe("bird") == "bird: nothing audited yet at 0.50"
