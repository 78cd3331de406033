"""Brush strokes: one mask or one box in a color on a canvas, with sizes that suit the picture."""

import itertools
import math
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from refseg_core.visualization.mask_coverage import Alpha, Coverage

Picture = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
Boxes = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]

FILL_OPACITY = 0.36
_SHADOW_OPACITY, _BOX_OPACITY, _CONTOUR_WHITE = 0.5, 0.75, 0.3
_OPAQUE = 255
_BLACK = (0, 0, 0)


class Strokes(NamedTuple):
    """Sizes, in pixels, that suit a picture."""

    contour: float
    box: int
    text: int
    speck: float  # what is smaller is easily overlooked

    @classmethod
    def suiting(cls, picture: tuple[int, int]) -> Self:
        """Returns the sizes for a picture of (height, width)."""
        side = (picture[0] * picture[1]) ** 0.5
        return cls(max(2.1, side / 330), max(1, round(side / 650)), max(11, round(4.5 + side / 62)), 8 + side / 160)


def resized(image: Picture, size: tuple[int, int]) -> Image.Image:
    """Returns the image at (height, width), antialiased; a copy where the size is the same."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if size == image.shape[:2]:
        return picture
    enlarged = size[0] * size[1] > image.shape[0] * image.shape[1]
    method = Image.Resampling.BICUBIC if enlarged else Image.Resampling.BOX
    return picture.resize((size[1], size[0]), method)


def draw_mask(
    canvas: Image.Image,
    coverage: Coverage | None,
    color: Color,
    thickness: float,
    *,
    fill_opacity: float = FILL_OPACITY,
) -> None:
    """Draws a mask: a light fill, a contour along its inner edge and a dark rim just outside."""
    if coverage is None:
        return
    soft = _soft(coverage.alpha)
    # The rim parts neighbors of one color, and shows on a background of that color.
    rim = _scaled(_spread(soft, 1, outside=0) - soft, _SHADOW_OPACITY)
    # The contour is what is covered and has something uncovered nearer than `thickness`.
    contour = _spread(_OPAQUE - soft, thickness, outside=_OPAQUE) - (_OPAQUE - soft)
    red, green, blue = (round(level + (_OPAQUE - level) * _CONTOUR_WHITE) for level in color)
    for ink, alpha in ((color, _scaled(soft, fill_opacity)), (_BLACK, rim), ((red, green, blue), contour)):
        canvas.paste(ink, (coverage.left, coverage.top), Image.fromarray(alpha))


def _soft(alpha: Alpha) -> Alpha:
    """Returns the coverage with steps smoothed, up to a pixel outwards; never less than it was, so that specks stay."""
    peak = int(alpha.max())
    if 0 < peak < _OPAQUE:  # a mask smaller than a picture pixel
        alpha = (alpha * (_OPAQUE / peak)).astype(np.uint8)
    blurred = np.asarray(Image.fromarray(alpha).filter(ImageFilter.BoxBlur(1)))
    return np.asarray(np.maximum(alpha, np.minimum(blurred, _OPAQUE // 2) * np.uint8(2)), dtype=np.uint8)


def _spread(alpha: Alpha, radius: float, *, outside: int) -> Alpha:
    """Each pixel's maximum over a disc with a soft rim; `outside`: the value beyond the patch."""
    height, width = alpha.shape
    reach = int(radius) + 1
    padded = np.pad(alpha, reach, constant_values=outside)
    highest = alpha.copy()
    for weight, shifts in _disc(radius):
        weighted = _scaled(padded, weight)
        for down, right in shifts:
            top, left = reach + down, reach + right
            np.maximum(highest, weighted[top : top + height, left : left + width], out=highest)
    return highest


def _scaled(alpha: Alpha, factor: float) -> Alpha:
    return alpha if factor == 1 else (alpha * np.float32(factor)).astype(np.uint8)


@lru_cache(maxsize=64)
def _disc(radius: float) -> tuple[tuple[float, tuple[tuple[int, int], ...]], ...]:
    """Returns the pixels (down, right) of a disc around (0, 0), by their weight in (0, 1]."""
    reach = range(-int(radius) - 1, int(radius) + 2)
    shifts: dict[float, list[tuple[int, int]]] = {}
    for down, right in itertools.product(reach, reach):
        weight = min(1.0, radius + 0.5 - math.hypot(down, right))
        if weight > 0 and (down, right) != (0, 0):
            shifts.setdefault(weight, []).append((down, right))
    return tuple((weight, tuple(pixels)) for weight, pixels in shifts.items())


def draw_box(canvas: Image.Image, box: Boxes, color: Color, thickness: int) -> None:
    """Draws a box [4], xyxy along pixel edges of the picture; nothing where it is not a number."""
    if np.isnan(box).any():
        return
    left, top, right, bottom = (int(edge) for edge in box.round())
    frame = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    corners = (0, 0, frame.width - 1, frame.height - 1)
    ImageDraw.Draw(frame).rectangle(corners, outline=round(_OPAQUE * _BOX_OPACITY), width=thickness)
    canvas.paste(color, (left, top), frame)
