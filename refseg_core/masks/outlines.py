"""The outlines of masks as SVG paths, with holes, made from run lengths without a whole mask in memory.

Not here: polygons of few corners (`polygons.py`).
"""

import numpy as np
import numpy.typing as npt

from refseg_core.masks.contours import outlines_of_mask
from refseg_core.masks.rle import Masks, Rle, run_lengths

_STEPS = ("h", "v")


def svg_path(mask: Rle) -> str:
    """Returns the outlines along pixel edges, in pixels of the image, for `fill-rule: evenodd`; '' if empty."""
    part_HW, left, top = mask_part(mask)
    if not part_HW.size:
        return ""
    return "".join(_subpath(outline, left, top) for outline in outlines_of_mask(part_HW))


def _subpath(outline: list[int], left: int, top: int) -> str:
    """Returns a closed path whose edges run along rows and columns in turns."""
    points = np.array(outline, dtype=np.int64).reshape(-1, 2)
    moves = np.diff(points, axis=0)
    steps = (f"{_STEPS[int(dx == 0)]}{dy if dx == 0 else dx}" for dx, dy in moves.tolist())
    return f"M{points[0, 0] + left} {points[0, 1] + top}{''.join(steps)}z"


def mask_part(mask: Rle) -> tuple[Masks, int, int]:
    """Returns the box around a mask as booleans [h, w], and its left and top, px; of size 0 if the mask is empty."""
    height, _ = mask.size
    bounds = np.cumsum(run_lengths(mask.counts)) if mask.counts else np.zeros(0, dtype=np.int64)
    starts, stops = bounds[0::2][: len(bounds) // 2], bounds[1::2]
    starts, stops = starts[starts < stops], stops[starts < stops]
    if not len(starts):
        return np.zeros((0, 0), dtype=bool), 0, 0
    first, last = int(starts[0] // height), int((stops[-1] - 1) // height)
    columns_WH = _filled(starts - first * height, stops - first * height, (last - first + 1, height))
    rows = np.flatnonzero(columns_WH.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return np.ascontiguousarray(columns_WH[:, top:bottom].T), first, top


def _filled(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], shape: tuple[int, int]) -> Masks:
    """Returns booleans that are true from each start to its stop, in the order of memory."""
    changes = np.zeros(shape[0] * shape[1] + 1, dtype=np.int8)
    changes[starts], changes[stops] = 1, -1
    return np.cumsum(changes[:-1], dtype=np.int8).astype(bool).reshape(shape)
