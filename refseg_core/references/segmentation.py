"""Step 2: turns boxes of references into masks, and points likewise, with the segmenter. Method, section 2."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.errors import UnusableReferenceError
from refseg_core.masks.contours import outer_polygons
from refseg_core.masks.rle import Masks, decode_mask, rle_from_polygons
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import ImageEmbedding, Segmenter
from refseg_core.references.validation import check_box, check_points
from refseg_core.settings import Conventions

VERSION = 1  # of masks made from boxes

logger = logging.getLogger(__name__)

_TRIANGLE = 6  # coordinates


@torch.inference_mode()
def segment_boxes(
    segmenter: Segmenter,
    image_HW3: npt.NDArray[np.uint8],
    boxes_N4: npt.NDArray[np.float64],
    *,
    conventions: Conventions = "corrected",
) -> tuple[Masks, npt.NDArray[np.float32]]:
    """Segments what each box holds.

    Each box is decoded alone, so that no mask depends on the others.

    `image_HW3`: RGB. `boxes_N4`: xyxy in the image's own frame, px. Returns boolean masks [N, H, W] in that frame and
    predicted IoUs [N] in [0, 1]. Where the segmenter finds nothing the mask is the box itself, with predicted IoU 0.
    `conventions` "original" makes each mask again from the polygons around it, as the published code does: holes are
    filled, it ends a pixel earlier to the right and below, and parts too small for a polygon count as nothing.
    Raises UnusableReferenceError for a box that is not finite, has no area or misses the image.
    """
    height, width = image_HW3.shape[:2]
    for box_xyxy in boxes_N4:
        check_box(box_xyxy, height, width)
    embedding, scale = _embed(segmenter, image_HW3)
    prompts = torch.from_numpy((boxes_N4 * np.tile(scale, 2)).astype(np.float32)).to(segmenter.device)
    logits, predicted_iou = zip(*(segmenter.decode_boxes(embedding, box[None]) for box in prompts), strict=True)
    masks_NHW = _upsampled(torch.cat(logits), height, width)
    scores_N = torch.cat(predicted_iou).cpu().numpy().astype(np.float32)
    if conventions == "original":
        return _through_polygons(masks_NHW, scores_N, boxes_N4)
    for row in np.flatnonzero(~masks_NHW.any(axis=(1, 2))):
        masks_NHW[row] = _filled_box(boxes_N4[row], height, width)
        scores_N[row] = 0
    return masks_NHW, scores_N


@torch.inference_mode()
def segment_points(
    segmenter: Segmenter, image_HW3: npt.NDArray[np.uint8], points_K2: npt.NDArray[np.float64]
) -> tuple[Masks, float]:
    """Segments the one instance that all points (x, y) lie on; frames as in `segment_boxes`.

    Returns its boolean mask [H, W] and predicted IoU. Raises UnusableReferenceError where a point lies outside of the
    image or the segmenter finds nothing.
    """
    check_points(points_K2, *image_HW3.shape[:2])
    return PromptedImage(segmenter, image_HW3).at_points(points_K2)


class PromptedImage:
    """An image that is embedded once, and that masks are then asked of one after the other."""

    @torch.inference_mode()
    def __init__(self, segmenter: Segmenter, image_HW3: npt.NDArray[np.uint8]) -> None:
        self._segmenter, self._size = segmenter, image_HW3.shape[:2]
        self._embedding, self._scale = _embed(segmenter, image_HW3)

    @torch.inference_mode()
    def at_points(self, points_K2: npt.NDArray[np.float64]) -> tuple[Masks, float]:
        """Segments the one instance that all points lie on, as `segment_points` does."""
        check_points(points_K2, *self._size)
        prompts = torch.from_numpy((points_K2 * self._scale).astype(np.float32)).to(self._segmenter.device)
        logits_GG, predicted_iou = self._segmenter.decode_clicks(self._embedding, prompts)
        (mask_HW,) = _upsampled(logits_GG[None], *self._size)
        if not mask_HW.any():
            raise UnusableReferenceError(
                f"The segmenter finds nothing at the points {points_K2.tolist()}. Give others, or a box or mask."
            )
        return mask_HW, float(predicted_iou)

    @torch.inference_mode()
    def in_box(self, box_xyxy: npt.NDArray[np.float64]) -> tuple[Masks, float]:
        """Segments what a box [4] holds; where nothing is found the mask is the box, with predicted IoU 0."""
        check_box(box_xyxy, *self._size)
        prompts = torch.from_numpy((box_xyxy * np.tile(self._scale, 2)).astype(np.float32)[None])
        logits_1GG, predicted_iou_1 = self._segmenter.decode_boxes(self._embedding, prompts.to(self._segmenter.device))
        (mask_HW,) = _upsampled(logits_1GG, *self._size)
        if not mask_HW.any():
            return _filled_box(box_xyxy, *self._size), 0.0
        return mask_HW, float(predicted_iou_1[0])


def _embed(segmenter: Segmenter, image_HW3: npt.NDArray[np.uint8]) -> tuple[ImageEmbedding, npt.NDArray[np.float64]]:
    """Returns the embedding, and the factors (x, y) from the image's frame to the segmenter's."""
    height, width = image_HW3.shape[:2]
    side = segmenter.architecture.image_size
    frame = to_unit_range(resize_to_square(image_HW3, side))[None].to(segmenter.device)
    return segmenter.embed(frame), np.array([side / width, side / height])


def _upsampled(logits_NGG: Tensor, height: int, width: int) -> Masks:
    upsampled = F.interpolate(logits_NGG[:, None], size=(height, width), mode="bilinear", align_corners=False)
    return (upsampled[:, 0] > 0).cpu().numpy()


def _filled_box(box_xyxy: npt.NDArray[np.float64], height: int, width: int) -> Masks:
    left, top = np.floor(box_xyxy[:2]).astype(int).clip(0)
    right, bottom = np.ceil(box_xyxy[2:]).astype(int).clip(0)
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def _through_polygons(
    masks_NHW: Masks, scores_N: npt.NDArray[np.float32], boxes_N4: npt.NDArray[np.float64]
) -> tuple[Masks, npt.NDArray[np.float32]]:
    masks, scores = np.empty_like(masks_NHW), scores_N.copy()
    height, width = masks_NHW.shape[1:]
    for row, box_xyxy in enumerate(boxes_N4):
        polygons = _polygons(masks_NHW[row], box_xyxy)
        if not polygons:
            left, top, right, bottom = box_xyxy.clip(0, [width, height] * 2).tolist()
            polygons, scores[row] = [[left, top, right, top, right, bottom, left, bottom]], 0
        masks[row] = decode_mask(rle_from_polygons(polygons, height, width))
    return masks, scores


def _polygons(mask_HW: Masks, box_xyxy: npt.NDArray[np.float64]) -> Sequence[Sequence[float]]:
    outlines = outer_polygons(mask_HW)
    polygons = [outline for outline in outlines if len(outline) >= _TRIANGLE]
    if len(polygons) < len(outlines):
        logger.warning(
            "Of the mask in the box %s (x1, y1, x2, y2 in px), %d of %d parts are dropped: their outlines have fewer "
            "than three points.%s",
            box_xyxy.tolist(),
            len(outlines) - len(polygons),
            len(outlines),
            "" if polygons else " The box itself becomes the mask.",
        )
    return polygons
