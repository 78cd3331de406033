"""Masks and their run-length encoding: the only door to `pycocotools.mask`.

Shapes: N masks, H x W pixels of the original frame. Everything is plain arrays in, plain arrays out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Masks = npt.NDArray[np.bool_]

_AREAS_AT_ONCE = 255
_MAX_CHUNKS = 7  # characters of one run length; 7 hold 35 bits


class Rle(NamedTuple):
    """One mask as COCO's compressed run lengths: `size` is (height, width), `counts` the ASCII string."""

    size: tuple[int, int]
    counts: str

    def to_coco(self) -> dict[str, Any]:
        """Returns the mask as COCO's json writes it."""
        return {"size": list(self.size), "counts": self.counts}


def encode_masks(masks_NHW: Masks) -> list[Rle]:
    """Encodes boolean masks [N, H, W]."""
    if len(masks_NHW) == 0:
        return []
    columns_first = np.ascontiguousarray(masks_NHW.view(np.uint8).transpose(0, 2, 1))
    return [_to_rle(rle) for rle in coco_mask.encode(columns_first.transpose(2, 1, 0))]


def decode_masks(rles: Sequence[Rle]) -> Masks:
    """Decodes run lengths of one size into boolean masks [N, H, W]. `rles` must not be empty."""
    stacked_HWN = coco_mask.decode([rle.to_coco() for rle in rles])
    return np.ascontiguousarray(stacked_HWN.transpose(2, 0, 1)).astype(bool)


def decode_mask(rle: Rle) -> Masks:
    """Decodes one mask [H, W]."""
    return np.asarray(coco_mask.decode(rle.to_coco()), dtype=bool)


def mask_areas(rles: Sequence[Rle]) -> npt.NDArray[np.int64]:
    """Pixel counts [N]."""
    # By 255: of more at once, pycocotools 2.0.11 raises OverflowError on NumPy 2.
    parts = (rles[start : start + _AREAS_AT_ONCE] for start in range(0, len(rles), _AREAS_AT_ONCE))
    areas = [coco_mask.area([rle.to_coco() for rle in part]) for part in parts]
    return np.concatenate([np.zeros(0), *areas]).astype(np.int64)


def rle_boxes(rles: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """Boxes (x1, y1, x2, y2) [N, 4] around masks, along pixel edges; zeros where a mask is empty."""
    if not rles:
        return np.zeros((0, 4))
    boxes = np.asarray(coco_mask.toBbox([rle.to_coco() for rle in rles]), dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def mask_ious(
    first: Sequence[Rle], second: Sequence[Rle], is_crowd: Sequence[bool] | None = None
) -> npt.NDArray[np.float64]:
    """Intersection over union of every pair [len(first), len(second)].

    Where one of the second is a crowd, it is the part of the first that lies within. Masks of different sizes have -1
    if their boxes overlap.
    """
    if not first or not second:
        return np.zeros((len(first), len(second)))
    crowd = [False] * len(second) if is_crowd is None else is_crowd
    return np.asarray(coco_mask.iou([r.to_coco() for r in first], [r.to_coco() for r in second], crowd))


def rle_from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """Rasterizes the polygons of one instance, [x0, y0, x1, y1, ...] each, as COCO does."""
    return _to_rle(coco_mask.merge(coco_mask.frPyObjects([list(p) for p in polygons], height, width)))


def rle_from_counts(counts: Sequence[int], height: int, width: int) -> Rle:
    """Compresses COCO's uncompressed run lengths (column-major, starting with background)."""
    return _to_rle(coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width))


def rle_of_part(part_HW: Masks, *, top: int, left: int, height: int, width: int) -> Rle:
    """Encodes a mask that covers a part of an image of height x width; what lies outside the image is cut off.

    Only the part is ever held, however large the image.
    """
    columns, rows = np.nonzero(part_HW.T)
    # However far away a part lies, these are places beyond the image.
    columns, rows = columns + max(min(left, width), -part_HW.shape[1]), rows + max(min(top, height), -part_HW.shape[0])
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    positions = (columns * np.int64(height) + rows)[inside]
    breaks = np.flatnonzero(np.diff(positions) != 1)
    firsts = positions[np.concatenate([[0], breaks + 1])] if len(positions) else positions
    lasts = positions[np.concatenate([breaks, [-1]])] if len(positions) else positions
    edges = np.stack([firsts, lasts + 1], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return rle_from_counts(counts[: len(counts) - (counts[-1] == 0)].tolist(), height, width)


def run_lengths(counts: str) -> npt.NDArray[np.int64]:
    """Reads COCO's compressed run lengths. Raises ValueError if the string is damaged.

    Each length is written in characters of 5 bits, lowest first, with a sixth bit where more follow and the last
    character's highest bit as the sign; from the fourth length on, as the difference to the last but one.
    """
    chunks = np.frombuffer(counts.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if not chunks.size or (chunks >> 6).any() or chunks[-1] & 32:
        raise ValueError("the string is empty, cut off or has other characters than those of run lengths")
    last = np.flatnonzero((chunks & 32) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    num_chunks = last - first + 1
    if num_chunks.max() > _MAX_CHUNKS:
        raise ValueError("a run length is longer than any image")
    place = np.arange(len(chunks)) - np.repeat(first, num_chunks)
    lengths: npt.NDArray[np.int64] = np.add.reduceat((chunks & 31) << (5 * place), first)
    negative = (chunks[last] & 16) != 0
    lengths[negative] -= np.int64(1) << (5 * num_chunks[negative])
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def union_of(rles: Sequence[Rle]) -> Rle:
    """Returns the pixels that are in any of the masks, which have one size. `rles` must not be empty."""
    return _to_rle(coco_mask.merge([rle.to_coco() for rle in rles]))


def boxes_of_masks(masks_NHW: Masks) -> npt.NDArray[np.int64]:
    """Inclusive pixel extents (x_min, y_min, x_max, y_max) [N, 4]; zeros where a mask is empty."""
    boxes = np.zeros((len(masks_NHW), 4), dtype=np.int64)
    for first, last, axis in ((0, 2, 1), (1, 3, 2)):
        occupied: Masks = np.any(masks_NHW, axis=axis)
        length = occupied.shape[1]
        boxes[:, first] = occupied.argmax(axis=1)
        boxes[:, last] = length - 1 - occupied[:, ::-1].argmax(axis=1)
    boxes[~masks_NHW.any(axis=(1, 2))] = 0
    return boxes


def _to_rle(rle: dict[str, Any]) -> Rle:
    height, width = rle["size"]
    return Rle((int(height), int(width)), rle["counts"].decode("ascii"))
