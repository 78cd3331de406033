"""A mask that the segmenter made of a mark is doubted for its estimated quality and its size."""

import numpy as np
import pytest

from refseg_core.masks.rle import encode_masks
from refseg_core.references.validation import mask_doubts


@pytest.mark.parametrize(
    ("height", "width", "predicted_iou", "expected"),
    [
        (60, 40, 0.9, []),
        (60, 40, None, []),
        (60, 40, 0.4, ["the segmenter is unsure of its mask (0.40): give a mask"]),
        (100, 95, 0.9, ["its mask covers 95% of the picture: mark the instance with a box, or give a mask"]),
        (5, 40, 0.4, ["the segmenter is unsure", "its mask is 40 x 5 px: give a larger example"]),
    ],
)
def test_masks_are_doubted(height: int, width: int, predicted_iou: float | None, expected: list[str]) -> None:
    mask = np.zeros((1, 100, 100), dtype=bool)
    mask[:, :height, :width] = True
    doubts = list(mask_doubts(encode_masks(mask)[0], predicted_iou))
    assert [doubt.startswith(start) for doubt, start in zip(doubts, expected, strict=True)] == [True] * len(expected)
