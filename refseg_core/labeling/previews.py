"""Small masks of points, from which the paths `fast` and `turbo` choose the points to decode in full.

Shapes: N points of a grid, n some of them, h preview side (64 in the published models).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.labeling.batching import BatchSize, in_batches
from refseg_core.labeling.image_labels import PromptCounts
from refseg_core.labeling.proposal_source import Proposals, Proposed
from refseg_core.models.protocols import ImageEmbedding, PreviewsPoints

VERSION = 2  # of which points previews choose

Preview = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Prompts, n rows, to logits [n, h, h] and predicted IoU [n] of all of them."""

_ROUNDS, _BEST = 2, 48  # of a sparse search: how often neighbors are previewed, and of how many previews
_CONFIDENT = 0.95  # predicted IoU of a preview whose pixels need no further point


@dataclass(frozen=True)
class Previews:
    """Small masks of points: the points' rows in the grid, int64 [n]; masks bool [n, h, h]; predicted IoU float32 [n].

    In point order, which is that of the rows. `num_previewed`: how many points were previewed for them.
    """

    row_n: Tensor
    masks_nhh: Tensor
    predicted_iou_n: Tensor
    num_previewed: int

    def __len__(self) -> int:
        return len(self.row_n)

    def joined(self, others: "Previews") -> "Previews":
        """Returns the previews of both, which share no point."""
        row_n = torch.cat((self.row_n, others.row_n))
        order_n = row_n.argsort()
        return Previews(
            row_n[order_n],
            torch.cat((self.masks_nhh, others.masks_nhh))[order_n],
            torch.cat((self.predicted_iou_n, others.predicted_iou_n))[order_n],
            self.num_previewed + others.num_previewed,
        )


def preview_points(
    preview: Preview, prompts: Tensor, row_n: Tensor, *, batch: BatchSize, pred_iou_thresh: float
) -> Previews:
    """Returns previews of these rows of the grid's prompts whose predicted IoU exceeds the threshold."""
    parts = in_batches(prompts[row_n], batch, preview)
    logits_nhh, predicted_iou_n = (torch.cat(part) for part in zip(*parts, strict=True))
    kept_n = torch.nonzero(predicted_iou_n > pred_iou_thresh)[:, 0]
    return Previews(row_n[kept_n], logits_nhh[kept_n] > 0, predicted_iou_n[kept_n], len(row_n))


class SparseSearch:
    """Chooses which points of a square grid to preview, group after group, by the previews of those before.

    A point on a mask that is certain already mostly yields that mask again. A mask that matters, though, is better the
    more points were tried: the one with the highest predicted IoU is kept. So the neighbors of the best points are
    previewed too. Every method returns rows of the grid, none of them a second time.
    """

    def __init__(self, grid_N2: Tensor, image_size: int) -> None:
        self._grid_N2 = grid_N2
        self._image_size = image_size
        self._side = round(len(grid_N2) ** 0.5)
        self._is_taken_N = torch.zeros(len(grid_N2), dtype=torch.bool, device=grid_N2.device)

    def every_other(self) -> Tensor:
        """Returns every other point, both ways."""
        is_even = torch.arange(self._side, device=self._grid_N2.device) % 2 == 0
        return self._take((is_even[:, None] & is_even).flatten())

    def uncovered(self, previews: Previews) -> Tensor:
        """Returns points that no confident preview covers."""
        side = previews.masks_nhh.shape[-1]
        covered_hh = previews.masks_nhh[previews.predicted_iou_n > _CONFIDENT].any(dim=0)
        cells_N2 = (self._grid_N2 * (side / self._image_size)).long().clamp(max=side - 1)
        return self._take(~covered_hh[cells_N2[:, 1], cells_N2[:, 0]])

    def neighbors(self, row_n: Tensor) -> Tensor:
        """Returns the eight neighbors of each of these points."""
        is_best_11ss = self._is_taken_N.new_zeros(1, 1, self._side, self._side, dtype=torch.float32)
        is_best_11ss.view(-1)[row_n] = 1
        return self._take(F.max_pool2d(is_best_11ss, kernel_size=3, stride=1, padding=1).flatten() > 0)

    def _take(self, is_wanted_N: Tensor) -> Tensor:
        row_n = torch.nonzero(is_wanted_N & ~self._is_taken_N)[:, 0]
        self._is_taken_N[row_n] = True
        return row_n


Distinct = Callable[[Previews, Tensor], Tensor]
"""Previews and patch features to the previews that suppression is not sure to drop, by falling similarity."""


class PreviewedGrid:
    """Proposals of those points of a grid whose previews are no duplicates of better ones."""

    def __init__(
        self,
        decoder: PreviewsPoints[Any],
        grid_N2: Tensor,
        distinct: Distinct,
        *,
        batch: BatchSize,
        pred_iou_thresh: float,
        image_size: int,
        is_sparse: bool,
    ) -> None:
        self._decoder, self._grid_N2, self._distinct = decoder, grid_N2, distinct
        self._batch, self._pred_iou_thresh = batch, pred_iou_thresh
        self._image_size, self._is_sparse = image_size, is_sparse
        self._prompts = decoder.prompts(grid_N2)

    def propose(self, embedding: ImageEmbedding, features_PC: Tensor, row_n: Tensor) -> Proposed:
        """Previews these points, or those that a sparse search takes; decodes those in full that are distinct."""
        image = self._decoder.prepare(embedding)
        previews = self._preview(image, features_PC, row_n)
        distinct_n = previews.row_n[self._distinct(previews, features_PC)].sort().values
        # That their predicted IoU passes is known from the previews.
        decode = partial(self._decoder.decode_points, image, pred_iou_thresh=None)
        proposals = Proposals.joined(in_batches(self._prompts[distinct_n], self._batch, decode))
        prompts = PromptCounts(
            previews.num_previewed, previews.num_previewed + len(distinct_n), previews.num_previewed, len(distinct_n)
        )
        return Proposed(proposals, len(previews), prompts)

    def _preview(self, image: Any, features_PC: Tensor, row_n: Tensor) -> Previews:
        """Returns previews of these points, or of those that a sparse search takes of all."""
        preview = partial(
            preview_points,
            partial(self._decoder.preview_points, image),
            self._prompts,
            batch=self._batch,
            pred_iou_thresh=self._pred_iou_thresh,
        )
        if not self._is_sparse:
            return preview(row_n)
        search = SparseSearch(self._grid_N2, self._image_size)
        previews = preview(search.every_other())
        previews = previews.joined(preview(search.uncovered(previews)))
        for _ in range(_ROUNDS):
            best_n = self._distinct(previews, features_PC)[:_BEST]
            previews = previews.joined(preview(search.neighbors(previews.row_n[best_n])))
        return previews
