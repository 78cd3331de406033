"""Step 3: encodes references into the memory bank. Method, sections 3.2, 3.3, 4 and 5.

One vector per reference is kept, the mask-weighted mean of its patch features: all that prototypes need, a
thousandth of the features' size.

Shapes: H, W reference image (px), E encoder frame side (px), g patch grid side, P = g * g patches, C channels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.errors import UnusableReferenceError
from refseg_core.models.preprocessing import to_unit_range
from refseg_core.models.protocols import Encoder
from refseg_core.references.validation import check_box, check_mask

VERSION = 1  # of crops and of what is kept of their features


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
