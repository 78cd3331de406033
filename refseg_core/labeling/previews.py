"""Small masks of points, from which the path `fast` chooses the points to decode in full.

Shapes: N points of a grid, n some of them, h preview side (64 in the published models).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from refseg_core.labeling.batching import BatchSize, in_batches
from refseg_core.labeling.proposal_source import PromptCounts, Proposals, Proposed
from refseg_core.models.protocols import ImageEmbedding, PreviewsPoints

VERSION = 2  # of which points previews choose

Preview = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Prompts, n rows, to logits [n, h, h] and predicted IoU [n] of all of them."""


@dataclass(frozen=True)
class Previews:
    """Small masks of points: the points' rows in the grid, int64 [n]; masks bool [n, h, h]; predicted IoU float32 [n].

    In the order of the points.
    """

    row_n: Tensor
    masks_nhh: Tensor
    predicted_iou_n: Tensor

    def __len__(self) -> int:
        return len(self.row_n)


def preview_points(
    preview: Preview, prompts: Tensor, row_n: Tensor, *, batch: BatchSize, pred_iou_thresh: float
) -> Previews:
    """Returns previews of these rows of the grid's prompts whose predicted IoU exceeds the threshold."""
    parts = in_batches(prompts[row_n], batch, preview)
    logits_nhh, predicted_iou_n = (torch.cat(part) for part in zip(*parts, strict=True))
    kept_n = torch.nonzero(predicted_iou_n > pred_iou_thresh)[:, 0]
    return Previews(row_n[kept_n], logits_nhh[kept_n] > 0, predicted_iou_n[kept_n])


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
    ) -> None:
        self._decoder, self._distinct = decoder, distinct
        self._batch, self._pred_iou_thresh = batch, pred_iou_thresh
        self._prompts = decoder.prompts(grid_N2)

    def propose(self, embedding: ImageEmbedding, features_PC: Tensor, row_n: Tensor) -> Proposed:
        """Previews these points; decodes those in full that are distinct."""
        image = self._decoder.prepare(embedding)
        previews = preview_points(
            partial(self._decoder.preview_points, image),
            self._prompts,
            row_n,
            batch=self._batch,
            pred_iou_thresh=self._pred_iou_thresh,
        )
        distinct_n = previews.row_n[self._distinct(previews, features_PC)].sort().values
        # That their predicted IoU passes is known from the previews.
        decode = partial(self._decoder.decode_points, image, pred_iou_thresh=None)
        proposals = Proposals.joined(in_batches(self._prompts[distinct_n], self._batch, decode))
        prompts = PromptCounts(len(row_n), len(row_n) + len(distinct_n), len(row_n), len(distinct_n))
        return Proposed(proposals, len(previews), prompts)
