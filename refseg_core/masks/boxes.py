"""Boxes of boolean masks where the models are. Those of packed masks and run lengths are with these."""

import torch
from torch import Tensor


def mask_boxes(masks_NGG: Tensor) -> Tensor:
    """Returns inclusive extents (x_min, y_min, x_max, y_max) int64 [N, 4] of boolean masks; zeros where empty."""
    extents = []
    for occupied in (masks_NGG.any(dim=-2), masks_NGG.any(dim=-1)):
        as_int = occupied.to(torch.uint8)
        last = occupied.shape[-1] - 1 - as_int.flip(-1).argmax(dim=-1)
        extents.append((as_int.argmax(dim=-1), last))
    (x_min, x_max), (y_min, y_max) = extents
    boxes = torch.stack((x_min, y_min, x_max, y_max), dim=-1)
    return boxes * masks_NGG.flatten(-2).any(dim=-1)[..., None]
