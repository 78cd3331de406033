"""One annotation's segmentation, checked and made a mask.

Here: which polygons and run lengths are accepted; pycocotools checks neither, and would write beyond the mask's memory.
Not here: making masks of them (`refseg_core/masks/rle.py`), and which annotations they belong to.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.coco.json_values import MAX_SIDE, is_image_size, whole_number
from refseg_core.masks.rle import Rle, rle_from_counts, rle_from_polygons, run_lengths

_POINT, _TRIANGLE = 2, 6  # coordinates

_BAD_SEGMENTATION = (
    "an annotation's segmentation is neither a list of polygons [x0, y0, x1, y1, ...] of finite numbers nor run "
    "lengths {size, counts}: correct or remove it"
)
_POLYGON_OUTSIDE = (
    "an annotation's polygon reaches further outside its image than the image is long: correct it (pixels) or "
    "the image's width and height"
)
_POLYGON_NEEDS_SIZE = "an annotation has polygons but its image has no size: add width and height to the image entry"
_RLE_SIZE = "an annotation's run lengths have another size than its image: expected [height, width] of the image entry"
_BAD_RLE = (
    "an annotation's run lengths are damaged: expected counts >= 0 that add up to height * width; export the mask again"
)


FEW_POINTS = "annotations with polygons of fewer than three points: those polygons are left out"
POINT_PAIRS = "annotations whose polygons are lists of points [x, y]: read as such"
FLAT_COUNTS = "annotations whose segmentation is a flat list of run lengths, which fill the image: read as such"
Note = Callable[[str], None]


class SegmentationError(ValueError):
    """Why a segmentation cannot be used: the `kind` of problem, and what was `found`."""

    def __init__(self, kind: str, found: str = "") -> None:
        super().__init__(kind)
        self.kind = kind
        self.found = found and f" with {found}"


def read_segmentation(
    segmentation: Any, size: tuple[int, int], *, may_lie_outside: bool = False, note: Note | None = None
) -> Rle | None:
    """Returns the mask on an image of `size` (height, width; 0 where unknown); None where nothing is an area.

    Polygons that reach far outside the image are refused unless they `may_lie_outside`. `note` is told of what is left
    out or read otherwise than the format has it. Raises SegmentationError.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return _mask_of_run_lengths(segmentation, size)
    if not isinstance(segmentation, list):
        raise SegmentationError(_BAD_SEGMENTATION, json.dumps(segmentation))
    if _are_run_lengths(segmentation, size):
        _tell(note, FLAT_COUNTS)
        return rle_from_counts(segmentation, *size)
    polygons = _polygons(segmentation, note)
    areas = [polygon for polygon in polygons if _is_area(polygon)]
    if len(areas) < len(polygons):
        _tell(note, FEW_POINTS)
    if not areas:
        return None
    height, width = size
    if not height or not width:
        raise SegmentationError(_POLYGON_NEEDS_SIZE)
    reach = MAX_SIDE if may_lie_outside else max(size)
    if any(min(polygon) < -reach or max(polygon) > 2 * reach for polygon in areas):
        raise SegmentationError(_POLYGON_OUTSIDE)
    return rle_from_polygons(areas, height, width)


def reach_of(segmentation: Any) -> tuple[float, float]:
    """Returns the furthest (x, y) of polygons, or the (width, height) of run lengths; zeros where they are damaged."""
    try:
        if isinstance(segmentation, dict):
            height, width = (whole_number(side) or 0 for side in segmentation.get("size") or ())
            return width, height
        polygons = _polygons(segmentation, None) if segmentation else []
        points = [axis for polygon in polygons if _is_area(polygon) for axis in polygon]
        return max(points[::2], default=0), max(points[1::2], default=0)
    except (TypeError, ValueError):
        return 0, 0


def _polygons(segmentation: list[Any], note: Note | None) -> list[Any]:
    """Returns polygons as lists of coordinates: one alone, several, and any of them as points [x, y]."""
    if not isinstance(segmentation[0], list):
        return [segmentation]
    if _are_points(segmentation):
        _tell(note, POINT_PAIRS)
        return [_joined(segmentation)]
    if any(map(_are_points, segmentation)):
        _tell(note, POINT_PAIRS)
    return [_joined(polygon) if _are_points(polygon) else polygon for polygon in segmentation]


def _are_points(polygon: Any) -> bool:
    """Returns whether a polygon is a list of three points [x, y] or more."""
    is_long = isinstance(polygon, list) and 2 * len(polygon) >= _TRIANGLE
    return is_long and all(isinstance(point, list) and len(point) == _POINT for point in polygon)


def _joined(points: list[list[Any]]) -> list[Any]:
    return [axis for point in points for axis in point]


def _are_run_lengths(segmentation: list[Any], size: tuple[int, int]) -> bool:
    """Returns whether a flat list can only be run lengths: they fill the image, and no polygon's points lie so."""
    if not all(size) or not all(isinstance(value, int) and value >= 0 for value in segmentation):
        return False
    is_within = max(segmentation[::2]) <= size[1] and max(segmentation[1::2], default=0) <= size[0]
    return sum(segmentation) == size[0] * size[1] and not is_within


def _tell(note: Note | None, what: str) -> None:
    if note is not None:
        note(what)


def _is_area(polygon: Any) -> bool:
    """Returns whether a polygon has three points or more. Raises SegmentationError for all but pairs of finite numbers.

    Fewer points would be wrong: pycocotools takes four numbers for a box.
    """
    try:
        # The sum meets every value once and is not finite if any of them is not.
        if isinstance(polygon, list) and len(polygon) % 2 == 0 and math.isfinite(sum(polygon)):
            return len(polygon) >= _TRIANGLE
    except (TypeError, OverflowError):
        pass
    raise SegmentationError(_BAD_SEGMENTATION, f"polygon {json.dumps(polygon)[:40]}")


def _mask_of_run_lengths(segmentation: dict[str, Any], size: tuple[int, int]) -> Rle:
    declared, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(counts, str | list):
        raise SegmentationError(_BAD_SEGMENTATION, f"counts {json.dumps(counts)}")
    try:
        height, width = (whole_number(side) or 0 for side in declared or ())
    except (TypeError, ValueError):
        height, width = 0, 0
    fits = all(own in (0, given) for own, given in zip(size, (height, width), strict=True))
    if not fits or not is_image_size(height, width):
        raise SegmentationError(_RLE_SIZE, f"size {json.dumps(declared)} where the image has {list(size)}")
    lengths = _lengths(counts)
    # pycocotools does not check: it would write beyond the mask's memory.
    pixels = height * width
    if lengths.min() < 0 or lengths.max() > pixels or lengths.sum() != pixels:
        raise SegmentationError(_BAD_RLE)
    if isinstance(counts, str):
        return Rle((height, width), counts)
    return rle_from_counts(lengths.tolist(), height, width)


def _lengths(counts: str | list[Any]) -> npt.NDArray[np.int64]:
    """Returns the run lengths in COCO's string or list. Raises SegmentationError if it is damaged."""
    try:
        lengths = run_lengths(counts) if isinstance(counts, str) else np.array(counts)
    except (ValueError, OverflowError) as error:
        raise SegmentationError(_BAD_RLE) from error
    if isinstance(counts, list) and bool in map(type, counts):  # NumPy takes true for 1
        raise SegmentationError(_BAD_RLE)
    if lengths.ndim != 1 or lengths.dtype.kind != "i":
        raise SegmentationError(_BAD_RLE)
    return lengths.astype(np.int64)


def box_around(mask: Rle) -> tuple[int, int, int, int] | None:
    """Returns the mask's extent (x, y, width, height), or None if it is empty, without decoding the mask."""
    height = mask.size[0]
    lengths = run_lengths(mask.counts)
    ends = np.cumsum(lengths)
    first, last = (ends - lengths)[1::2], ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]
    if not len(first):
        return None
    left, right = int(first[0] // height), int(last[-1] // height)
    if (first // height != last // height).any():  # a run through the end of a column
        return left, 0, right + 1 - left, height
    top, bottom = int((first % height).min()), int((last % height).max())
    return left, top, right + 1 - left, bottom + 1 - top
