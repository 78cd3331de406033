"""Where the labels go, and the plates they are written on.

Frame: picture, pixels; boxes and plates are xyxy along pixel edges. Shapes: N instances, C places for one plate.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from refseg_core.visualization.drawing import Boxes, Color
from refseg_core.visualization.palette import letters_on
from refseg_core.visualization.text import Typeface

_PLATE_OPACITY = 225
# The plates of a crowd get smaller until they take no more than this share of the picture, or cannot be read.
_MOST_AREA, SMALLEST_TEXT = 0.16, 10
# A place costs: per plate height away from the usual corner, per plate height off its box, for covering the whole
# of its own box, for covering the whole of another.
_AWAY, _DETACHED, _HIDES_OWN, _HIDES_OTHER = 0.12, 1.0, 4.0, 3.0
# A label farther from its box than this many plate heights would be taken for another's.
_FARTHEST = 2.5
_ADJOINING = 0.25
_NUDGES = 3
_SUPERSAMPLING = 4


class Plate(NamedTuple):
    """A label: its text, as it can be drawn, and the size of its plate at a text size."""

    text: str
    text_size: int
    width: int
    height: int


def draw_labels(
    canvas: Image.Image,
    texts: Sequence[tuple[str, str]],
    boxes_N4: Boxes,
    colors: Sequence[Color],
    order: Sequence[int],
    *,
    text_size: int,
    face: Typeface,
) -> None:
    """Writes N labels, each a name and a score or '', near their boxes; those first in `order` choose first."""
    picture = (canvas.height, canvas.width)
    plates = make_plates(texts, text_size, picture, face)
    corners = place_plates(plates, boxes_N4, order, picture)
    placed = [(index, corner) for index, corner in enumerate(corners) if corner is not None]
    for index, corner in placed:
        _draw_leader(canvas, plates[index], corner, boxes_N4[index], colors[index])
    for index, corner in placed:
        _draw_plate(canvas, plates[index], corner, colors[index], face)


def make_plates(
    texts: Sequence[tuple[str, str]], text_size: int, picture: tuple[int, int], face: Typeface
) -> list[Plate]:
    """Plates for (name, score) no wider than the picture of (height, width), in smaller text where there are many."""
    plates = [_plate(text, text_size, picture, face) for text in texts]
    share = sum(plate.width * plate.height for plate in plates) / (picture[0] * picture[1])
    smaller = max(SMALLEST_TEXT, int(text_size * (_MOST_AREA / share) ** 0.5)) if share > _MOST_AREA else text_size
    if smaller >= text_size:
        return plates
    return [_plate(text, smaller, picture, face) for text in texts]


def place_plates(
    plates: Sequence[Plate], boxes_N4: Boxes, order: Sequence[int], picture: tuple[int, int]
) -> list[tuple[int, int] | None]:
    """The top left corner of each plate: in the picture, near its box and clear of all other plates.

    Plates are placed in `order`; None for one that finds no room, or has no text, or no box (not a number).
    """
    corners: list[tuple[int, int] | None] = [None] * len(plates)
    taken = np.zeros((0, 4))
    for index in order:
        plate, box = plates[index], boxes_N4[index]
        fits = 0 < plate.width <= picture[1] and plate.height <= picture[0]
        if not fits or np.isnan(box).any():
            continue
        places_C4 = _places(plate, box, picture)
        costs_C = _costs(places_C4, plate, box, boxes_N4)
        costs_C[(_overlaps(places_C4, taken) > 0).any(axis=1)] = np.inf
        best = int(costs_C.argmin())
        if np.isfinite(costs_C[best]):
            taken = np.concatenate([taken, places_C4[best : best + 1]])
            corners[index] = (int(places_C4[best, 0]), int(places_C4[best, 1]))
    return corners


def _draw_leader(canvas: Image.Image, plate: Plate, corner: tuple[int, int], box: Boxes, color: Color) -> None:
    """Joins a plate that had to move off its box with the nearest point of the box."""
    ends = []
    for low, length, first, last in zip(corner, (plate.width, plate.height), box[:2], box[2:], strict=True):
        nearest = min(max((first + last) / 2, low), low + length)
        ends.append((round(nearest), round(min(max(nearest, first), last))))
    (x0, x1), (y0, y1) = ends
    if max(abs(x1 - x0), abs(y1 - y0)) > plate.height * _ADJOINING:
        ImageDraw.Draw(canvas).line((x0, y0, x1, y1), fill=color, width=max(1, plate.height // 14))


def _draw_plate(canvas: Image.Image, plate: Plate, corner: tuple[int, int], color: Color, face: Typeface) -> None:
    """Draws a plate in the color, its text in black or white, its top left at `corner`."""
    canvas.paste(color, corner, _rounded(plate.width, plate.height))
    font = face.at(plate.text_size)
    baseline = corner[1] + plate.height - _padding(plate.text_size)[1] - _descent(plate.text_size)
    start = (corner[0] + _padding(plate.text_size)[0], baseline)
    ImageDraw.Draw(canvas).text(start, plate.text, fill=letters_on(color), font=font, anchor="ls")


def _plate(name_and_score: tuple[str, str], text_size: int, picture: tuple[int, int], face: Typeface) -> Plate:
    across, down = _padding(text_size)
    name, score = name_and_score
    text = face.fit(name, text_size, picture[1] - 2 * across, ending=score)
    if not text:
        return Plate("", text_size, 0, 0)
    return Plate(text, text_size, face.width(text, text_size) + 2 * across, text_size + 2 * down)


def _padding(text_size: int) -> tuple[int, int]:
    return max(2, round(text_size * 0.32)), max(1, round(text_size * 0.12))


def _descent(text_size: int) -> int:
    return round(text_size * 0.22)


def _places(plate: Plate, box: Boxes, picture: tuple[int, int]) -> Boxes:
    """Places [C, 4] to try: along the box's edges, inside and outside, and a few plates further up and down."""
    left, top, right, bottom = box
    nudges = np.arange(1, _NUDGES + 1) * plate.height
    xs = np.array([left, right - plate.width, (left + right - plate.width) / 2, left - plate.width, right])
    ys = np.concatenate([[top - plate.height, top, bottom, bottom - plate.height, (top + bottom - plate.height) / 2]])
    ys = np.concatenate([ys, top - plate.height - nudges, top + nudges, bottom + nudges])
    xs = xs.round().clip(0, picture[1] - plate.width)
    ys = ys.round().clip(0, picture[0] - plate.height)
    grid_x, grid_y = (axis.ravel() for axis in np.meshgrid(xs, ys))
    return np.stack([grid_x, grid_y, grid_x + plate.width, grid_y + plate.height], axis=1)


def _costs(places_C4: Boxes, plate: Plate, box: Boxes, boxes_N4: Boxes) -> Boxes:
    usual = np.array([box[0], box[1] - plate.height])
    away_C = np.abs(places_C4[:, :2] - usual).sum(axis=1) / plate.height
    gaps_C2 = np.maximum(box[:2] - places_C4[:, 2:], places_C4[:, :2] - box[2:]).clip(0)
    detached_C = gaps_C2.max(axis=1) / plate.height
    hidden_CN = _overlaps(places_C4, boxes_N4) / _areas(boxes_N4).clip(1)
    hidden_C = np.nan_to_num(hidden_CN).sum(axis=1)
    own_C = _overlaps(places_C4, box[None])[:, 0] / _areas(box[None]).clip(1)
    costs_C = _AWAY * away_C + _DETACHED * detached_C + _HIDES_OWN * own_C + _HIDES_OTHER * (hidden_C - own_C)
    costs_C[detached_C > _FARTHEST] = np.inf
    return np.asarray(costs_C, dtype=np.float64)


def _overlaps(first: Boxes, second: Boxes) -> Boxes:
    """Common areas [len(first), len(second)]."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (opposite - corner).clip(0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _areas(boxes: Boxes) -> Boxes:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


@lru_cache(maxsize=512)
def _rounded(width: int, height: int) -> Image.Image:
    large = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    corners = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(corners, radius=large.height // 5, fill=_PLATE_OPACITY)
    return large.reduce(_SUPERSAMPLING)
