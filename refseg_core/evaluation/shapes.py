"""What annotations and detections are compared by: boxes or masks, and their areas.

Columns of one length, G annotations or D detections. Not here: which of them a protocol counts, and the comparison.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.instances import Instances, Rows
from refseg_core.evaluation.metric_rows import Floats
from refseg_core.masks.rle import mask_areas
from refseg_core.settings import Conventions

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
class Truth(_Columns):
    """Annotations [G]."""

    is_crowd: Bools

    @classmethod
    def of(cls, instances: Instances, iou_type: str) -> "Truth":
        """The annotations, in their order."""
        table = instances.annotations
        shape = instances.true_masks() if iou_type == "segm" else table.box_xywh
        return cls(table.category_id, instances.annotation_image, table.area, shape, table.is_crowd)


@dataclass(frozen=True, eq=False)
class Found(_Columns):
    """Detections [D]."""

    score: npt.NDArray[np.float32]

    @classmethod
    def of(cls, instances: Instances, iou_type: str, conventions: Conventions) -> "Found":
        """The detections, in their order, with areas as the conventions have them."""
        table = instances.detections
        box_xywh = table.box_xyxy.copy()
        box_xywh[:, 2:] -= box_xywh[:, :2]
        if conventions == "original":
            box_xywh[:, 2:] -= 1
        of_masks = iou_type == "segm"
        if of_masks and conventions == "corrected":
            area = mask_areas(table.mask_rle.tolist()).astype(np.float64)
        else:
            area = box_xywh[:, 2] * box_xywh[:, 3]
        shape = table.mask_rle if of_masks else box_xywh
        return cls(table.category_id, instances.detection_image, area, shape, table.score)
