"""Variants side by side: what a difference is, and that its interval is that of the same images drawn for both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.evaluation.bootstrap import drawn_ap, paired_interval
from refseg_core.evaluation.coco import compare_coco
from refseg_core.evaluation.comparison import Scores, compare_scores, score
from refseg_core.tables import Detections, VariantNumbers
from tests.support.oracles.evaluation_cases import a_synthetic_case, coco_metrics, dataset_of

_SEEDS = (33, 42)


def _scores(seed: int, *, shares: dict[str, float]) -> dict[str, list[Scores]]:
    """Of each variant the scores of the first share of a case's detections, for two cases' worth of references."""
    document, detections = a_synthetic_case(seed, num_images=8)
    truth = dataset_of(document)
    order = np.random.default_rng(seed).permutation(len(detections))
    return {
        name: [score(truth, detections[np.sort(order[: int(share * len(order)) - number])]) for number in range(2)]
        for name, share in shares.items()
    }


def _row(
    numbers: VariantNumbers, variant: str, metric: str, seed: int | None = None, kind: str = "segm"
) -> VariantNumbers:
    is_asked = [one == seed for one in numbers.seed]
    (row,) = np.flatnonzero(
        (numbers.variant == variant) & (numbers.metric == metric) & (numbers.iou_type == kind) & is_asked
    )
    return numbers[row : row + 1]


@given(seed=st.integers(0, 1000))
@settings(max_examples=8)
@pytest.mark.slow
def test_variants_that_are_alike_differ_by_nothing(seed: int) -> None:
    scores = _scores(seed, shares={"first": 0.8})
    numbers = compare_scores({"first": scores["first"], "again": scores["first"]}, _SEEDS)
    again = _row(numbers, "again", "AP")
    assert (again.difference[0], again.low[0], again.high[0]) == (0, 0, 0)
    assert {value for value in numbers.difference if value is not None} == {0}


@given(
    base=st.lists(st.lists(st.floats(0, 0.5), min_size=30, max_size=30), min_size=1, max_size=3),
    gain=st.floats(0.01, 0.4),
)
@settings(max_examples=30)
def test_a_variant_that_is_better_on_every_drawn_set_has_an_interval_above_nothing(
    base: list[list[float]], gain: float
) -> None:
    first_SB = np.array(base)
    low, high = paired_interval(first_SB, first_SB + gain)
    assert low == pytest.approx(gain)
    assert high == pytest.approx(gain)


def test_a_variant_that_is_better_on_all_images_has_an_interval_above_nothing() -> None:
    """Half of the first variant's instances lie elsewhere, in every image."""
    document, _ = a_synthetic_case(3, num_images=10)
    truth = dataset_of(document)
    table = truth.annotations[~truth.annotations.is_crowd]
    corners = table.box_xywh.copy()
    corners[:, 2:] += corners[:, :2]
    right = Detections(
        image_id=table.image_id,
        category_id=table.category_id,
        score=np.linspace(0.9, 0.1, len(table)).astype(np.float32),
        predicted_iou=np.ones(len(table), dtype=np.float32),
        box_xyxy=corners,
        mask_rle=table.mask_rle,
    )
    is_kept = np.ones(len(right), dtype=bool)
    for image_id in set(right.image_id):
        rows = np.flatnonzero(right.image_id == image_id)
        is_kept[rows[: max(1, len(rows) // 2)]] = False
    numbers = compare_scores({"half": [score(truth, right[is_kept])], "all": [score(truth, right)]}, [33])
    better = _row(numbers, "all", "AP")
    assert better.value[0] == pytest.approx(1)
    assert 0 < better.low[0] < better.difference[0] < better.high[0]


def test_unknown_sets_are_left_out_and_without_any_there_is_no_interval() -> None:
    first, other = np.array([[0.1, -1.0, 0.3]]), np.array([[0.2, -1.0, 0.4]])
    assert paired_interval(first, other) == pytest.approx((0.1, 0.1))
    assert paired_interval(first[:, 1:2], other[:, 1:2]) == (-1, -1)


def test_sets_are_the_same_for_all_detections_and_their_means_lie_about_the_difference() -> None:
    document, detections = a_synthetic_case(5)
    truth = dataset_of(document)
    num_images = len(truth.images)
    one, other = (compare_coco(truth, detections[::step]).matches["segm"] for step in (1, 2))
    drawn, again = drawn_ap(one, num_images), drawn_ap(one, num_images)
    np.testing.assert_array_equal(drawn, again)
    low, high = paired_interval(drawn[None], drawn_ap(other, num_images)[None])
    assert low < high < 0


@pytest.mark.slow
def test_numbers_are_those_of_each_seed_their_means_and_the_differences_of_these() -> None:
    document, detections = a_synthetic_case(2)
    truth = dataset_of(document)
    labels = {"first": [detections[::3], detections[::2]], "other": [detections, detections[1:]]}
    scores = {name: [score(truth, each) for each in own] for name, own in labels.items()}
    numbers = compare_scores(scores, _SEEDS)
    for kind in ("bbox", "segm"):
        for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            values = {
                name: [coco_metrics(truth, each).overall(metric)[kind] for each in own] for name, own in labels.items()
            }
            for index, seed in enumerate(_SEEDS):
                own = _row(numbers, "other", metric, seed, kind)
                assert own.value[0] == values["other"][index]
                assert own.difference[0] == values["other"][index] - values["first"][index]
                assert own.low[0] is None
            mean = _row(numbers, "other", metric, None, kind)
            assert mean.value[0] == pytest.approx(np.mean(values["other"]))
            assert mean.difference[0] == pytest.approx(np.mean(values["other"]) - np.mean(values["first"]))
            assert (mean.low[0] is not None) == (metric == "AP")


def test_what_nothing_defines_differs_by_nothing_that_could_be_said() -> None:
    document, detections = a_synthetic_case(0)
    for annotation in document["annotations"]:
        annotation["area"] = 100.0  # small
    one = score(dataset_of(document), detections)
    numbers = compare_scores({"first": [one], "again": [one]}, [33])
    large = _row(numbers, "again", "APl")
    assert (large.value[0], large.difference[0]) == (-1, None)
