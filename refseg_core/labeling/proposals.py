"""Step 5a: proposes masks for an image from a grid of point prompts. Method, sections 6.2 and 6.3.

Shapes: N prompts or proposals, G mask logits side (256 in the published models).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from refseg_core.labeling.batching import BatchSize, in_batches
from refseg_core.labeling.proposal_source import PromptCounts, Proposals, Proposed
from refseg_core.models.protocols import DecodesPoints, DecodesQuickly, ImageEmbedding, Prepared

VERSION = 1  # of proposals


def point_grid(points_per_side: int, image_size: int, device: torch.device) -> Tensor:
    """Returns points (x, y) in the segmenter frame, float32 [points_per_side^2, 2], x slow (quirk Q2).

    The published grid spans from the first pixel to the last, half a pixel added; the prompt encoder adds
    another half. A single point lies in the middle.
    """
    if points_per_side == 1:
        along = torch.tensor([image_size / 2], device=device)
    else:
        along = torch.linspace(0, image_size - 1, points_per_side, device=device) + 0.5
    return torch.cartesian_prod(along, along).view(-1, 2)


def propose(
    decoder: DecodesPoints[Prepared], prepared: Prepared, prompts: Tensor, *, batch: BatchSize, pred_iou_thresh: float
) -> Proposals:
    """Decodes the decoder's prompts, keeping the masks whose predicted IoU exceeds the threshold."""
    decode = partial(decoder.decode_points, prepared, pred_iou_thresh=pred_iou_thresh)
    return Proposals.joined(in_batches(prompts, batch, decode))


class PointGrid:
    """A proposal of every point of a grid whose predicted IoU exceeds a threshold."""

    def __init__(
        self, decoder: DecodesPoints[Any], grid_N2: Tensor, *, batch: BatchSize, pred_iou_thresh: float
    ) -> None:
        self._decoder, self._batch, self._pred_iou_thresh = decoder, batch, pred_iou_thresh
        self._prompts = decoder.prompts(grid_N2)

    def propose(self, embedding: ImageEmbedding, features_PC: Tensor, row_n: Tensor) -> Proposed:
        """Decodes these points; the features play no role."""
        proposals = self._decoded(self._decoder.prepare(embedding), self._prompts[row_n])
        return Proposed(proposals, len(proposals), PromptCounts(len(row_n), len(row_n), 0, len(proposals)))

    def _decoded(self, image: Any, prompts: Tensor) -> Proposals:
        return propose(self._decoder, image, prompts, batch=self._batch, pred_iou_thresh=self._pred_iou_thresh)


class AllMasks(PointGrid):
    """As `PointGrid`, with all masks of every point whose predicted IoU exceeds the threshold, not only the best."""

    def __init__(
        self, decoder: DecodesQuickly[Any], grid_N2: Tensor, *, batch: BatchSize, pred_iou_thresh: float
    ) -> None:
        super().__init__(decoder, grid_N2, batch=batch, pred_iou_thresh=pred_iou_thresh)
        self._decode_all = partial(decoder.decode_all_masks, pred_iou_thresh=pred_iou_thresh)

    def _decoded(self, image: Any, prompts: Tensor) -> Proposals:
        def decode(some: Tensor) -> tuple[Tensor, Tensor]:
            logits_nGG, predicted_iou_n = self._decode_all(image, some)
            return logits_nGG.half(), predicted_iou_n  # three times as many: a GB instead of two

        return Proposals.joined(in_batches(prompts, self._batch, decode))
