"""Step 2: turns the boxes of references into masks, with the segmenter's box prompts. Method, section 2."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from refseg_core.masks import Masks
from refseg_core.pixels import squash, to_unit_range
from refseg_core.segmenter import Segmenter


@torch.inference_mode()
def segment_boxes(
    segmenter: Segmenter, image_HW3: npt.NDArray[np.uint8], boxes_N4: npt.NDArray[np.float64]
) -> tuple[Masks, npt.NDArray[np.float32]]:
    """Segments what each box holds.

    `image_HW3`: RGB. `boxes_N4`: xyxy in the image's own frame, px. Returns boolean masks [N, H, W] in that frame and
    predicted IoUs [N] in [0, 1]. Where the segmenter finds nothing the mask is the box itself, with predicted IoU 0.
    """
    height, width = image_HW3.shape[:2]
    side = segmenter.architecture.image_size
    frame = to_unit_range(squash(image_HW3, side))[None].to(segmenter.device)
    scale = np.array([side / width, side / height] * 2)
    prompts = torch.from_numpy((boxes_N4 * scale).astype(np.float32)).to(segmenter.device)
    logits_NGG, predicted_iou_N = segmenter.decode_boxes(segmenter.embed(frame), prompts)
    upsampled = F.interpolate(logits_NGG[:, None], size=(height, width), mode="bilinear", align_corners=False)
    masks_NHW = (upsampled[:, 0] > 0).cpu().numpy()
    scores_N = predicted_iou_N.cpu().numpy().astype(np.float32)
    for row in np.flatnonzero(~masks_NHW.any(axis=(1, 2))):
        masks_NHW[row] = _filled_box(boxes_N4[row], height, width)
        scores_N[row] = 0
    return masks_NHW, scores_N


def _filled_box(box_xyxy: npt.NDArray[np.float64], height: int, width: int) -> Masks:
    left, top = np.floor(box_xyxy[:2]).astype(int).clip(0)
    right, bottom = np.ceil(box_xyxy[2:]).astype(int).clip(0)
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask
