"""Checks that a reference covers something of its image. What it looks like to the encoder is not here."""

from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.errors import UnusableReferenceError
from refseg_core.masks.rle import Masks

Numbers = npt.NDArray[np.floating[Any]]


def check_box(box_xyxy: Numbers, height: int, width: int) -> None:
    """Raises UnusableReferenceError for a box that is not finite, has no area or misses the image; frame: pixels."""
    problem = problem_of_box(box_xyxy, height, width)
    if problem is not None:
        raise UnusableReferenceError(
            f"The reference's box {box_xyxy.tolist()} {problem}. Give (x1, y1, x2, y2) in pixels of the image, with "
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


def check_points(points_K2: Numbers, height: int, width: int) -> None:
    """Raises UnusableReferenceError where there is no point, or one that does not lie in the image."""
    if len(points_K2) and ((points_K2 >= 0) & (points_K2 < (width, height))).all():
        return
    raise UnusableReferenceError(
        f"The reference's points are {points_K2.tolist()}; expected one or more (x, y) in pixels within the image, "
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
