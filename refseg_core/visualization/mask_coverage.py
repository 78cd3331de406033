"""How much of each picture pixel a mask covers: from the original frame to the picture's.

Frames: original (H x W pixels), picture (P x Q pixels), the same view at another size. A mask comes as run lengths
and leaves as a small patch around it, so that a hundred masks of a large image need megabytes.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from refseg_core.masks.rle import Rle, decode_mask, run_lengths

Alpha = npt.NDArray[np.uint8]
_Integers = npt.NDArray[np.int64]

_MIN_SIDE, _MAX_SIDE = 640, 1600
# Around every patch, so that a contour can be softened just outside the mask.
_MARGIN = 2


class Coverage(NamedTuple):
    """A patch of the picture whose top left pixel is (left, top); `alpha` uint8 [h, w], 255 = covered fully."""

    left: int
    top: int
    alpha: Alpha


class _Span(NamedTuple):
    """Picture pixels [start, stop) of one axis, which is `scale` times as long in the picture."""

    start: int
    stop: int
    scale: float

    @classmethod
    def around(cls, first: int, last: int, length: int, picture_length: int) -> Self:
        """Returns the picture pixels around the original's [first, last) of `length`, with a margin."""
        scale = picture_length / length
        start = max(0, int(first * scale) - _MARGIN)
        return cls(start, min(picture_length, int(np.ceil(last * scale)) + _MARGIN), scale)


def picture_size(height: int, width: int) -> tuple[int, int]:
    """Returns (height, width) of the picture, whose longer side has 640 to 1600 pixels."""
    longer = max(height, width)
    scale = min(max(longer, _MIN_SIDE), _MAX_SIDE) / longer
    return max(1, round(height * scale)), max(1, round(width * scale))


def cover(mask: Rle, picture: tuple[int, int]) -> Coverage | None:
    """Returns the coverage of a mask in a picture of (height, width); None if the mask is empty.

    A reduced pixel has the share of its area that the mask covers; an enlarged mask gets smooth edges.
    """
    is_enlarged = picture[0] > mask.size[0] or picture[1] > mask.size[1]
    return _cover_enlarged(mask, picture) if is_enlarged else _cover_runs(mask, picture)


def _cover_enlarged(mask: Rle, picture: tuple[int, int]) -> Coverage | None:
    """Interpolates, which makes edges as wide as the enlarged pixels, and makes them one pixel wide again."""
    whole = Image.fromarray(decode_mask(mask) * np.uint8(255)).resize(picture[::-1], Image.Resampling.BILINEAR)
    box = whole.getbbox()
    if box is None:
        return None
    left, top = (max(0, edge - _MARGIN) for edge in box[:2])
    alpha = np.asarray(whole)[top : box[3] + _MARGIN, left : box[2] + _MARGIN]
    firm = ((alpha - 127.5) * (picture[0] / mask.size[0]) + 127.5).clip(0, 255)
    return Coverage(left, top, firm.astype(np.uint8))


def _cover_runs(rle: Rle, picture: tuple[int, int]) -> Coverage | None:
    """Adds the runs up in picture pixels: of 12 megapixels in 1 ms, where decoding and resizing takes 16."""
    columns, first_rows, last_rows = _column_segments(rle)
    if not columns.size:
        return None
    vertical = _Span.around(int(first_rows.min()), int(last_rows.max()), rle.size[0], picture[0])
    horizontal = _Span.around(int(columns[0]), int(columns[-1]) + 1, rle.size[1], picture[1])
    alpha = _add_up(columns, first_rows, last_rows, vertical, horizontal)
    return Coverage(horizontal.start, vertical.start, alpha)


def _add_up(
    columns: _Integers, first_rows: _Integers, last_rows: _Integers, vertical: _Span, horizontal: _Span
) -> Alpha:
    """Alpha of vertical segments: each is a rise at its first row and a fall at its last, summed downwards.

    A rise at row 2.3 of the picture is 0.7 in row 2 and the remaining 0.3 in row 3; a column that straddles two
    picture columns is shared out in the same way.
    """
    height, width = vertical.stop - vertical.start + 2, horizontal.stop - horizontal.start + 1
    lefts = columns * horizontal.scale - horizontal.start
    left_columns = lefts.astype(np.int64)
    left_shares = np.minimum(lefts + horizontal.scale, left_columns + 1) - lefts
    places, amounts = [], []
    for rows, sign in ((first_rows, 1.0), (last_rows, -1.0)):
        tops = rows * vertical.scale - vertical.start
        top_rows = tops.astype(np.int64)
        for row, row_share in ((top_rows, top_rows + 1 - tops), (top_rows + 1, tops - top_rows)):
            for column, share in ((0, left_shares), (1, horizontal.scale - left_shares)):
                places.append(row * width + left_columns + column)
                amounts.append(sign * row_share * share)
    changes = np.bincount(np.concatenate(places), np.concatenate(amounts), minlength=height * width)
    levels = changes.reshape(height, width)[:-2, :-1].astype(np.float32) * np.float32(255)
    levels[0] += 0.5  # carried down by the sum: rounds to the nearest level
    np.cumsum(levels, axis=0, out=levels)
    return levels.astype(np.uint8)


def _column_segments(rle: Rle) -> tuple[_Integers, _Integers, _Integers]:
    """Returns the foreground as vertical segments: column, first row, last row + 1, each [S], by column."""
    height = rle.size[0]
    ends = run_lengths(rle.counts).cumsum()
    stops = ends[1::2]
    starts = ends[0::2][: len(stops)]
    starts, stops = starts[starts < stops], stops[starts < stops]
    first_columns, last_columns = starts // height, (stops - 1) // height
    num = last_columns - first_columns + 1
    run = np.repeat(np.arange(len(num)), num)
    columns = first_columns[run] + np.arange(num.sum()) - (num.cumsum() - num)[run]
    first_rows = np.maximum(starts[run] - columns * height, 0)
    last_rows = np.minimum(stops[run] - columns * height, height)
    return columns, first_rows, last_rows
