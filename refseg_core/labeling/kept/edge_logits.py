"""Mask logits in a small part of their size, from which masks of the original frame come out as from all of them.

A mask is resized by averaging neighboring logits, and is where the average exceeds 0. Cells that are averaged and have
one sign give that sign, whatever their values are. So only values near a cell of the other sign are kept, those that
are averaged with it; the other cells are 1 or -1.

Shapes: N masks, G logits side, E kept values of all masks, one mask after the other and row by row.
"""

import math

import torch
from torch import Tensor


def reach_of(logits_size: int, size: tuple[int, int]) -> int:
    """Returns how far apart cells may lie that are averaged on the way to the original frame, (height, width) px."""
    return min(logits_size - 1, math.ceil(2 * max(1.0, logits_size / min(size))))


def edge_values(logits_NGG: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Returns the values to keep, [E] as the logits' dtype, and how many each mask has, int64 [N]."""
    near_NGG = _near_edges(logits_NGG > 0, reach)
    return logits_NGG[near_NGG], near_NGG.flatten(1).sum(dim=1)


def restored(masks_NGG: Tensor, values_E: Tensor, reach: int) -> Tensor:
    """Returns logits [N, G, G], of the values' dtype: those kept, and 1 or -1 elsewhere. `masks_NGG`: bool."""
    logits_NGG = torch.where(masks_NGG, 1, -1).to(values_E.dtype)
    return logits_NGG.masked_scatter_(_near_edges(masks_NGG, reach), values_E)


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
