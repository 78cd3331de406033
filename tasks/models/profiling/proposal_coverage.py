"""Whether an image's masks cover its instances, before any is matched or dropped: what no later step can win back.

Shapes: N masks, G side of their logits, T instances, H x W the image, A ranges of area.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.matching import AREA_RANGES, IOU_THRESHES
from refseg_core.masks.rle import Rle, decode_masks
from refseg_core.table_schema import Array
from refseg_core.tables import Detections

_COMPARED = 4  # masks of each instance at the image's size: those that overlap it most at the logits' size


@dataclass(frozen=True)
class TrueMasks:
    """An image's instances, without crowds: masks [T] and which range of area each belongs to, bool [T, A]."""

    rles: list[Rle]
    is_within_TA: Array

    @property
    def num_instances(self) -> Array:
        """How many of each range, int64 [A]."""
        return np.asarray(self.is_within_TA.sum(axis=0))

    @torch.inference_mode()
    def num_covered(self, logits: Sequence[Tensor]) -> Array:
        """Returns how many of each range, int64 [A], some mask covers with an IoU of at least 0.5.

        `logits`: float32 [n, G, G] each, in the segmenter frame.
        """
        covered_T = np.zeros(len(self.rles), dtype=bool)
        masks = torch.cat(list(logits)) if logits else torch.zeros(0, 1, 1)
        if len(masks) and self.rles:
            covered_T = (_best_ious(masks, decode_masks(self.rles)) >= IOU_THRESHES[0]).cpu().numpy()
        return np.asarray(self.is_within_TA[covered_T].sum(axis=0))


def true_masks(truth: Dataset) -> dict[str, TrueMasks]:
    """Returns the instances of each image, by its id; where an annotation has no mask, its box is it."""
    instances = Instances.select(truth.images, truth.annotations, truth.categories, Detections.empty())
    table, low_high = instances.annotations, np.array(list(AREA_RANGES.values()))
    is_within_NA = (table.area[:, None] >= low_high[:, 0]) & (table.area[:, None] <= low_high[:, 1])
    masks = {}
    for image_id in truth.images.image_id.tolist():
        rows = np.flatnonzero((table.image_id == image_id) & ~table.is_crowd)
        masks[image_id] = TrueMasks([instances.true_mask(row) for row in rows.tolist()], is_within_NA[rows])
    return masks


def _best_ious(logits_NGG: Tensor, true_THW: Array) -> Tensor:
    """Returns each instance's largest IoU [T] with the masks that overlap it most at the logits' size."""
    truth_THW = torch.from_numpy(true_THW).to(logits_NGG.device, torch.float32)
    small_TX = F.interpolate(truth_THW[:, None], size=logits_NGG.shape[1:], mode="area").flatten(1)
    likely_TM = _ious(small_TX, (logits_NGG > 0).flatten(1).float()).topk(min(_COMPARED, len(logits_NGG))).indices
    size = truth_THW.shape[1:]
    best = []
    for row_M, true_HW in zip(likely_TM, truth_THW, strict=True):
        masks_MHW = F.interpolate(logits_NGG[row_M, None], size=size, mode="bilinear", align_corners=False)[:, 0] > 0
        best.append(_ious(true_HW.flatten()[None], masks_MHW.flatten(1).float()).max())
    return torch.stack(best)


def _ious(true_TX: Tensor, masks_NX: Tensor) -> Tensor:
    """Returns IoU [T, N] of masks in [0, 1]."""
    shared_TN = true_TX @ masks_NX.T
    return shared_TN / (true_TX.sum(dim=1)[:, None] + masks_NX.sum(dim=1) - shared_TN).clamp_min(1)
