"""Which proposals of an image are worth merging, in which order, and what a second look changes about that.

Shapes: N proposals, n candidates, K categories and negatives, b those looked at again.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refseg_core.labeling.matching import Matches
from refseg_core.labeling.merging import non_maximum_suppression
from refseg_core.settings import LabelingSettings
from refseg_core.settings.areas import AreaLimits
from refseg_core.settings.labeling_methods import MethodParts

if TYPE_CHECKING:
    from refseg_core.labeling.composing.pool import Pool

NEGATIVES_VERSION = 2  # of what negatives do to labels


@dataclass(frozen=True)
class Candidates:
    """Proposals that are no duplicates, in their order: rows of the proposals, likenesses, predicted IoU."""

    row_n: Tensor
    matches: Matches
    predicted_iou_n: Tensor

    def __getitem__(self, row_n: Tensor) -> "Candidates":
        return Candidates(self.row_n[row_n], self.matches[row_n], self.predicted_iou_n[row_n])


@dataclass(frozen=True)
class Fit:
    """Which proposals of an image of a size (height, width), px, have an area that their category may have."""

    pool: "Pool"
    limits: AreaLimits | None
    size: tuple[int, int]

    def __call__(self, row_n: Tensor, class_index_n: Tensor) -> Tensor:
        """Returns which of some proposals fit, as rows of these, int64 [m] ascending."""
        if self.limits is None:
            return torch.arange(len(row_n), device=row_n.device)
        area_n, num_pixels = self._areas[row_n.cpu().numpy()], self.size[0] * self.size[1]
        fits_n = self.limits.fit(area_n, class_index_n.cpu().numpy(), image_pixels=num_pixels)
        return torch.from_numpy(np.flatnonzero(fits_n)).to(row_n.device)

    @cached_property
    def _areas(self) -> npt.NDArray[np.float64]:
        areas: npt.NDArray[np.float64] = self.pool.shares().cpu().numpy() * (self.size[0] * self.size[1])
        return areas


def candidates_of(pool: "Pool", prototypes_KC: Tensor, settings: LabelingSettings, fit: Fit) -> Candidates:
    """Matches proposals, drops those of a wrong size and duplicates, and takes the first that resemble anything."""
    matches = pool.matches(prototypes_KC)
    rank_N, boxes_N4 = _rank(pool.predicted_ious(), matches, settings.parts), pool.boxes()
    fitting = fit(torch.arange(len(rank_N), device=rank_N.device), matches.class_index_N)
    kept = non_maximum_suppression(
        boxes_N4[fitting],
        rank_N[fitting],
        matches.class_index_N[fitting],
        box_nms_thresh=settings.box_nms_thresh,
    )
    kept = fitting[kept]
    kept = kept[: settings.candidates_per_detection * settings.max_detections]
    kept = kept[matches.similarity_N[kept] > 0]
    return Candidates(kept, matches[kept], pool.predicted_ious()[kept])


def looked_at_again(candidates: Candidates, pool: "Pool", parts: MethodParts, num_categories: int) -> Candidates:
    """Revises the best candidates, and orders all again.

    The others lose what those lost on average, so that all stay comparable. Both are told by the categories, the first
    of what is compared, alone: what resembles negatives most takes no second look from what may be an instance.
    """
    matches, predicted_iou_n = candidates.matches, candidates.predicted_iou_n
    similarity_n = matches.similarity_NK[:, :num_categories].amax(dim=1)
    best = (similarity_n * predicted_iou_n).argsort(descending=True, stable=True)[: parts.max_second_looks]
    if len(best) > 0:
        revised_bK = pool.look_again(candidates.row_n[best], matches.similarity_NK[best])
        loss = (similarity_n[best] - revised_bK[:, :num_categories].amax(dim=1)).mean()
        similarity_nK = (matches.similarity_NK - loss).clamp(0, 1)
        similarity_nK[best] = revised_bK
        matches = Matches.of(similarity_nK, matches.descriptor_NC)
    order = _rank(predicted_iou_n, matches, parts).argsort(descending=True, stable=True)
    return Candidates(candidates.row_n, matches, predicted_iou_n)[order]


def _rank(predicted_iou_N: Tensor, matches: Matches, parts: MethodParts) -> Tensor:
    """Returns by what candidates are ordered: the higher, the earlier."""
    if parts.similarity_exponent == 0:
        return predicted_iou_N
    return predicted_iou_N * matches.similarity_N**parts.similarity_exponent
