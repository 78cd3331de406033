"""Labels: names on a background of their color, and where they go.

Frame: picture, pixels; boxes and labels are xyxy along pixel edges. Shapes: N instances, C places for one label.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from refseg_core.visualization.drawing import Boxes, Color
from refseg_core.visualization.palette import letters_on
from refseg_core.visualization.text import fit, font, text_width

_LABEL_OPACITY = 225
# The labels of a crowd get smaller until they take no more than this share of the picture, or cannot be read.
_MOST_AREA, SMALLEST_TEXT = 0.16, 10
# A place costs: per label height away from the usual corner, per label height off its box, for covering the whole
# of its own box, for covering the whole of another.
_AWAY, _DETACHED, _HIDES_OWN, _HIDES_OTHER = 0.12, 1.0, 4.0, 3.0
# A label farther from its box than this many label heights would be taken for another's.
_FARTHEST = 2.5
_ADJOINING = 0.25
_NUDGES = 3
_SUPERSAMPLING = 4
_DESCENT = 0.22  # of letters below their baseline, of the text's size


class Label(NamedTuple):
    """A label: its text, as it can be drawn, and the size of its label at a text size."""

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
) -> None:
    """Writes N labels, each a name and a score or '', near their boxes; those first in `order` choose first."""
    picture = (canvas.height, canvas.width)
    labels = make_labels(texts, text_size, picture)
    corners = place_labels(labels, boxes_N4, order, picture)
    placed = [(index, corner) for index, corner in enumerate(corners) if corner is not None]
    for index, corner in placed:
        _draw_leader(canvas, labels[index], corner, boxes_N4[index], colors[index])
    for index, corner in placed:
        _draw_label(canvas, labels[index], corner, colors[index])


def make_labels(texts: Sequence[tuple[str, str]], text_size: int, picture: tuple[int, int]) -> list[Label]:
    """Plates for (name, score) no wider than the picture of (height, width), in smaller text where there are many."""
    labels = [_label(text, text_size, picture) for text in texts]
    share = sum(label.width * label.height for label in labels) / (picture[0] * picture[1])
    smaller = max(SMALLEST_TEXT, int(text_size * (_MOST_AREA / share) ** 0.5)) if share > _MOST_AREA else text_size
    return labels if smaller >= text_size else [_label(text, smaller, picture) for text in texts]


def place_labels(
    labels: Sequence[Label], boxes_N4: Boxes, order: Sequence[int], picture: tuple[int, int]
) -> list[tuple[int, int] | None]:
    """Returns the top left corner of each label: in the picture, near its box and clear of all other labels.

    Plates are placed in `order`; None for one that finds no room, or has no text, or no box (not a number).
    """
    corners: list[tuple[int, int] | None] = [None] * len(labels)
    taken = np.zeros((0, 4))
    for index in order:
        label, box = labels[index], boxes_N4[index]
        fits = 0 < label.width <= picture[1] and label.height <= picture[0]
        if not fits or np.isnan(box).any():
            continue
        places_C4 = _places(label, box, picture)
        costs_C = _costs(places_C4, label, box, boxes_N4)
        costs_C[(_overlaps(places_C4, taken) > 0).any(axis=1)] = np.inf
        best = int(costs_C.argmin())
        if np.isfinite(costs_C[best]):
            taken = np.concatenate([taken, places_C4[best : best + 1]])
            corners[index] = (int(places_C4[best, 0]), int(places_C4[best, 1]))
    return corners


def _draw_leader(canvas: Image.Image, label: Label, corner: tuple[int, int], box: Boxes, color: Color) -> None:
    """Joins a label that had to move off its box with the nearest point of the box."""
    ends = []
    for low, length, first, last in zip(corner, (label.width, label.height), box[:2], box[2:], strict=True):
        nearest = min(max((first + last) / 2, low), low + length)
        ends.append((round(nearest), round(min(max(nearest, first), last))))
    (x0, x1), (y0, y1) = ends
    if max(abs(x1 - x0), abs(y1 - y0)) > label.height * _ADJOINING:
        ImageDraw.Draw(canvas).line((x0, y0, x1, y1), fill=color, width=max(1, label.height // 14))


def _draw_label(canvas: Image.Image, label: Label, corner: tuple[int, int], color: Color) -> None:
    """Draws a label in the color, its text in black or white, its top left at `corner`."""
    canvas.paste(color, corner, _rounded(label.width, label.height))
    across, down = _padding(label.text_size)
    start = (corner[0] + across, corner[1] + label.height - down - round(label.text_size * _DESCENT))
    ImageDraw.Draw(canvas).text(start, label.text, fill=letters_on(color), font=font(label.text_size), anchor="ls")


def _label(name_and_score: tuple[str, str], text_size: int, picture: tuple[int, int]) -> Label:
    across, down = _padding(text_size)
    name, score = name_and_score
    text = fit(name, text_size, picture[1] - 2 * across, ending=score)
    if not text:
        return Label("", text_size, 0, 0)
    return Label(text, text_size, text_width(text, text_size) + 2 * across, text_size + 2 * down)


def _padding(text_size: int) -> tuple[int, int]:
    return max(2, round(text_size * 0.32)), max(1, round(text_size * 0.12))


def _places(label: Label, box: Boxes, picture: tuple[int, int]) -> Boxes:
    """Places [C, 4] to try: along the box's edges, inside and outside, and a few labels further up and down."""
    left, top, right, bottom = box
    nudges = np.arange(1, _NUDGES + 1) * label.height
    xs = np.array([left, right - label.width, (left + right - label.width) / 2, left - label.width, right])
    ys = np.array([top - label.height, top, bottom, bottom - label.height, (top + bottom - label.height) / 2])
    ys = np.concatenate([ys, top - label.height - nudges, top + nudges, bottom + nudges])
    xs = xs.round().clip(0, picture[1] - label.width)
    ys = ys.round().clip(0, picture[0] - label.height)
    grid_x, grid_y = (axis.ravel() for axis in np.meshgrid(xs, ys))
    return np.stack([grid_x, grid_y, grid_x + label.width, grid_y + label.height], axis=1)


def _costs(places_C4: Boxes, label: Label, box: Boxes, boxes_N4: Boxes) -> Boxes:
    usual = np.array([box[0], box[1] - label.height])
    away_C = np.abs(places_C4[:, :2] - usual).sum(axis=1) / label.height
    gaps_C2 = np.maximum(box[:2] - places_C4[:, 2:], places_C4[:, :2] - box[2:]).clip(0)
    detached_C = gaps_C2.max(axis=1) / label.height
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
    ImageDraw.Draw(large).rounded_rectangle(corners, radius=large.height // 5, fill=_LABEL_OPACITY)
    return large.reduce(_SUPERSAMPLING)
