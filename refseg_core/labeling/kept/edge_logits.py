"""Mask logits in a small part of their size, from which masks of the original frame come out as from all of them.

A mask is resized by averaging neighboring logits, and is where the average exceeds 0. Cells that are averaged and have
one sign give that sign, whatever their values are. So only values near a cell of the other sign are kept, those that
are averaged with it; the other cells are 1 or -1.

Shapes: N masks, G logits side, E kept values of all masks, one mask after the other and column by column, Q 64-bit
words of a column of cells.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refseg_core.masks.bitmasks import (
    WORD_BITS,
    PackedMasks,
    Words,
    first_rows,
    moved_down,
    moved_up,
    set_bits,
    words_of_columns,
)
from refseg_core.masks.upsampling import CellsOf, Floats, Ints, can_upsample


class EdgeValues(NamedTuple):
    """The values that are kept, [E] as the logits' dtype, and how many each mask has, int64 [N]."""

    value_E: Tensor
    num_N: Tensor


def reach_of(logits_size: int, size: tuple[int, int]) -> int:
    """Returns how far apart cells may lie that are averaged on the way to the original frame, (height, width) px."""
    return 1 if can_upsample(logits_size, size) else older_reach_of(logits_size, size)


def older_reach_of(logits_size: int, size: tuple[int, int]) -> int:
    """Returns the same for any frame, which is more than need be where none is made smaller."""
    return min(logits_size - 1, math.ceil(2 * max(1.0, logits_size / min(size))))


def edge_values(logits_NGG: Tensor, reach: int) -> EdgeValues:
    """Returns the values to keep."""
    near_NGG = _near_edges(logits_NGG > 0, reach)
    by_column_NGG = near_NGG.transpose(1, 2).contiguous()
    return EdgeValues(logits_NGG.transpose(1, 2)[by_column_NGG], near_NGG.flatten(1).sum(dim=1))


def restored(masks_NGG: Tensor, values_E: Tensor, reach: int) -> Tensor:
    """Returns logits [N, G, G], of the values' dtype: those kept, and 1 or -1 elsewhere. `masks_NGG`: bool."""
    columns_NGG = masks_NGG.transpose(1, 2).contiguous()
    logits_NGG = torch.where(columns_NGG, 1, -1).to(values_E.dtype)
    return logits_NGG.masked_scatter_(_near_edges(columns_NGG, reach), values_E).transpose(1, 2).contiguous()


def narrowed(masks: PackedMasks, by_row_E: Tensor, reach: int, to_reach: int) -> EdgeValues:
    """Returns the values to keep of those that older stores hold: row by row, and maybe further from edges."""
    near_NGQ, few_NGQ = (_near_words(masks, distance) for distance in (reach, to_reach))
    place = set_bits(near_NGQ.reshape(-1).view(np.uint8))
    column, row_E = np.divmod(place, near_NGQ.shape[-1] * WORD_BITS)
    # Small integers are sorted by their digits, which is quick.
    by_row = row_E.astype(np.uint16).argsort(kind="stable")
    order_E = by_row[(column // masks.height)[by_row].astype(np.uint16).argsort(kind="stable")]
    by_column_E = np.empty_like(by_row_E.numpy())
    by_column_E[order_E] = by_row_E.numpy()
    is_near_E = few_NGQ.reshape(-1)[place // WORD_BITS] >> (place % WORD_BITS).astype(np.uint64) & np.uint64(1) != 0
    num_N = np.bitwise_count(few_NGQ).sum(axis=(1, 2), dtype=np.int64)
    return EdgeValues(torch.from_numpy(by_column_E[is_near_E]), torch.from_numpy(num_N))


def edge_cells(masks: PackedMasks, values_E: Tensor, reach: int) -> CellsOf:
    """Returns what gives the logits of single cells near edges, which come out as from `restored`; all on the CPU."""
    near_NGQ, value_E = _near_words(masks, reach), values_E.float().numpy()
    _, side, num_words = near_NGQ.shape
    words = near_NGQ.reshape(-1)
    count = np.bitwise_count(words).astype(np.int64)
    before = count.cumsum() - count

    def cells_of(mask: Ints, row: Ints, column: Ints) -> Floats:
        word = (mask * side + column) * num_words + row // WORD_BITS
        lower = (np.uint64(1) << (row % WORD_BITS).astype(np.uint64)) - np.uint64(1)
        values: Floats = value_E[before[word] + np.bitwise_count(words[word] & lower)]
        return values

    return cells_of


def _near_words(masks: PackedMasks, reach: int) -> Words:
    """Returns what `_near_edges` does, packed."""
    words_NGQ = words_of_columns(masks.columns_NWB.numpy())
    is_cell_Q = first_rows(masks.height, words_NGQ.shape[-1])
    return _grown_words(words_NGQ, reach) & _grown_words(~words_NGQ & is_cell_Q, reach) & is_cell_Q


def _grown_words(words_NGQ: Words, reach: int) -> Words:
    for _ in range(reach):
        grown_NGQ = words_NGQ | moved_up(words_NGQ) | moved_down(words_NGQ)
        words_NGQ = grown_NGQ.copy()
        words_NGQ[:, 1:] |= grown_NGQ[:, :-1]
        words_NGQ[:, :-1] |= grown_NGQ[:, 1:]
    return words_NGQ


def _near_edges(masks_NGG: Tensor, reach: int) -> Tensor:
    """Bool [N, G, G]: whether a cell of the other sign is at most `reach` rows and columns away."""
    return _grown(masks_NGG, reach) & _grown(~masks_NGG, reach)


def _grown(cells_NGG: Tensor, reach: int) -> Tensor:
    """Bool [N, G, G]: whether one of the cells is at most `reach` rows and columns away."""
    for axis in (1, 2):
        for _ in range(reach):
            length, grown_NGG = cells_NGG.shape[axis], cells_NGG.clone()
            grown_NGG.narrow(axis, 1, length - 1).logical_or_(cells_NGG.narrow(axis, 0, length - 1))
            grown_NGG.narrow(axis, 0, length - 1).logical_or_(cells_NGG.narrow(axis, 1, length - 1))
            cells_NGG = grown_NGG
    return cells_NGG
