"""Checks that a reference covers something of its image, and which annotations are fit to be references.

What a reference looks like to the encoder is not here.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.errors import UnusableReferenceError
from refseg_core.masks.rle import Masks, Rle, mask_areas, rle_boxes
from refseg_core.tables import Annotations, Images

Numbers = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

MIN_SIDE = 32  # px
MIN_MARGIN = 10  # px
_LEAST_PREDICTED_IOU = 0.7
FITTED = 2  # px that a box may end outside of its image: tools draw to the edge, and round
_MOST_OF_IMAGE = 0.9  # more is mostly the background, or the whole picture
VALID = f"not a crowd, sides of {MIN_SIDE} px, {MIN_MARGIN} px from the borders"


class Fitness(NamedTuple):
    """Why annotations [N] are not valid as references; several may hold of one. Method, section 1."""

    is_crowd: Bools
    is_small: Bools
    is_at_border: Bools

    @property
    def is_valid(self) -> Bools:
        """Whether nothing speaks against it."""
        return ~(self.is_crowd | self.is_small | self.is_at_border)


def fitness_of(images: Images, annotations: Annotations) -> Fitness:
    """Returns which annotations are fit to be references: at least 32 px a side, and 10 px from every border."""
    row_of = {image_id: row for row, image_id in enumerate(images.image_id)}
    image_rows = np.array([row_of[image_id] for image_id in annotations.image_id], dtype=np.int64)
    x, y, width, height = annotations.box_xywh.T
    right = images.width[image_rows] - (x + width)
    bottom = images.height[image_rows] - (y + height)
    is_large = (width >= MIN_SIDE) & (height >= MIN_SIDE)
    is_inside = (x >= MIN_MARGIN) & (y >= MIN_MARGIN) & (right >= MIN_MARGIN) & (bottom >= MIN_MARGIN)
    return Fitness(annotations.is_crowd, ~is_large, ~is_inside)


def check_box(box_xyxy: Numbers, height: int, width: int) -> None:
    """Raises UnusableReferenceError for a box that is not finite, has no area or misses the image; frame: pixels."""
    problem = problem_of_box(box_xyxy, height, width)
    if problem is not None:
        raise UnusableReferenceError(
            f"The box {box_xyxy.tolist()} {problem}. Give (x1, y1, x2, y2) in pixels of the image, with "
            "x1 < x2 and y1 < y2."
        )


def problem_of_box(box_xyxy: Numbers, height: int, width: int) -> str | None:
    """Returns why a box covers nothing of its image, None where it covers something."""
    x1, y1, x2, y2 = box_xyxy.tolist()
    if not np.isfinite(box_xyxy).all():
        return "has a corner that is no finite number"
    if x2 <= x1 or y2 <= y1:
        return "has no area"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return f"misses the image, which is {width} wide and {height} high"
    return None


def fitted_box(box_xyxy: Numbers, height: int, width: int) -> npt.NDArray[np.float64]:
    """Returns a box that somebody marked in an image cut to it; what it loses is at most 2 px a side; frame: pixels.

    Raises UnusableReferenceError for one that ends further outside, and as `check_box` does.
    """
    check_box(box_xyxy, height, width)
    size = np.array([width, height, width, height], dtype=np.float64)
    if (box_xyxy < -FITTED).any() or (box_xyxy > size + FITTED).any():
        raise UnusableReferenceError(
            f"The box {box_xyxy.tolist()} ends outside of the image, which is {width} wide and {height} high. Give "
            "(x1, y1, x2, y2) in pixels of this image: is it of another size, or x, y, width, height?"
        )
    return np.clip(box_xyxy.astype(np.float64), 0, size)


def check_points(points_K2: Numbers, height: int, width: int) -> None:
    """Raises UnusableReferenceError where there is no point, or one that does not lie in the image."""
    if len(points_K2) and ((points_K2 >= 0) & (points_K2 < (width, height))).all():
        return
    raise UnusableReferenceError(
        f"The points are {points_K2.tolist()}; expected one or more (x, y) in pixels within the image, "
        f"which is {width} wide and {height} high."
    )


def check_mask(mask_HW: Masks, height: int, width: int) -> None:
    """Raises UnusableReferenceError for a mask that has not the image's size or covers nothing."""
    if mask_HW.shape != (height, width):
        raise UnusableReferenceError(
            f"The reference's mask has the shape {list(mask_HW.shape)}; expected the image's, {[height, width]}."
        )
    if not mask_HW.any():
        raise UnusableReferenceError("The reference's mask covers nothing. Mark the instance's pixels.")


def mask_doubts(mask: Rle, predicted_iou: float | None) -> Iterator[str]:
    """Yields why a mask that the segmenter made of a mark may not be what was meant.

    `predicted_iou`: the segmenter's own estimate of its quality; None where it made none.
    """
    left, top, right, bottom = rle_boxes([mask])[0].tolist()
    share = _share_of_image(mask)
    if predicted_iou is not None and predicted_iou < _LEAST_PREDICTED_IOU:
        yield f"the segmenter is unsure of its mask ({predicted_iou:.2f}): give a mask"
    if share > _MOST_OF_IMAGE:
        yield f"its mask covers {share:.0%} of the picture: mark the instance with a box, or give a mask"
    if min(right - left, bottom - top) < MIN_SIDE:
        yield f"its mask is {right - left:.0f} x {bottom - top:.0f} px: give a larger example, or look at its mask"


def given_mask_doubts(mask: Rle) -> Iterator[str]:
    """Yields why a mask that somebody gave may not be what was meant."""
    share = _share_of_image(mask)
    if share > _MOST_OF_IMAGE:
        yield f"its mask covers {share:.0%} of the picture: is all but the instance black in the mask's file?"


def _share_of_image(mask: Rle) -> float:
    return int(mask_areas([mask])[0]) / (mask.size[0] * mask.size[1])
