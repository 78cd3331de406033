"""The outlines of masks as polygons, in two ways.

`polygons_of_mask` follows the edges of pixels: the same mask is made from them again, with holes filled.

`outer_polygons` traces masks as the published code does, which is as OpenCV's `findContours` does: outer outlines
through the centers of pixels, holes left out, as corners only (RETR_EXTERNAL, CHAIN_APPROX_SIMPLE; Suzuki and Abe,
1985). A mask made from them again is not the same mask: it has no holes, and to COCO's rasterizer these numbers are the
upper left corners of pixels, so that it ends a pixel earlier to the right and below.

Not here: making masks of polygons (`rle.py`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import Masks

Integers = npt.NDArray[np.int64]

_NUM_DIRECTIONS = 8  # counter-clockwise as people see it, from right: 0 right, 2 up, 4 left, 6 down
_STAYS, _LEAVES = 1, 2  # whether one step to the right of an outline's pixel is still within the outline


def outer_polygons(mask_HW: Masks) -> list[list[int]]:
    """One polygon [x0, y0, x1, y1, ...] for each 8-connected part of a boolean mask [H, W], by its first pixel.

    Points are the centers of pixels, x from 0 to W - 1 and y from 0 to H - 1. A part that lies in a hole of another has
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
    """Returns whether a pixel is within a traced outline: the last outline to its left was not left again."""
    met = sides[position - position % width : position].rstrip(b"\0")
    return bool(met) and met[-1] == _STAYS


def _trace(pixels: bytes, sides: bytearray, start: int, width: int) -> list[int]:
    """Follows a part from its first pixel; returns where it turns, and writes into `sides` where one leaves it."""
    steps = (1, 1 - width, -width, -width - 1, -1, width - 1, width, width + 1)
    # The way around ends with the neighbor of the first pixel that is met first going clockwise from its left.
    back = next((turn for turn in (3, 2, 1, 0, 7, 6, 5) if pixels[start + steps[turn]]), None)
    if back is None:
        sides[start] = _LEAVES
        return [start]
    last, heading = start + steps[back], (back + 4) % _NUM_DIRECTIONS
    here, corners = start, []
    while True:
        turn = next(turn for turn in range(back + 1, back + 9) if pixels[here + steps[turn % _NUM_DIRECTIONS]])
        passed_right = turn > _NUM_DIRECTIONS  # its right neighbor was looked at, and is outside
        sides[here] = _LEAVES if passed_right else sides[here] or _STAYS
        if turn % _NUM_DIRECTIONS != heading:
            corners.append(here)
        heading = turn % _NUM_DIRECTIONS
        before, here = here, here + steps[heading]
        if here == start and before == last:
            return corners
        back = (heading + 4) % _NUM_DIRECTIONS


def polygons_of_mask(mask_HW: Masks) -> list[list[int]]:
    """Returns the outer outlines of a boolean mask [H, W]: one polygon [x0, y0, x1, y1, ...] per 4-connected component.

    Corners lie on pixel corners, x from 0 to W and y from 0 to H, and every edge runs along a row or a column, so that
    COCO's rasterizer gives back the mask, with holes filled. Polygons are ordered by their topmost, then leftmost
    corner and start there.
    """
    return [outline.tolist() for outline, is_outer in _outlines(mask_HW) if is_outer]


def outlines_of_mask(mask_HW: Masks) -> list[list[int]]:
    """Returns the outlines of a boolean mask [H, W], those of holes too: a pixel in an odd number of them is in it."""
    return [outline.tolist() for outline, _ in _outlines(mask_HW)]


class Outlines(NamedTuple):
    """Outlines of a mask, corners (x, y) [C, 2] each: of its components, and of its holes."""

    outer: list[Integers]
    holes: list[Integers]


def parts_of_mask(mask_HW: Masks) -> Outlines:
    """Returns the outlines of a boolean mask [H, W]: one per 4-connected component, and one per 8-connected hole."""
    found = Outlines([], [])
    for outline, is_outer in _outlines(mask_HW):
        (found.outer if is_outer else found.holes).append(outline.reshape(-1, 2))
    return found


def _outlines(mask_HW: Masks) -> Iterator[tuple[Integers, bool]]:
    """Yields every outline [x0, y0, x1, y1, ...], from its topmost, then leftmost corner, and whether it is no hole."""
    points, across, down = _corners(mask_HW)
    across_from, down_from = across.tolist(), down.tolist()
    is_left = [True] * len(points)
    # Corners are sorted by row, then column: the first one left of an outline is its topmost, leftmost one.
    for first in range(len(points)):
        outline: list[int] = []
        corner = first
        while is_left[corner]:
            outline += (corner, across_from[corner])
            is_left[corner] = is_left[across_from[corner]] = False
            corner = down_from[across_from[corner]]
        if outline:
            # The pixel below and right of that corner is inside the outline: in the mask, or else in a hole.
            yield points[outline][:, ::-1].ravel(), bool(mask_HW[tuple(points[first])])


def _corners(mask_HW: Masks) -> tuple[Integers, Integers, Integers]:
    """Returns the corners (y, x) [N, 2] of a mask's outlines, sorted, and the neighbor of each along row and column.

    A point is a corner if an odd number of its four pixels is in the mask. Where only two diagonal ones are, two
    outlines touch and the point is two corners, each between the edges of one pixel, so that pixels that touch at a
    point only are not connected. The corners in one row, taken in pairs, are the ends of the horizontal edges there,
    those in one column of the vertical ones.
    """
    padded = np.pad(mask_HW, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (nw == se) & (ne == sw) & (nw != ne)
    single, double = _positions(nw ^ ne ^ sw ^ se), _positions(touching)
    points = np.concatenate([single, double, double])
    # Of two corners at a point, rank 0 ends the edge that comes from above or from the left, rank 1 begins the other.
    # The upper pixel's corner has the edge from above, and from the left if the upper pixel is the left one.
    upper_is_left = nw[touching].astype(np.int64)
    column_rank, row_rank = np.zeros((2, len(points)), dtype=np.int64)
    column_rank[len(single) :] = np.repeat((0, 1), len(double))
    row_rank[len(single) :] = np.concatenate([1 - upper_is_left, upper_is_left])
    order = np.lexsort((column_rank, points[:, 1], points[:, 0]))
    points, column_rank, row_rank = points[order], column_rank[order], row_rank[order]
    across = _partners(np.lexsort((row_rank, points[:, 1], points[:, 0])))
    down = _partners(np.lexsort((column_rank, points[:, 0], points[:, 1])))
    return points, across, down


def _partners(order: Integers) -> Integers:
    """For each element the one it forms a pair with, where `order` lists them pair by pair."""
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners


def _positions(is_there: npt.NDArray[np.bool_]) -> Integers:
    """Returns the (y, x) [N, 2] of what is true, sorted; a fifth of the time of `np.argwhere`."""
    return np.stack(np.divmod(np.flatnonzero(is_there), is_there.shape[1]), axis=1)
