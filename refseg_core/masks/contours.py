"""The outlines of masks as the published code traces them, which is as OpenCV's `findContours` does.

Here: outer outlines through the centres of pixels, holes left out, as corners only (RETR_EXTERNAL, CHAIN_APPROX_SIMPLE;
Suzuki and Abe, 1985). A mask made from them again is not the same mask: it has no holes, and to COCO's rasteriser these
numbers are the upper left corners of pixels, so that it ends a pixel earlier to the right and below. Not here: outlines
along the edges of pixels, from which the same mask is made again (`refseg_core/datasets/coco/writer.py`), and making
masks.
"""

import numpy as np

from refseg_core.masks.rle import Masks

_NUM_DIRECTIONS = 8  # counter-clockwise as people see it, from right: 0 right, 2 up, 4 left, 6 down
_STAYS, _LEAVES = 1, 2  # whether one step to the right of an outline's pixel is still within the outline


def outer_polygons(mask_HW: Masks) -> list[list[int]]:
    """One polygon [x0, y0, x1, y1, ...] for each 8-connected part of a boolean mask [H, W], by its first pixel.

    Points are the centres of pixels, x from 0 to W - 1 and y from 0 to H - 1. A part that lies in a hole of another has
    none. A single pixel is one point, a straight line two.
    """
    padded = np.pad(mask_HW, 1)
    width = padded.shape[1]
    pixels, sides = padded.tobytes(), bytearray(padded.size)
    starts = np.flatnonzero(padded.ravel()[1:] & ~padded.ravel()[:-1]) + 1
    corners = [
        _trace(pixels, sides, start, width)
        for start in starts.tolist()
        if not sides[start] and not _is_inside(sides, start, width)
    ]
    return [[axis for corner in part for axis in (corner % width - 1, corner // width - 1)] for part in corners]


def _is_inside(sides: bytearray, position: int, width: int) -> bool:
    """Whether a pixel is within an outline that was traced already: the last one to its left was not left again."""
    met = sides[position - position % width : position].rstrip(b"\0")
    return bool(met) and met[-1] == _STAYS


def _trace(pixels: bytes, sides: bytearray, start: int, width: int) -> list[int]:
    """Goes around a part from its first pixel; returns where it turns, and writes into `sides` where one leaves it."""
    steps = (1, 1 - width, -width, -width - 1, -1, width - 1, width, width + 1)
    # The way around ends with the neighbour of the first pixel that is met first going clockwise from its left.
    back = next((turn for turn in (3, 2, 1, 0, 7, 6, 5) if pixels[start + steps[turn]]), None)
    if back is None:
        sides[start] = _LEAVES
        return [start]
    last, heading = start + steps[back], (back + 4) % _NUM_DIRECTIONS
    here, corners = start, []
    while True:
        turn = next(turn for turn in range(back + 1, back + 9) if pixels[here + steps[turn % _NUM_DIRECTIONS]])
        passed_right = turn > _NUM_DIRECTIONS  # its right neighbour was looked at, and is outside
        sides[here] = _LEAVES if passed_right else sides[here] or _STAYS
        if turn % _NUM_DIRECTIONS != heading:
            corners.append(here)
        heading = turn % _NUM_DIRECTIONS
        before, here = here, here + steps[heading]
        if here == start and before == last:
            return corners
        back = (heading + 4) % _NUM_DIRECTIONS
