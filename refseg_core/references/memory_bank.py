"""Step 3: encodes references into the memory bank. Method, sections 3.2, 3.3, 4 and 5.

One vector per reference is kept, the mask-weighted mean of its patch features: all that prototypes need, a
thousandth of the features' size. Published is one view of a reference, a large crop. Masks are compared as they appear
in the whole image and, at a second look, in a small crop; `encode_views` sees the reference in these ways, too.

Shapes: H, W reference image (px), E encoder frame side (px), g patch grid side, P = g * g patches, C channels.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.errors import UnusableReferenceError
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import Encoder
from refseg_core.references.validation import check_box, check_mask
from refseg_core.settings.labeling_methods import SMALL_GRID

VERSION = 1  # of crops and of what is kept of their features
VIEWS_VERSION = 1  # of the mean over views

_NO_LENGTH = 1e-12
_LEAST_WEIGHT = 0.5  # patches; a view in which a mask has less says nothing


class Crop(NamedTuple):
    """A reference in the encoder frame: image float32 [3, E, E] in [0, 1], soft mask float32 [E, E] in [0, 1]."""

    image_3EE: Tensor
    mask_EE: Tensor


@dataclass(frozen=True)
class EncodedReference:
    """What the bank keeps of a reference: its feature float32 [C] and the mask's weight, in patches."""

    feature_C: npt.NDArray[np.float32]
    foreground_weight: float


def crop_reference(
    image_HW3: npt.NDArray[np.uint8],
    mask_HW: npt.NDArray[np.bool_],
    box_xyxy: npt.NDArray[np.float64],
    *,
    context_ratio: float,
    size: int,
) -> Crop:
    """Cuts a square around the box, `context_ratio` larger than its longer side, and stretches it to `size`.

    Boxes and masks are in the original frame. At a border the square is cut, not shifted (quirks Q10, Q11).
    Raises UnusableReferenceError where box or mask covers nothing of the image, or the square none of the mask.
    """
    height, width = image_HW3.shape[:2]
    check_box(box_xyxy, height, width)
    check_mask(mask_HW, height, width)
    x1, y1, x2, y2 = (int(corner) for corner in box_xyxy)
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    half = max(x2 - x1, y2 - y1) * (1 + context_ratio) / 2
    left, right = max(0, int(center_x - half)), min(width, int(center_x + half))
    top, bottom = max(0, int(center_y - half)), min(height, int(center_y + half))
    if not mask_HW[top:bottom, left:right].any():
        raise UnusableReferenceError(
            f"The reference's box {box_xyxy.tolist()} holds no pixel of its mask. Give the box around the mask."
        )
    image = to_unit_range(image_HW3[top:bottom, left:right])
    mask = torch.from_numpy(mask_HW[top:bottom, left:right].astype(np.float32))
    frame = (size, size)
    return Crop(
        F.interpolate(image[None], size=frame, mode="bicubic", align_corners=False)[0],
        F.interpolate(mask[None, None], size=frame, mode="bilinear", align_corners=False)[0, 0],
    )


def patch_weights(mask_EE: Tensor, grid_size: int) -> Tensor:
    """Returns the mask at each patch's top-left pixel (quirk Q9); float32 [..., E, E] -> [..., P]."""
    stride = mask_EE.shape[-1] // grid_size
    return mask_EE[..., ::stride, ::stride].flatten(-2)


def encode_references(encoder: Encoder, crops: list[Crop]) -> list[EncodedReference]:
    """Encodes crops as one batch. A mask that vanishes on the patch grid has weight 0 and a feature of zeros."""
    images = torch.stack([crop.image_3EE for crop in crops]).to(encoder.device)
    masks = torch.stack([crop.mask_EE for crop in crops]).to(encoder.device)
    weights_RP = patch_weights(masks, encoder.architecture.grid_size)
    features_RPC = encoder(images)
    sums_R = weights_RP.sum(dim=1)
    means_RC = torch.einsum("rp,rpc->rc", weights_RP, features_RPC) / sums_R.clamp_min(1e-12)[:, None]
    return [
        EncodedReference(feature, float(weight))
        for feature, weight in zip(means_RC.cpu().numpy(), sums_R.cpu().numpy(), strict=True)
    ]


def encode_views(
    encoder: Encoder, references: list[EncodedReference], crops: list[Crop], in_image: list[Tensor | None]
) -> list[EncodedReference]:
    """Returns the references with the mean of three views: as encoded, in a small crop, and in the whole image.

    `in_image`: what `pool` gives of the features of the image that each lies in. A view in which the mask vanishes is
    left out.
    """
    small_RPC = encoder(torch.stack([_small(crop.image_3EE, encoder) for crop in crops]), grid_size=SMALL_GRID)
    views = [
        (torch.from_numpy(reference.feature_C), pool(features_PC, crop.mask_EE), whole_C)
        for reference, features_PC, crop, whole_C in zip(references, small_RPC, crops, in_image, strict=True)
    ]
    means = [torch.stack([view.cpu() for view in seen if view is not None]).mean(dim=0).numpy() for seen in views]
    return [replace(reference, feature_C=mean) for reference, mean in zip(references, means, strict=True)]


@torch.inference_mode()
def encode_image(encoder: Encoder, image_HW3: npt.NDArray[np.uint8]) -> Tensor:
    """Returns the patch features of a whole image, float32 [P, C]."""
    frame = to_unit_range(resize_to_square(image_HW3, encoder.architecture.image_size))
    return encoder(frame[None].to(encoder.device))[0]


def pool(features_PC: Tensor, mask_HW: Tensor) -> Tensor | None:
    """Returns the mean feature [C] of patches, each as much as it is inside a mask; None where hardly any is.

    `mask_HW`: bool, or float32 in [0, 1], of any size: it covers the same square as the patches.
    """
    side = round(len(features_PC) ** 0.5)
    weights_P = F.adaptive_avg_pool2d(mask_HW[None].float(), side).flatten().to(features_PC.device)
    total = weights_P.sum()
    return weights_P @ features_PC / total if total >= _LEAST_WEIGHT else None


def similarities(
    features_PC: Tensor, mask_HW: npt.NDArray[np.bool_], references_MC: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64] | None:
    """Returns the cosine [M] of what a mask holds of an image's features with each of M references of a bank.

    None where the mask has too little of any patch.
    """
    pooled_C = pool(features_PC, torch.from_numpy(mask_HW))
    if pooled_C is None:
        return None
    own_C, others_MC = pooled_C.double().cpu().numpy(), references_MC.astype(np.float64)
    lengths_M = np.linalg.norm(own_C) * np.linalg.norm(others_MC, axis=1)
    cosine_M: npt.NDArray[np.float64] = others_MC @ own_C / np.maximum(lengths_M, _NO_LENGTH)
    return cosine_M


def _small(image_3EE: Tensor, encoder: Encoder) -> Tensor:
    side = encoder.architecture.image_size * SMALL_GRID // encoder.architecture.grid_size
    small = F.interpolate(image_3EE[None], size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    return small[0].to(encoder.device)
