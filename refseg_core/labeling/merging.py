"""Step 5c: drops duplicates, brings masks to the original frame, lowers scores of overlapping ones. Method, 6.5 to 6.7.

Shapes: N masks, G logits side, H x W original frame (px).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.upsampling import can_upsample, resized, upsample_packed

VERSION = 1  # of detections' order, scores and masks

_SUPPRESSED_AT_ONCE = 64  # candidates whose boxes are compared with all that are left


@dataclass(frozen=True)
class Merged:
    """What is left after merging, by falling score.

    row int64 [n], into the candidates; score float32 [n] in (0, 1]; masks of the original frame.
    """

    row_n: Tensor
    score_n: Tensor
    masks: PackedMasks


def non_maximum_suppression(
    boxes_N4: Tensor, predicted_iou_N: Tensor, class_index_N: Tensor, *, box_nms_thresh: float
) -> Tensor:
    """Suppresses greedily within each class, best predicted IoU first (quirk Q4); returns int64 rows in that order.

    Boxes are inclusive extents, their area (x_max - x_min) * (y_max - y_min), so a mask one pixel wide has none and
    is never suppressed. Equal predicted IoUs keep their order.
    """
    order = predicted_iou_N.argsort(descending=True, stable=True)
    rows = torch.cat((boxes_N4, class_index_N[:, None]), dim=1)[order].cpu().numpy()  # synchronizes with a GPU once
    boxes, classes = rows[:, :4].astype(np.float32), rows[:, 4]
    kept = [part for members in _groups(classes) for part in _not_suppressed(boxes, members, box_nms_thresh)]
    row_n = np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)
    return order[torch.from_numpy(row_n).to(order.device)]


def _not_suppressed(
    boxes_N4: npt.NDArray[np.float32], members: npt.NDArray[np.int64], thresh: float
) -> Iterator[npt.NDArray[np.int64]]:
    """Yields the rows of one class that no better one suppresses: some of the best first, then of those left."""
    while len(members):
        best, members = members[:_SUPPRESSED_AT_ONCE], members[_SUPPRESSED_AT_ONCE:]
        overlaps_nn = _box_iou(boxes_N4[best], boxes_N4[best]) > thresh
        keep = np.ones(len(best), dtype=bool)
        for row in range(len(best)):
            if keep[row]:
                keep[row + 1 :] &= ~overlaps_nn[row, row + 1 :]
        best = best[keep]
        yield best
        members = members[~(_box_iou(boxes_N4[best], boxes_N4[members]) > thresh).any(axis=0)]


def merge_softly(
    masks: PackedMasks,
    similarity_N: Tensor,
    class_index_N: Tensor,
    descriptor_NC: Tensor,
    *,
    max_detections: int,
) -> Merged:
    """Lowers the scores of overlapping candidates, whose masks are of the original frame, and keeps the best.

    The candidates come by falling predicted IoU; each is lowered by those of its class before it:
    score = similarity * sqrt(1 - max_j |Mi and Mj| / |Mi| * max(0, cos(xi, xj))). A mask that is empty in the
    original frame is dropped.
    """
    area_N = masks.areas()
    penalty_N = torch.zeros_like(similarity_N)
    for members in _groups(class_index_N.cpu().numpy()):
        if len(members) > 1:
            rows = torch.from_numpy(members).to(similarity_N.device)
            penalty_N[rows] = _overlap_penalty(masks[rows], area_N[rows], descriptor_NC[rows])
    score_N = similarity_N * torch.sqrt((1 - penalty_N).clamp_min(0))
    present = torch.nonzero((area_N > 0) & (score_N > 0))[:, 0]
    best = score_N[present].argsort(descending=True, stable=True)[:max_detections]
    row_n = present[best]
    return Merged(row_n, score_N[row_n], masks[row_n])


def merge_plainly(
    logits_NGG: Tensor,
    similarity_N: Tensor,
    class_index_N: Tensor,
    descriptor_NC: Tensor,
    *,
    size: tuple[int, int],
    max_detections: int,
) -> Merged:
    """Returns what `merge_softly` returns, computed as published, with every mask in floats (path `plain`).

    `size`: (height, width) of the original frame, px, to which masks are brought.
    """
    masks_NHW = resized(logits_NGG[:, None], size)[:, 0] > 0
    score_N = similarity_N.clone()
    for class_index in class_index_N.unique():
        rows = torch.nonzero(class_index_N == class_index)[:, 0]
        pixels_nX = masks_NHW[rows].flatten(1).to(torch.float32)
        covered_nn = (pixels_nX @ pixels_nX.T) / pixels_nX.sum(dim=1, keepdim=True).clamp_min(1)
        likeness_nn = (descriptor_NC[rows] @ descriptor_NC[rows].T).clamp_min(0)
        overlap_n = (covered_nn * likeness_nn).tril(diagonal=-1).amax(dim=1)
        score_N[rows] *= torch.sqrt((1 - overlap_n).clamp_min(0))
    present = torch.nonzero(masks_NHW.flatten(1).any(dim=1) & (score_N > 0))[:, 0]
    row_n = present[score_N[present].argsort(descending=True, stable=True)[:max_detections]]
    return Merged(row_n, score_N[row_n], PackedMasks.of(masks_NHW[row_n]))


def upsample(logits_NGG: Tensor, size: tuple[int, int], pixels_at_once: int) -> PackedMasks:
    """Brings logits to the original frame, (height, width) px, and binarizes them at 0.

    `pixels_at_once`: held in float32 on the way there, where all pixels have to be.
    """
    if logits_NGG.device.type != "cpu" or not can_upsample(logits_NGG.shape[-1], size):
        return upsample_whole(logits_NGG, size, pixels_at_once)
    logits = logits_NGG.numpy()
    return upsample_packed(
        PackedMasks.of(logits_NGG > 0),
        lambda mask, row, column: logits[mask, row, column],
        size,
        lambda rows: upsample_whole(logits_NGG[torch.from_numpy(rows)], size, pixels_at_once),
    )


def upsample_whole(logits_NGG: Tensor, size: tuple[int, int], pixels_at_once: int) -> PackedMasks:
    """Returns what `upsample` returns, computed by resizing every cell of every mask."""
    chunk = max(1, pixels_at_once // (size[0] * size[1]))
    parts = [PackedMasks.of(resized(part[:, None], size)[:, 0] > 0) for part in logits_NGG.split(chunk)]
    return PackedMasks.concatenate(parts)


def _groups(classes: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yields the rows of each class, in order."""
    order = classes.argsort(kind="stable")
    starts = np.flatnonzero(np.diff(classes[order])) + 1
    yield from (group for group in np.split(order, starts) if len(group))


def _box_iou(boxes_n4: npt.NDArray[np.float32], others_N4: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the IoU of each two boxes, [n, N]."""
    x_min, y_min, x_max, y_max = boxes_n4.T[..., None]
    other_x_min, other_y_min, other_x_max, other_y_max = others_N4.T
    width_nN = (np.minimum(x_max, other_x_max) - np.maximum(x_min, other_x_min)).clip(0)
    height_nN = (np.minimum(y_max, other_y_max) - np.maximum(y_min, other_y_min)).clip(0)
    intersection_nN = width_nN * height_nN
    areas_N = (other_x_max - other_x_min) * (other_y_max - other_y_min)
    union_nN = (x_max - x_min) * (y_max - y_min) + areas_N - intersection_nN
    iou_nN: npt.NDArray[np.float32] = np.zeros_like(intersection_nN)
    np.divide(intersection_nN, union_nN, out=iou_nN, where=union_nN > 0)
    return iou_nN


def _overlap_penalty(masks: PackedMasks, area_N: Tensor, descriptor_NC: Tensor) -> Tensor:
    """Returns for each mask of one class its largest overlap with one before it, float32 [N]."""
    likeness_NN = (descriptor_NC @ descriptor_NC.T).clamp_min(0)
    covered_NN = (masks.shared_areas() / area_N.clamp_min(1)[:, None]).to(torch.float32)
    return (covered_NN * likeness_NN).tril(diagonal=-1).amax(dim=1)
