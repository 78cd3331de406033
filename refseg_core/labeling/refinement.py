"""Step 5e of the method `accurate`: decodes masks again, each from its own box.

A box tells the segmenter what is meant, where a point leaves open how much of it is. Shapes: n masks, G logits side.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from refseg_core.masks.boxes import mask_boxes

VERSION = 2  # of refined masks, and of labels that they make one

_SAME_MASK = 0.5  # IoU; a box whose mask is less like the old one shows something else


def refine(decode: Callable[[Tensor], Tensor], logits_nGG: Tensor, *, image_size: int) -> Tensor:
    """Returns logits [n, G, G] of the masks of the boxes around masks; the old ones where they are too unlike.

    `decode`: boxes float32 xyxy [n, 4] in the segmenter frame, of side `image_size` pixels, to logits [n, G, G].
    """
    masks_nGG = logits_nGG > 0
    boxes_n4 = mask_boxes(masks_nGG).to(torch.float32)
    boxes_n4[:, 2:] += 1  # from inclusive cells to the edges of the last ones
    refined_nGG = decode(boxes_n4 * (image_size / logits_nGG.shape[-1]))
    is_same_n = _iou(masks_nGG, refined_nGG > 0) > _SAME_MASK
    return torch.where(is_same_n[:, None, None], refined_nGG, logits_nGG)


def _iou(masks_nGG: Tensor, others_nGG: Tensor) -> Tensor:
    intersection_n = (masks_nGG & others_nGG).sum(dim=(1, 2))
    union_n = (masks_nGG | others_nGG).sum(dim=(1, 2))
    return intersection_n / union_n.clamp_min(1)
