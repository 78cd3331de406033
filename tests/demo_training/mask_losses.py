"""How far mask logits are from the truth. Logits are [N, M, G, G], the truth float32 [N, L, L] in [0, 1]."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.demo_training.views import HALF


def mask_loss(logits_NMGG: Tensor, truth_NLL: Tensor, outside_weight: float | None) -> Tensor:
    """The loss of each prompt's best mask, averaged over prompts."""
    logits = _enlarged(logits_NMGG, truth_NLL)
    truth = truth_NLL[:, None].expand_as(logits)
    loss_NM = _cross_entropy(logits, truth, outside_weight) + _dice(logits.sigmoid(), truth)
    return loss_NM.min(dim=1).values.mean()


def _cross_entropy(logits: Tensor, truth: Tensor, outside_weight: float | None) -> Tensor:
    """Relative to the object's area. Where inside and outside count the same, no object is best left out."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    area = truth.sum(dim=(2, 3)).clamp(min=1)
    inside = (cross_entropy * truth).sum(dim=(2, 3)) / area
    outside = (cross_entropy * (1 - truth)).sum(dim=(2, 3))
    weight = 1 / (1 - truth).sum(dim=(2, 3)) if outside_weight is None else outside_weight / area
    return 0.5 * (inside + weight * outside)


def _dice(share: Tensor, truth: Tensor) -> Tensor:
    both = (share * truth).sum(dim=(2, 3))
    return 1 - (2 * both + 1) / (share.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)


@torch.no_grad()
def mask_iou(logits_NMGG: Tensor, truth_NLL: Tensor) -> Tensor:
    """IoU of every mask with the truth, [N, M]."""
    mask, truth = _enlarged(logits_NMGG, truth_NLL) > 0, truth_NLL[:, None] > HALF
    both, either = (mask & truth).sum(dim=(2, 3)), (mask | truth).sum(dim=(2, 3))
    return both / either.clamp(min=1)


def _enlarged(logits_NMGG: Tensor, truth_NLL: Tensor) -> Tensor:
    return F.interpolate(logits_NMGG, size=truth_NLL.shape[-2:], mode="bilinear", align_corners=False)
