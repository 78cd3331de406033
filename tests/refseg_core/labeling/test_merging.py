"""Duplicates go, overlapping masks lose score: against the slow oracle, and by the properties the method promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE
from refseg_core.labeling.merging import Merged, merge_softly, non_maximum_suppression, upsample
from tests.support.closeness import assert_close
from tests.support.oracles import original

_SIDE = 12


def _masks(*boxes: tuple[int, int, int, int], side: int = _SIDE) -> Tensor:
    """Filled boxes (x_min, y_min, x_max, y_max), all inclusive."""
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x_min, y_min, x_max, y_max) in zip(masks, boxes, strict=True):
        mask[y_min : y_max + 1, x_min : x_max + 1] = True
    return masks


def _suppress(boxes: Tensor, predicted_iou: list[float], classes: list[int], thresh: float = 0.5) -> list[int]:
    kept = non_maximum_suppression(boxes, torch.tensor(predicted_iou), torch.tensor(classes), box_nms_thresh=thresh)
    return kept.tolist()


def _merge(
    masks: Tensor,
    classes: list[int],
    descriptors: Tensor | None = None,
    similarity: list[float] | None = None,
    *,
    size: tuple[int, int] = (_SIDE, _SIDE),
    max_detections: int = 100,
) -> Merged:
    return merge_softly(
        upsample(masks.float() * 2 - 1, size, UPSAMPLED_AT_ONCE),
        torch.tensor(similarity or [0.5] * len(masks)),
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor([[1.0, 0.0]]).repeat(len(masks), 1) if descriptors is None else descriptors,
        max_detections=max_detections,
    )


_BOXES = st.lists(
    st.tuples(*[st.integers(0, 9)] * 4).map(
        lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
    ),
    max_size=25,
)


@st.composite
def _suppression_cases(draw: st.DrawFn) -> tuple[list[original.Box], list[float], list[int], float]:
    boxes = draw(_BOXES)
    eighths = st.integers(0, 8).map(lambda eighth: eighth / 8)  # few values, so that ties are common
    predicted_iou = draw(st.lists(eighths, min_size=len(boxes), max_size=len(boxes)))
    classes = draw(st.lists(st.integers(0, 3), min_size=len(boxes), max_size=len(boxes)))
    return boxes, predicted_iou, classes, draw(st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0)))


@settings(max_examples=200)
@given(_suppression_cases())
def test_suppression_agrees_with_the_oracle_ties_included(
    case: tuple[list[original.Box], list[float], list[int], float],
) -> None:
    boxes, predicted_iou, classes, thresh = case
    tensor = torch.tensor(boxes, dtype=torch.int64).view(-1, 4)
    assert _suppress(tensor, predicted_iou, classes, thresh) == original.suppress(boxes, predicted_iou, classes, thresh)


@settings(max_examples=50)
@given(_suppression_cases())
def test_suppression_is_idempotent(case: tuple[list[original.Box], list[float], list[int], float]) -> None:
    boxes, predicted_iou, classes, thresh = case
    tensor = torch.tensor(boxes, dtype=torch.int64).view(-1, 4)
    kept = _suppress(tensor, predicted_iou, classes, thresh)
    again = _suppress(tensor[kept], [predicted_iou[row] for row in kept], [classes[row] for row in kept], thresh)
    assert again == list(range(len(kept)))


def test_a_box_that_overlaps_by_exactly_the_threshold_stays() -> None:
    half = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 3]])
    assert _suppress(half, [0.9, 0.8, 0.7], [0, 0, 0], thresh=0.5) == [0, 1]


def test_many_boxes_are_suppressed_as_few_are() -> None:
    random = np.random.default_rng(0)
    corners = random.integers(0, 40, (300, 2, 2))
    boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    predicted_iou, classes = random.integers(0, 90, 300) / 100, random.integers(0, 2, 300).tolist()
    kept = _suppress(torch.from_numpy(boxes), predicted_iou.tolist(), classes)
    assert 150 < len(kept) < 280
    assert kept == original.suppress([tuple(box) for box in boxes.tolist()], predicted_iou.tolist(), classes, 0.5)


def test_only_the_same_class_suppresses() -> None:
    same = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4]])
    assert _suppress(same, [0.9, 0.8], [0, 1]) == [0, 1]
    assert _suppress(same, [0.8, 0.9], [1, 1]) == [1]


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = torch.tensor([[0, 0, 10, 4], [3, 0, 13, 4], [6, 0, 16, 4]])  # each overlaps its neighbor by 7 / 13
    assert _suppress(chain, [0.9, 0.8, 0.7], [0, 0, 0]) == [0, 2]


def test_boxes_one_pixel_wide_have_no_area_and_are_never_suppressed() -> None:
    lines = torch.tensor([[3, 0, 3, 9], [3, 0, 3, 9], [3, 3, 3, 3]])
    assert _suppress(lines, [0.7, 0.9, 0.8], [0, 0, 0]) == [1, 2, 0]


@pytest.mark.parametrize("size", [(12, 12), (30, 17), (5, 40), (7, 3), (1, 1), (1, 30), (30, 1), (5, 1)])
def test_masks_in_the_original_frame_equal_the_antialiased_triangle_filter(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(3).standard_normal((6, _SIDE, _SIDE))
    resized = np.array([original.interpolate(one, size, original.antialiased_linear) for one in logits])
    assert np.abs(resized).min() > 1e-6
    merged = merge_softly(
        upsample(torch.from_numpy(logits).float(), size, UPSAMPLED_AT_ONCE),
        torch.linspace(0.9, 0.4, 6),
        torch.arange(6),
        torch.eye(6),
        max_detections=100,
    )
    occupied = [row for row in range(6) if (resized[row] > 0).any()]
    assert merged.row_n.tolist() == occupied
    np.testing.assert_array_equal(merged.masks.unpack().numpy(), resized[occupied] > 0)


def test_a_mask_keeps_its_score_where_no_better_one_of_its_class_covers_it() -> None:
    masks = _masks((0, 0, 5, 5), (0, 0, 5, 5), (8, 8, 11, 11))
    merged = _merge(masks, [0, 1, 0], similarity=[0.7, 0.6, 0.5])
    assert merged.row_n.tolist() == [0, 1, 2]
    assert torch.equal(merged.score_n, torch.tensor([0.7, 0.6, 0.5]))


def test_the_covered_part_times_the_likeness_lowers_the_score() -> None:
    masks = _masks((0, 0, 5, 11), (3, 0, 6, 11))  # the second, four columns wide, is covered by three
    descriptors = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    merged = _merge(masks, [0, 0], descriptors, [0.5, 0.5])
    expected = [0.5, 0.5 * (1 - 0.75 * 0.6) ** 0.5]
    assert_close(merged.score_n, torch.tensor(expected), atol=1e-6, rtol=0)


def test_masks_that_look_opposite_do_not_lower_each_other() -> None:
    masks = _masks((0, 0, 5, 5), (0, 0, 5, 5))
    merged = _merge(masks, [0, 0], torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [0.4, 0.5])
    assert merged.score_n.tolist() == pytest.approx([0.5, 0.4])


def test_the_penalty_is_the_largest_product_not_the_product_of_the_largest() -> None:
    masks = _masks((0, 0, 2, 11), (3, 0, 3, 11), (0, 0, 3, 11))  # the last is covered by 3/4 and by 1/4
    descriptors = torch.tensor([[0.6, 0.8], [1.0, 0.0], [1.0, 0.0]])
    merged = _merge(masks, [0, 0, 0], descriptors, [0.9, 0.8, 0.7])
    expected = 0.7 * (1 - max(0.75 * 0.6, 0.25 * 1.0)) ** 0.5
    assert merged.score_n[2].item() == pytest.approx(expected, abs=1e-6)


def test_a_mask_that_vanishes_in_the_original_frame_is_dropped() -> None:
    masks = _masks((0, 0, 11, 11), (5, 5, 5, 5))
    merged = _merge(masks, [0, 1], size=(2, 2))
    assert merged.row_n.tolist() == [0]
    assert torch.isfinite(merged.score_n).all()


def test_only_the_best_are_kept_by_falling_score() -> None:
    masks = _masks(*[(column, 0, column, 11) for column in range(6)])
    merged = _merge(masks, [0] * 6, similarity=[0.3, 0.9, 0.1, 0.5, 0.7, 0.2], max_detections=3)
    assert merged.row_n.tolist() == [1, 4, 3]
    assert merged.masks.unpack().shape == (3, _SIDE, _SIDE)


def test_equal_scores_keep_the_order_of_the_candidates() -> None:
    merged = _merge(_masks(*[(column, 0, column, 11) for column in range(6)]), [0, 1, 0, 1, 2, 0])
    assert merged.row_n.tolist() == [0, 1, 2, 3, 4, 5]


def test_no_candidates_give_no_instances() -> None:
    merged = _merge(torch.zeros(0, 8, 8, dtype=torch.bool), [], torch.zeros(0, 2), [], size=(5, 6))
    assert merged.row_n.shape == merged.score_n.shape == (0,)
    assert merged.masks.unpack().shape == (0, 5, 6)


@pytest.mark.parametrize("size", [(401, 403), (1, 300_007)])
def test_overlaps_are_counted_exactly_on_frames_of_many_bytes(size: tuple[int, int]) -> None:
    merged = _merge(_masks((0, 0, 7, 11), (4, 0, 11, 11), (0, 0, 11, 5)), [0, 0, 1], size=size)
    masks = merged.masks.unpack()[merged.row_n.argsort()]
    covered = (masks[0] & masks[1]).sum().item() / masks[1].sum().item()
    assert 0.4 < covered < 0.6
    assert merged.score_n.min().item() == pytest.approx(0.5 * (1 - covered) ** 0.5, abs=1e-7)
