"""Masks as polygons that people edit: few corners, with a stated likeness to the mask.

Outlines are simplified by Douglas and Peucker's method: what is left out lies within a tolerance of what stays. Not
here: following outlines (`contours.py`), and making masks of polygons (`rle.py`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.masks.contours import Integers, Outlines, parts_of_mask
from refseg_core.masks.outlines import mask_part
from refseg_core.masks.rle import Masks, Rle, decode_mask, rle_from_polygons

_MIN_IOU = 0.95  # a simplified outline keeps at least so much of the exact one, or it is simplified less
_TRIANGLE = 3

Ring = Integers
"""Corners (x, y) [C, 2] on pixel corners; the last is joined with the first."""


class Polygons(NamedTuple):
    """A mask as outlines of its parts and of their holes; `iou` with the mask itself."""

    outer: list[Ring]
    holes: list[Ring]
    iou: float

    def flat(self) -> list[list[int]]:
        """Returns the outer outlines as [x0, y0, x1, y1, ...] each."""
        return [ring.ravel().tolist() for ring in self.outer]

    def joined(self) -> Ring:
        """Returns all outlines as a single one, for formats in which an instance is one polygon.

        Outlines are joined by bridges without width, there and back between their nearest corners. By the even-odd
        rule, which rasterizers follow, it covers the parts without their holes.
        """
        return _joined([*self.outer, *self.holes])


def polygons_of(rle: Rle, *, tolerance: float, with_holes: bool) -> Polygons:
    """Returns a mask's outlines, corners left out that lie within `tolerance` pixels of what stays.

    Where that would change the mask much (an IoU below 0.95 with the exact outline, as it does with tiny masks), the
    tolerance is halved, and at last nothing is left out. Without holes these are filled, and the IoU is lower for it.
    """
    mask, left, top = mask_part(rle)
    outlines = parts_of_mask(mask)
    exact = outlines if with_holes else Outlines(outlines.outer, [])
    wanted = _filled(exact, mask) if len(exact.holes) < len(outlines.holes) else mask
    found, drawn = exact, wanted
    for allowed in (tolerance, tolerance / 2) if tolerance else ():
        simplified = _simplified(exact, allowed)
        filled = _filled(simplified, mask)
        if _iou(filled, wanted) >= _MIN_IOU:
            found, drawn = simplified, filled
            break
    corner = np.array([left, top])
    outer, holes = ([ring + corner for ring in rings] for rings in found)
    return Polygons(outer, holes, _iou(drawn, mask))


def _filled(outlines: Outlines, like: Masks) -> Masks:
    """Rasterizes outlines as COCO does, into a mask of the same size as another."""
    if not outlines.outer:
        return np.zeros_like(like)
    # With holes as one polygon: a part may lie in a hole of another, and then belongs to the mask.
    rings = [_joined([*outlines.outer, *outlines.holes])] if outlines.holes else outlines.outer
    return decode_mask(rle_from_polygons([ring.ravel().tolist() for ring in rings], *like.shape))


def _joined(rings: list[Ring]) -> Ring:
    first, *others = rings
    for ring in others:
        first = _bridged(first, ring)
    return first


def _iou(first: Masks, second: Masks) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def _simplified(exact: Outlines, tolerance: float) -> Outlines:
    """Returns outlines with fewer corners: a part of which no area would be left as it is, such a hole not at all."""
    parts = [(ring, _simplified_ring(ring, tolerance)) for ring in exact.outer]
    holes = [_simplified_ring(ring, tolerance) for ring in exact.holes]
    outer = [ring if len(simple) < _TRIANGLE else simple for ring, simple in parts]
    return Outlines(outer, [ring for ring in holes if len(ring) >= _TRIANGLE])


def _simplified_ring(ring: Ring, tolerance: float) -> Ring:
    """Returns the corners that stay: of both halves, between the first corner and the one farthest from it."""
    farthest = int(np.abs(ring - ring[0]).sum(axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    stays = np.zeros(len(closed), dtype=bool)
    stays[[0, farthest]] = True
    waiting = [(0, farthest), (farthest, len(ring))]
    while waiting:
        first, last = waiting.pop()
        if last - first > 1:
            distances = _distances(closed[first + 1 : last], closed[first], closed[last])
            middle = first + 1 + int(distances.argmax())
            if distances[middle - first - 1] > tolerance:
                stays[middle] = True
                waiting += [(first, middle), (middle, last)]
    return closed[:-1][stays[:-1]]


def _distances(points: Ring, first: Ring, last: Ring) -> npt.NDArray[np.float64]:
    """Returns the distances [C] of points to the line through two others, or to the one that both are."""
    along, away = (last - first).astype(np.float64), points - first
    length = float(np.hypot(*along))
    if not length:
        return np.asarray(np.hypot(away[:, 0], away[:, 1]))
    return np.asarray(np.abs(away[:, 0] * along[1] - away[:, 1] * along[0]) / length)


def _bridged(ring: Ring, other: Ring) -> Ring:
    """Returns a way around one outline, over to another, around that one and back."""
    squares = ((ring[:, None] - other[None]) ** 2).sum(axis=2)
    here, there = np.unravel_index(int(squares.argmin()), squares.shape)
    return np.concatenate([ring[: here + 1], other[there:], other[: there + 1], ring[here:]])
