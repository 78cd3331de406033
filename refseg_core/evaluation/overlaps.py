"""Boxes or masks of annotations and detections, and the intersection over union of the two.

Columns of one length, G annotations or D detections. Only pairs that can match are kept, so that no table of all pairs
exists. Not here: which of them a protocol counts (`instances.py`), and which detection gets which annotation
(`matching.py`).
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import mask_ious

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Shapes = npt.NDArray[Any]  # box_xywh [N, 4], or Rle [N] as objects


@dataclass(frozen=True, eq=False)
class _Columns:
    """What both have; `image` is the image's place in COCO's order."""

    category_id: Rows
    image: Rows
    area: Floats
    shape: Shapes

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: slice | Rows | Bools) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


@dataclass(frozen=True, eq=False)
class GroundTruth(_Columns):
    """Annotations [G]."""

    is_crowd: Bools


@dataclass(frozen=True, eq=False)
class Predictions(_Columns):
    """Detections [D]."""

    score: npt.NDArray[np.float32]


_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


class Overlaps(NamedTuple):
    """Pairs [P] of a detection and an annotation, by their rows, ascending."""

    found: Rows
    true: Rows
    iou: Floats

    def take(self, pairs: slice | Rows) -> "Overlaps":
        """Returns some of the pairs."""
        return Overlaps(self.found[pairs], self.true[pairs], self.iou[pairs])


def overlaps(truth: GroundTruth, found: Predictions, least: float) -> Overlaps:
    """Returns the pairs of one image with an IoU of at least `least`; both are of one category, by ascending image."""
    parts = [Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for here_found, here_true in _shared_images(found.image, truth.image):
        sides = found.shape[here_found], truth.shape[here_true], truth.is_crowd[here_true]
        ious = mask_ious(*(side.tolist() for side in sides)) if found.shape.dtype == object else box_ious(*sides)
        rows, columns = np.nonzero(ious >= least)
        parts.append(Overlaps(rows + here_found.start, columns + here_true.start, ious[rows, columns]))
    found_rows, true_rows, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Overlaps(found_rows, true_rows, iou)


def box_ious(found_xywh: Floats, true_xywh: Floats, is_crowd: Bools) -> Floats:
    """Returns IoU [D, G] of boxes [D, 4] and [G, 4], to the last digit as pycocotools computes it.

    Over a crowd it is the part of the detection that lies within.
    """
    found_DG, true_DG = found_xywh[:, None], true_xywh[None]
    corner = np.maximum(found_DG[..., :2], true_DG[..., :2])
    sides = np.minimum(found_DG[..., 2:] + found_DG[..., :2], true_DG[..., 2:] + true_DG[..., :2]) - corner
    shared = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0)
    found_area, true_area = (boxes[..., 2] * boxes[..., 3] for boxes in (found_DG, true_DG))
    either = np.where(is_crowd, found_area, found_area + true_area - shared)
    return np.divide(shared, either, out=np.zeros_like(shared), where=shared > 0)


def _shared_images(found_image: Rows, true_image: Rows) -> Iterator[tuple[slice, slice]]:
    """Yields the rows of detections and of annotations, for each image that has both."""
    both = np.intersect1d(found_image, true_image)
    edges = [np.searchsorted(image, both, side).tolist() for image in (found_image, true_image) for side in _SIDES]
    for found_start, found_stop, true_start, true_stop in zip(*edges, strict=True):
        yield slice(found_start, found_stop), slice(true_start, true_stop)
