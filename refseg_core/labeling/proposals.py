"""Step 5a: proposes masks for an image from a grid of point prompts. Method, sections 6.2 and 6.3.

Shapes: N prompts or proposals, G mask logits side (256 in the published models).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from refseg_core.labeling.batching import BatchSize, in_batches
from refseg_core.models.architectures import SegmenterArchitecture
from refseg_core.models.segmenter import ImageEmbedding

VERSION = 1  # of proposals

Prepared = TypeVar("Prepared")


class DecodesPoints(Protocol[Prepared]):
    """What answers point prompts: the segmenter itself (the reference path) or a `PointDecoder` (the others)."""

    architecture: SegmenterArchitecture

    @property
    def device(self) -> torch.device:
        """Where the points should lie."""

    def prompts(self, points_N2: Tensor) -> Tensor:
        """Computes once what points, a row each, share on all images."""

    def prepare(self, embedding: ImageEmbedding) -> Prepared:
        """Computes once what all prompts on an image share."""

    def decode_points(self, prepared: Prepared, prompts: Tensor, /, *, pred_iou_thresh: float) -> tuple[Tensor, Tensor]:
        """Logits [n, G, G] and predicted IoU [n] of the prompts above the threshold, in their order."""


@dataclass(frozen=True)
class Proposals:
    """Masks without a category yet: logits float32 [N, G, G], predicted IoU float32 [N], in point order."""

    logits_NGG: Tensor
    predicted_iou_N: Tensor

    @classmethod
    def joined(cls, parts: Sequence[tuple[Tensor, Tensor]]) -> "Proposals":
        """Those of several batches, one after the other."""
        return cls(torch.cat([logits for logits, _ in parts]), torch.cat([iou for _, iou in parts]))

    def __len__(self) -> int:
        return len(self.predicted_iou_N)


def point_grid(points_per_side: int, image_size: int, device: torch.device) -> Tensor:
    """Points (x, y) in the segmenter frame, float32 [points_per_side^2, 2], x slow (quirk Q2).

    The published grid spans from the first pixel to the last, half a pixel added; the prompt encoder adds
    another half. A single point lies in the middle.
    """
    if points_per_side == 1:
        along = torch.tensor([image_size / 2], device=device)
    else:
        along = torch.linspace(0, image_size - 1, points_per_side, device=device) + 0.5
    return torch.cartesian_prod(along, along).view(-1, 2)


def propose(
    decoder: DecodesPoints[Prepared],
    prepared: Prepared,
    prompts: Tensor,
    *,
    batch: BatchSize,
    pred_iou_thresh: float,
) -> Proposals:
    """Decodes the decoder's prompts, keeping the masks whose predicted IoU exceeds the threshold."""
    decode = partial(decoder.decode_points, prepared, pred_iou_thresh=pred_iou_thresh)
    return Proposals.joined(in_batches(prompts, batch, decode))
