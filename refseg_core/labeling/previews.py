"""Small masks of points, by which the quick paths choose what is decoded in full; and which points are worth one.

Shapes: N points of a grid, n some of them, h preview side (64 in the published models).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.labeling.batching import BatchSize, in_batches

VERSION = 2  # of which points previews choose

Preview = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Prompts, n rows, to logits [n, h, h] and predicted IoU [n] of all of them."""

_CONFIDENT = 0.95  # predicted IoU of a preview whose pixels need no further point


@dataclass(frozen=True)
class Previews:
    """Small masks of points: the points' rows in the grid, int64 [n]; masks bool [n, h, h]; predicted IoU float32 [n].

    In point order, which is that of the rows. `num_asked`: how many points were asked for them.
    """

    row_n: Tensor
    masks_nhh: Tensor
    predicted_iou_n: Tensor
    num_asked: int

    def __len__(self) -> int:
        return len(self.row_n)

    def joined(self, others: "Previews") -> "Previews":
        """Both, of which no point is in the other."""
        row_n = torch.cat((self.row_n, others.row_n))
        order_n = row_n.argsort()
        return Previews(
            row_n[order_n],
            torch.cat((self.masks_nhh, others.masks_nhh))[order_n],
            torch.cat((self.predicted_iou_n, others.predicted_iou_n))[order_n],
            self.num_asked + others.num_asked,
        )


def preview_points(
    preview: Preview, prompts: Tensor, row_n: Tensor, *, batch: BatchSize, pred_iou_thresh: float
) -> Previews:
    """Previews of these rows of the grid's prompts, as far as their predicted IoU exceeds the threshold."""
    parts = in_batches(prompts[row_n], batch, preview)
    logits_nhh, predicted_iou_n = (torch.cat(part) for part in zip(*parts, strict=True))
    kept_n = torch.nonzero(predicted_iou_n > pred_iou_thresh)[:, 0]
    return Previews(row_n[kept_n], logits_nhh[kept_n] > 0, predicted_iou_n[kept_n], len(row_n))


class SparseSearch:
    """Which points of a square grid to ask, one group after the other, by what those before have shown.

    What a point would find where a sure mask lies already is mostly that mask again. A mask that matters, though, is
    better the more points tried it: of these the one with the highest predicted IoU is kept. So points beside the best
    of what was found are asked too, by and by. Every method gives rows of the grid, none of them a second time.
    """

    def __init__(self, grid_N2: Tensor, image_size: int) -> None:
        self._grid_N2 = grid_N2
        self._image_size = image_size
        self._side = round(len(grid_N2) ** 0.5)
        self._is_asked_N = torch.zeros(len(grid_N2), dtype=torch.bool, device=grid_N2.device)

    def every_other(self) -> Tensor:
        """Every other point, both ways."""
        is_even = torch.arange(self._side, device=self._grid_N2.device) % 2 == 0
        return self._ask((is_even[:, None] & is_even).flatten())

    def uncovered(self, previews: Previews) -> Tensor:
        """Points that no confident preview covers."""
        side = previews.masks_nhh.shape[-1]
        covered_hh = previews.masks_nhh[previews.predicted_iou_n > _CONFIDENT].any(dim=0)
        cells_N2 = (self._grid_N2 * (side / self._image_size)).long().clamp(max=side - 1)
        return self._ask(~covered_hh[cells_N2[:, 1], cells_N2[:, 0]])

    def beside(self, row_n: Tensor) -> Tensor:
        """The neighbors of these points, eight of each."""
        is_best_11ss = self._is_asked_N.new_zeros(1, 1, self._side, self._side, dtype=torch.float32)
        is_best_11ss.view(-1)[row_n] = 1
        return self._ask(F.max_pool2d(is_best_11ss, kernel_size=3, stride=1, padding=1).flatten() > 0)

    def _ask(self, is_wanted_N: Tensor) -> Tensor:
        row_n = torch.nonzero(is_wanted_N & ~self._is_asked_N)[:, 0]
        self._is_asked_N[row_n] = True
        return row_n
