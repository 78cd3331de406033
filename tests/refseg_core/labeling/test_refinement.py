"""Masks decoded from their boxes take the place of those that they resemble, and of no others."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.labeling.refinement import refine
from tests.support.models import random_tensor

_SIDE, _IMAGE_SIZE = 16, 64


def _logits(*rectangles: tuple[int, int, int, int]) -> Tensor:
    """1.5 within x_min, y_min, x_max, y_max (the last ones not included), -0.5 outside."""
    logits = torch.full((len(rectangles), _SIDE, _SIDE), -0.5)
    for row, (left, top, right, bottom) in enumerate(rectangles):
        logits[row, top:bottom, left:right] = 1.5
    return logits


def _answering(logits: Tensor, asked: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def decode(boxes_n4: Tensor) -> Tensor:
        asked.append(boxes_n4)
        return logits

    return decode


def test_boxes_are_the_edges_of_masks_in_the_segmenter_frame() -> None:
    masks = _logits((2, 3, 7, 5), (0, 0, 16, 16), (15, 4, 16, 5))
    asked: list[Tensor] = []
    refine(_answering(masks, asked), masks, image_size=_IMAGE_SIZE)
    (boxes,) = asked
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == [[8, 12, 28, 20], [0, 0, 64, 64], [60, 16, 64, 20]]


@pytest.mark.parametrize(
    ("width", "is_replaced"),
    [(10, True), (6, True), (5, False), (4, False), (0, False)],  # IoU: 1, 0.6, 0.5, 0.4 and 0
)
def test_a_mask_is_replaced_where_more_than_half_is_shared(width: int, is_replaced: bool) -> None:
    before, after = _logits((0, 0, 10, 4)), 2 * _logits((0, 0, width, 4))
    expected = after if is_replaced else before
    assert torch.equal(refine(_answering(after, []), before, image_size=_IMAGE_SIZE), expected)
    assert not torch.equal(before, after)


@settings(max_examples=60)
@given(number=st.integers(0, 6), seed=st.integers(0, 2**32 - 2))
def test_each_mask_is_its_own_decoded_one_or_stays(number: int, seed: int) -> None:
    before = random_tensor(number, 6, 6, seed=seed) - 0.5
    after = before + 0.8 * (random_tensor(number, 6, 6, seed=seed + 1) - 0.5)
    refined = refine(_answering(after, []), before, image_size=_IMAGE_SIZE)
    assert refined.shape == before.shape
    for old, new, result in zip(before, after, refined, strict=True):
        shared, either = ((old > 0) & (new > 0)).sum(), ((old > 0) | (new > 0)).sum()
        assert torch.equal(result, new if 2 * shared > either else old)


def test_an_empty_mask_stays_empty() -> None:
    before = torch.full((1, _SIDE, _SIDE), -1.0)
    assert torch.equal(refine(_answering(_logits((0, 0, 4, 4)), []), before, image_size=_IMAGE_SIZE), before)
