"""Masks of the original frame from mask logits, without resizing every cell of every mask.

A pixel of a frame that is no smaller than the logits is a weighted mean of the four cells around it. Where these have
one sign, the pixel has it, whatever the values are. The others lie near outlines and are computed one by one. Where
such a mean is so small that the order of rounding could decide its sign, its whole mask is resized by PyTorch: the
masks are those of PyTorch to the last pixel.

Cells are taken in quads: rows r and r + 1, columns c and c + 1. Every pixel belongs to one quad.

Shapes: N masks, G logits side, Q 64-bit words of a column of cells, q quads of both signs, H x W original frame (px),
B = ceil(H / 8) bytes of a column, L pixels of an axis, S = G - 1 quads along an axis, F columns of quads that are
inside somewhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.masks.bitmasks import WORD_BITS, PackedMasks, Words, first_rows, moved_up, set_bits, words_of_columns

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_Bytes = npt.NDArray[np.uint8]

_BITS = 8
_SURE = 2.0**-20  # of a mean, as a share of its largest cell; at most eight roundings by 2^-24 lie between two ways

CellsOf = Callable[[Ints, Ints, Ints], Floats]
"""Masks, rows and columns [n] to logits [n]."""
Resize = Callable[[Ints], PackedMasks]
"""Rows of masks to these masks, resized by PyTorch."""


@dataclass(frozen=True)
class _Axis:
    """How the pixels of an axis are made of cells: of `first` and the next, with these weights; by quads, the pixels
    from `starts` of a quad to that of the next."""

    first_L: Ints
    weights_2L: Floats
    starts: Ints

    @property
    def most_of_a_quad(self) -> int:
        """Returns the number of pixels of the widest quad."""
        return int(np.diff(self.starts).max())


def can_upsample(logits_size: int, size: tuple[int, int]) -> bool:
    """Returns whether pixels of a frame, (height, width), are made of four cells at most."""
    return logits_size > 1 and all(_axis(logits_size, length) is not None for length in size)


def upsample_packed(masks: PackedMasks, cells_of: CellsOf, size: tuple[int, int], resize: Resize) -> PackedMasks:
    """Returns masks, of logits on the CPU, in the original frame; `size` is one for which `can_upsample`.

    `cells_of`: the logits of some cells, all of them in quads of both signs. `resize`: resizes some masks as a whole.
    """
    rows, columns = (_axis(masks.height, length) for length in size)
    assert rows is not None
    assert columns is not None
    is_all_NSQ, is_mixed_NSQ = _quads(words_of_columns(masks.columns_NWB.numpy()), masks.height)
    columns_NWB = _expanded(is_all_NSQ, rows, columns)
    unsure = _set_pixels(columns_NWB, _Quads.at(is_mixed_NSQ), cells_of, rows, columns)
    if len(unsure):
        columns_NWB[unsure] = resize(unsure).columns_NWB.numpy()
    return PackedMasks(torch.from_numpy(columns_NWB), size[0])


@lru_cache
def _axis(num_cells: int, length: int) -> _Axis | None:
    """Returns how cells make pixels, as PyTorch says; None where there are fewer pixels, or more than two make one."""
    if length < num_cells:
        return None
    weights_GL = _weights(num_cells, length)
    is_used_GL = weights_GL != 0
    first_L, last_L = is_used_GL.argmax(axis=0), num_cells - 1 - is_used_GL[::-1].argmax(axis=0)
    if (last_L > first_L + 1).any():
        return None
    first_L = np.minimum(first_L, num_cells - 2)
    places_L = np.arange(length)
    weights_2L = np.stack((weights_GL[first_L, places_L], weights_GL[first_L + 1, places_L]))
    return _Axis(first_L, weights_2L, np.searchsorted(first_L, np.arange(num_cells)))


def _weights(num_cells: int, length: int) -> Floats:
    """Returns what each cell of an axis weighs in each pixel, [G, L]."""
    identity = torch.eye(num_cells)[None, None]
    weights: Floats = resized(identity, (num_cells, length))[0, 0].numpy()
    return weights


def resized(logits_N1GG: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes logits to (height, width), as PyTorch does with antialiasing."""
    if size[1] == 1 and logits_N1GG.shape[-2] != size[0]:
        # Rows first: PyTorch repeats rows when it resizes to a single column at the same time.
        logits_N1GG = resized(logits_N1GG, (size[0], logits_N1GG.shape[-1]))
    return F.interpolate(logits_N1GG, size=size, mode="bilinear", align_corners=False, antialias=True)


def _quads(words_NGQ: Words, num_cells: int) -> tuple[Words, Words]:
    """Returns which quads are inside a mask, and which have both signs, packed as masks are: [N, S, Q]."""
    both_NSQ, either_NSQ = words_NGQ[:, :-1] & words_NGQ[:, 1:], words_NGQ[:, :-1] | words_NGQ[:, 1:]
    is_all_NSQ = both_NSQ & moved_up(both_NSQ)
    is_mixed_NSQ = (either_NSQ | moved_up(either_NSQ)) & ~is_all_NSQ
    return is_all_NSQ, is_mixed_NSQ & first_rows(num_cells - 1, words_NGQ.shape[-1])  # the last row begins no quad


def _expanded(is_all_NSQ: Words, rows: _Axis, columns: _Axis) -> _Bytes:
    """Returns the pixels of quads that are inside, packed, uint8 [N, W, B]."""
    is_filled_NS = is_all_NSQ.any(axis=-1)
    filled_FB = _expanded_columns(is_all_NSQ[is_filled_NS], rows)
    with_none_FB = np.concatenate((np.zeros((1, filled_FB.shape[1]), dtype=np.uint8), filled_FB))
    index_NS = np.where(is_filled_NS, is_filled_NS.cumsum().reshape(is_filled_NS.shape), 0)
    return np.take(with_none_FB, index_NS[:, columns.first_L], axis=0)


def _expanded_columns(words_FQ: Words, rows: _Axis) -> _Bytes:
    """Returns columns of quads as columns of pixels, uint8 [F, B]: eight pixels by a table of what eight quads give."""
    first_L = np.pad(rows.first_L, (0, -len(rows.first_L) % _BITS), mode="edge").reshape(-1, _BITS)
    from_B = first_L[:, 0]
    bit_BR = np.arange(256) >> (first_L - from_B[:, None])[..., None] & 1  # [B, 8, 256]
    bit_BR = bit_BR * (np.arange(first_L.size).reshape(first_L.shape) < len(rows.first_L))[..., None]
    table_B256 = (bit_BR << np.arange(_BITS)[:, None]).sum(axis=1).astype(np.uint8)
    bytes_XF = np.pad(words_FQ.view(np.uint8), ((0, 0), (0, 1))).T.astype(np.uint16)  # one byte after the last, too
    pairs_BF = bytes_XF[from_B // _BITS] | bytes_XF[from_B // _BITS + 1] << np.uint16(_BITS)
    quads_BF = (pairs_BF >> (from_B % _BITS)[:, None].astype(np.uint16)) & np.uint16(0xFF)
    return np.ascontiguousarray(np.take_along_axis(table_B256, quads_BF.astype(np.intp), axis=1).T)


class _Quads(NamedTuple):
    """Quads of both signs: their masks, and their first rows and columns, [q]."""

    mask: Ints
    row: Ints
    column: Ints

    @classmethod
    def at(cls, is_mixed_NSQ: Words) -> "_Quads":
        """Returns the quads whose bits are set."""
        _, num_columns, num_words = is_mixed_NSQ.shape
        column, row = np.divmod(set_bits(is_mixed_NSQ.reshape(-1).view(np.uint8)), num_words * WORD_BITS)
        mask, column = np.divmod(column, num_columns)
        return cls(mask, row, column)

    def cells(self, cells_of: CellsOf) -> Iterator[Floats]:
        """Yields the logits of cells: both rows of the first column, then of the second."""
        for right in (0, 1):
            for down in (0, 1):
                yield cells_of(self.mask, self.row + down, self.column + right)


def _set_pixels(columns_NWB: _Bytes, quads: _Quads, cells_of: CellsOf, rows: _Axis, columns: _Axis) -> Ints:
    """Sets the pixels inside of masks in quads of both signs; returns which masks have one that rounding decides."""
    top_left, bottom_left, top_right, bottom_right = quads.cells(cells_of)
    sure = np.maximum.reduce([abs(cell) for cell in (top_left, bottom_left, top_right, bottom_right)]) * _SURE
    unsure = [np.zeros(0, dtype=np.int64)]
    flat, (_, width, num_bytes) = columns_NWB.reshape(-1), columns_NWB.shape
    for right in range(columns.most_of_a_quad):
        x = columns.starts[quads.column] + right
        has_x = x < columns.starts[quads.column + 1]
        x = np.where(has_x, x, 0)
        left_weight, right_weight = columns.weights_2L[:, x]
        top = left_weight * top_left + right_weight * top_right
        bottom = left_weight * bottom_left + right_weight * bottom_right
        for down in range(rows.most_of_a_quad):
            y = rows.starts[quads.row] + down
            is_there = has_x & (y < rows.starts[quads.row + 1])
            y = np.where(is_there, y, 0)
            mean = rows.weights_2L[0, y] * top + rows.weights_2L[1, y] * bottom
            unsure.append(quads.mask[is_there & ~(abs(mean) > sure)])
            inside = np.flatnonzero(is_there & (mean > 0))
            byte = (quads.mask[inside] * width + x[inside]) * num_bytes + y[inside] // _BITS
            np.bitwise_or.at(flat, byte, np.left_shift(1, y[inside] % _BITS).astype(np.uint8))
    return np.unique(np.concatenate(unsure))
