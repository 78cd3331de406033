"""Thresholds are where F1 is best or a precision is reached, and say how sure they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.analysis.operating_points import Evidence, propose

_LABELS = st.lists(st.tuples(st.integers(1, 19), st.booleans(), st.integers(0, 5)), min_size=1, max_size=25)


def _evidence(labels: list[tuple[int, bool, int]], missed: int = 0) -> Evidence:
    """Labels by their scores in twentieths, whether they are right and their image; instances they find, and others."""
    score, right, image = (np.array(column) for column in zip(*labels, strict=True))
    found = image[right.astype(bool)]
    instances = np.concatenate([found, np.zeros(missed, dtype=np.int64)])
    return Evidence(
        score / 20,
        right.astype(np.float64),
        np.ones(len(score)),
        image.astype(np.int64),
        np.ones(len(instances)),
        instances,
    )


def _f1(evidence: Evidence, thresh: float) -> float:
    kept = evidence.score >= thresh
    return float(2 * evidence.is_right[kept].sum() / max(1, kept.sum() + len(evidence.instance_unit)))


@settings(max_examples=60)
@given(labels=_LABELS, missed=st.integers(0, 5))
def test_no_score_has_a_better_f1_than_the_proposed_one(labels: list[tuple[int, bool, int]], missed: int) -> None:
    evidence = _evidence(labels, missed)
    proposal = propose(evidence, evidence)
    assert proposal is not None
    best = max(_f1(evidence, score) for score in [*evidence.score, 1.0])
    assert _f1(evidence, proposal.thresh) == pytest.approx(best)
    assert (proposal.f1 or 0.0) == pytest.approx(best)
    assert proposal.low <= proposal.thresh <= proposal.high
    assert proposal.low < proposal.high, "few labels leave some room always"


@settings(max_examples=60)
@given(labels=_LABELS, wanted=st.sampled_from([0.5, 0.8, 1.0]))
@pytest.mark.slow
def test_the_lowest_score_that_reaches_a_precision_is_proposed(
    labels: list[tuple[int, bool, int]], wanted: float
) -> None:
    evidence = _evidence(labels)
    proposal = propose(evidence, evidence, wanted_precision=wanted)
    assert proposal is not None

    def precision(thresh: float) -> float:
        kept = evidence.score >= thresh
        return float(evidence.is_right[kept].mean()) if kept.any() else 1.0

    reaching = [score for score in evidence.score if precision(score) >= wanted]
    assert precision(proposal.thresh) >= wanted
    assert proposal.thresh <= min(reaching, default=1.0)


def test_a_threshold_lies_halfway_between_scores_and_is_short() -> None:
    evidence = _evidence([(16, True, 0), (14, True, 1), (6, False, 2), (4, False, 0)])
    proposal = propose(evidence, evidence)
    assert proposal is not None
    assert 0.3 < proposal.thresh <= 0.7
    assert proposal.thresh == round(proposal.thresh, 2)
    assert (proposal.precision, proposal.recall, proposal.f1) == (1, 1, 1)


def test_a_category_with_one_instance_is_held_near_the_others() -> None:
    rare = _evidence([(2, True, 0), (1, False, 1)])
    common = _evidence([(12, True, image) for image in range(6)] + [(8, False, image) for image in range(6)] * 9)
    alone, among = propose(rare, rare), propose(rare, Evidence.together([rare, common]))
    assert alone is not None
    assert among is not None
    assert alone.thresh <= 0.1
    assert among.thresh > 0.4


def test_few_images_make_a_wide_interval() -> None:
    rows = [(score, score > 8 + image % 7, image) for image in range(40) for score in range(2, 19)]
    few = _evidence([row for row in rows if row[2] < 4])
    many = _evidence([(score, right, image % 40) for score, right, image in rows])
    spreads = []
    for evidence in (few, many):
        proposal = propose(evidence, evidence)
        assert proposal is not None
        spreads.append(proposal.high - proposal.low)
    assert spreads[1] < spreads[0]


@pytest.mark.parametrize(("num_images", "least"), [(2, 0.75), (10, 0.85)])
@pytest.mark.slow
def test_an_interval_of_few_images_mostly_holds_the_threshold_of_all(num_images: int, least: float) -> None:
    """Right labels have scores around 0.6, wrong ones around 0.35; with thousands of images the best is 0.49."""

    def drawn(seed: int) -> Evidence:
        generator = np.random.default_rng(seed)
        right = [(0.6, True, image) for image in range(num_images) for _ in range(generator.poisson(0.7))]
        wrong = [(0.35, False, image) for image in range(num_images) for _ in range(generator.poisson(2))]
        labels = [(round(20 * generator.normal(score, 0.12)), *rest) for score, *rest in [*right, *wrong]]
        return _evidence(labels or [(10, True, 0)], missed=num_images // 3)

    evidence = [drawn(seed) for seed in range(60)]
    proposals = [propose(own, Evidence.together([own, *evidence[:4]])) for own in evidence]
    held = [proposal.low <= 0.49 <= proposal.high for proposal in proposals if proposal is not None]
    assert np.mean(held) >= least


def test_a_category_without_a_right_label_may_have_any_threshold() -> None:
    wrong, right = _evidence([(8, False, 0), (4, False, 1)]), _evidence([(12, True, 0)])
    proposal = propose(wrong, Evidence.together([wrong, right]))
    assert proposal is not None
    assert (proposal.low, proposal.high) == (0, 1)


def test_without_a_judged_label_nothing_is_proposed() -> None:
    nothing = Evidence.together([])
    assert propose(nothing, nothing) is None


def test_judged_labels_stand_for_those_of_a_like_score() -> None:
    all_scores = np.concatenate([np.full(100, 0.2), np.full(10, 0.8)])
    score = np.array([0.2] * 5 + [0.8] * 5)
    right = np.array([1.0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    evidence = Evidence.of_sample(score, right, all_scores, num_missed=3)
    assert evidence.weight.tolist() == [20] * 5 + [2] * 5
    assert evidence.instance_weight.sum() == 20 + 10 + 3
    assert evidence.sorted().counts().precision.tolist() == pytest.approx([1.0, 30 / 110])


def test_judged_labels_that_are_no_labels_any_more_stand_for_themselves() -> None:
    evidence = Evidence.of_sample(np.array([0.4, 0.6]), np.array([1.0, 0.0]), np.zeros(0), num_missed=0)
    assert evidence.weight.tolist() == [1, 1]
