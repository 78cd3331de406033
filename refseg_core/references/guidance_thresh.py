"""From which likeness on the path `guided` prompts a point, as told by the references in their whole images.

The usual threshold is raised where many categories together would have much of any image prompted, and lowered where
references of a category resemble each other little.

Shapes: H, W image (px), g patch grid side, P = g * g patches, C channels, K categories.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.tables import GuidanceThresholds, MemoryBank

VERSION = 2  # of the rule

LOWEST, USUAL, HIGHEST = 0.15, 0.20, 0.30
"""Cosines. With few categories and DINOv2 S, small objects are lost at 0.25; with 60 none are at 0.30."""

_SHARE_PROMPTED = 0.4  # of the patches around references, above which the threshold is raised
_PART_OF_INSTANCE = 0.25  # of its patches, which are to be prompted
_INSTANCES_LOST = 0.1  # of the references, at most
_OWN_PROTOTYPE = 0.1  # by how much an instance is more like a prototype that it alone has made


def instance_similarity(features_PC: Tensor, mask_HW: npt.NDArray[np.bool_], bank: MemoryBank, row: int) -> float:
    """Returns the cosine that a quarter of an instance's patches exceed, in its whole image.

    The other side is the prototype of the category's other references in the bank, whose row `row` is this one. Where
    there is no other it is its own, and a margin is taken off.
    """
    of_category = bank.category_id == bank.category_id[row]
    is_other = of_category & (np.arange(len(bank)) != row)
    margin = 0.0 if is_other.any() else _OWN_PROTOTYPE
    feature_C = torch.from_numpy(bank.feature[is_other if is_other.any() else of_category].mean(axis=0))
    similarity_P = F.normalize(features_PC, dim=1) @ F.normalize(feature_C.to(features_PC), dim=0)
    inside_P = _inside(mask_HW, round(len(features_PC) ** 0.5)).to(features_PC.device)
    return float(similarity_P[inside_P].quantile(1 - _PART_OF_INSTANCE)) - margin


def similarity_around(features_PC: Tensor, masks: Sequence[npt.NDArray[np.bool_]], prototypes_KC: Tensor) -> Tensor:
    """Returns the largest cosine with any prototype of each patch outside an image's references, float32 [at most P].

    The references themselves, which may fill their images as they fill no other, do not tell what share of an image
    would be prompted. `masks`: bool [H, W] each.
    """
    around_P = torch.ones(len(features_PC), dtype=torch.bool)
    for mask_HW in masks:
        around_P &= ~_inside(mask_HW, round(len(features_PC) ** 0.5))
    features_OC = features_PC[around_P.to(features_PC.device)]
    return (F.normalize(features_OC, dim=1) @ prototypes_KC.T).amax(dim=1)


def choose_thresh(instance_similarities: Sequence[float], patch_similarities: Sequence[Tensor]) -> GuidanceThresholds:
    """Returns the threshold, to three decimals: the usual one, or the one above which 40 % of the patches lie.

    It is lowered until all but a tenth of the instances keep a quarter of their patches, and lies between `LOWEST`
    and `HIGHEST`. `patch_similarities`: one entry for each image, of the patches around its references.
    """
    around = torch.cat(list(patch_similarities))
    # Where references fill all their images, nothing speaks for a higher threshold.
    of_patches = float(around.quantile(1 - _SHARE_PROMPTED)) if len(around) else USUAL
    # Without a reference in these images, which are not all, nothing speaks for a lower threshold.
    of_instances = float(np.quantile(instance_similarities or [HIGHEST], _INSTANCES_LOST))
    thresh = min(max(min(max(USUAL, of_patches), of_instances), LOWEST), HIGHEST)
    return GuidanceThresholds.row(
        thresh=round(thresh, 3),
        instance_similarity=of_instances,
        patch_similarity=of_patches,
        num_images=len(patch_similarities),
    )


def _inside(mask_HW: npt.NDArray[np.bool_], side: int) -> Tensor:
    """Returns which patches lie in a mask by more than half, or by most where none does; bool [P]."""
    share_P = F.adaptive_avg_pool2d(torch.from_numpy(mask_HW.astype(np.float32))[None], side).flatten()
    return share_P > min(0.5, float(share_P.max()) * 0.999)
