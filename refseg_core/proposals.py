"""Step 5a: proposes masks for an image from a grid of point prompts. Method, sections 6.2 and 6.3.

Shapes: N prompts or proposals, G mask logits side (256 in the published models), h = G / 4 preview side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from refseg_core.architectures import SegmenterArchitecture
from refseg_core.batches import BatchSize, in_batches
from refseg_core.segmenter import ImageEmbedding

Prepared = TypeVar("Prepared")

_CONFIDENT = 0.8  # predicted IoU of a preview whose pixels need no further point


class DecodesPoints(Protocol[Prepared]):
    """What answers point prompts: the segmenter itself (the reference path) or a `PointDecoder` (the others)."""

    architecture: SegmenterArchitecture

    @property
    def device(self) -> torch.device:
        """Where the points should lie."""

    def prepare(self, embedding: ImageEmbedding) -> Prepared:
        """Computes once what all prompts on an image share."""

    def decode_points(
        self, prepared: Prepared, points_N2: Tensor, /, *, pred_iou_thresh: float
    ) -> tuple[Tensor, Tensor]:
        """Logits [n, G, G] and predicted IoU [n] of the prompts above the threshold, in their order."""


@dataclass(frozen=True)
class Proposals:
    """Masks without a category yet: logits float32 [N, G, G], predicted IoU float32 [N], in point order."""

    logits_NGG: Tensor
    predicted_iou_N: Tensor

    def __len__(self) -> int:
        return len(self.predicted_iou_N)


@dataclass(frozen=True)
class Previews:
    """Small masks of points: points float32 [N, 2], masks bool [N, h, h], predicted IoU float32 [N]."""

    points_N2: Tensor
    masks_Nhh: Tensor
    predicted_iou_N: Tensor

    def __len__(self) -> int:
        return len(self.predicted_iou_N)


Preview = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points [N, 2] to logits [N, h, h] and predicted IoU [N] of all of them."""


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
    points_N2: Tensor,
    *,
    batch: BatchSize,
    pred_iou_thresh: float,
) -> Proposals:
    """Decodes points, keeping the masks whose predicted IoU exceeds the threshold."""
    decode = partial(decoder.decode_points, prepared, pred_iou_thresh=pred_iou_thresh)
    kept = in_batches(points_N2, batch, decode)
    return Proposals(torch.cat([logits for logits, _ in kept]), torch.cat([iou for _, iou in kept]))


def preview_points(preview: Preview, points_N2: Tensor, *, batch: BatchSize, pred_iou_thresh: float) -> Previews:
    """Previews of the points whose predicted IoU exceeds the threshold."""
    parts = in_batches(points_N2, batch, preview)
    logits_Nhh, predicted_iou_N = (torch.cat(part) for part in zip(*parts, strict=True))
    kept_N = predicted_iou_N > pred_iou_thresh
    return Previews(points_N2[kept_N], logits_Nhh[kept_N] > 0, predicted_iou_N[kept_N])


def preview_sparsely(
    preview: Preview, points_N2: Tensor, *, image_size: int, batch: BatchSize, pred_iou_thresh: float
) -> Previews:
    """Previews of a square grid's points as on a chessboard, and of the others that no confident one of these covers.

    What a point would find where a confident mask lies already is mostly that mask again.
    """
    look = partial(preview_points, preview, batch=batch, pred_iou_thresh=pred_iou_thresh)
    is_even = torch.arange(round(len(points_N2) ** 0.5), device=points_N2.device) % 2 == 0
    is_first_N = (is_even[:, None] == is_even).flatten()
    first, others_N2 = look(points_N2[is_first_N]), points_N2[~is_first_N]
    second = look(others_N2[~_covered(first, others_N2, image_size)])
    return Previews(
        torch.cat((first.points_N2, second.points_N2)),
        torch.cat((first.masks_Nhh, second.masks_Nhh)),
        torch.cat((first.predicted_iou_N, second.predicted_iou_N)),
    )


def _covered(previews: Previews, points_N2: Tensor, image_size: int) -> Tensor:
    """Whether points lie in a confident preview, bool [N]."""
    side = previews.masks_Nhh.shape[-1]
    covered_hh = previews.masks_Nhh[previews.predicted_iou_N > _CONFIDENT].any(dim=0)
    cells_N2 = (points_N2 * (side / image_size)).long().clamp(max=side - 1)
    return covered_hh[cells_N2[:, 1], cells_N2[:, 0]]
