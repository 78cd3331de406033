"""Masks are doubted for their estimated quality and size, and boxes end in their image or nearly so."""

import numpy as np
import pytest

from refseg_core.errors import UnusableReferenceError
from refseg_core.masks.rle import encode_masks
from refseg_core.references.validation import fitted_box, given_mask_doubts, mask_doubts


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


def test_a_given_mask_of_nearly_the_whole_picture_is_doubted() -> None:
    masks = np.ones((2, 10, 10), dtype=bool)
    masks[1, :5] = False
    whole, half = encode_masks(masks)
    assert [doubt.startswith("its mask covers 100% of the picture") for doubt in given_mask_doubts(whole)] == [True]
    assert not list(given_mask_doubts(half))


def test_a_box_is_cut_to_its_image_by_two_pixels_at_most() -> None:
    assert fitted_box(np.array([-2.0, 0.5, 102.0, 50.0]), 50, 100).tolist() == [0, 0.5, 100, 50]
    for box in ([-2.1, 0, 50, 40], [0, -3, 50, 40], [0, 0, 103, 40], [0, 0, 50, 52.5]):
        with pytest.raises(UnusableReferenceError, match="ends outside of the image, which is 100 wide and 50 high"):
            fitted_box(np.array(box, dtype=np.float64), 50, 100)
