"""What is compared: the annotations and detections that count, and where their images stand.

Images have a place, from 1, in COCO's order. Not here: the comparison itself.
"""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.errors import counted
from refseg_core.evaluation.overlaps import GroundTruth, Predictions, Rows
from refseg_core.masks.rle import Rle, mask_areas, rle_from_polygons
from refseg_core.settings import Conventions
from refseg_core.tables import Annotations, Categories, Detections, Images

logger = logging.getLogger(__name__)

_NAMED_IN_WARNINGS = 5

Sizes = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Instances:
    """The annotations and detections that count, and for each the place of its image.

    `image_ids` are in COCO's order; `sizes` are (height, width) by place, where they are known.
    """

    image_ids: npt.NDArray[np.object_]
    annotations: Annotations
    detections: Detections
    annotation_image: Rows
    detection_image: Rows
    sizes: Sizes

    @classmethod
    def select(
        cls, images: Images, annotations: Annotations, categories: Categories, detections: Detections
    ) -> "Instances":
        """Keeps what lies in the images and belongs to the categories."""
        # Ascending ids, as numbers if all are, else as text: detections of equal score rank in this order.
        ids = images.image_id.tolist()
        keys = [int(image_id) for image_id in ids] if images.has_integer_id.all() else ids
        images = images[np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)]
        annotation_image, detection_image = (
            _places(images.image_id, table.image_id) for table in (annotations, detections)
        )
        counts = (annotation_image > 0) & np.isin(annotations.category_id, categories.category_id)
        found = (detection_image > 0) & np.isin(detections.category_id, categories.category_id)
        annotations, annotation_image = annotations[counts], annotation_image[counts]
        detections, detection_image = detections[found], detection_image[found]
        sizes = _mask_sizes(detections, detection_image) | _mask_sizes(annotations, annotation_image)
        declared = zip(images.height.tolist(), images.width.tolist(), strict=True)
        sizes |= {place: size for place, size in enumerate(declared, start=1) if all(size)}
        return cls(images.image_id, annotations, detections, annotation_image, detection_image, sizes)

    @property
    def have_masks(self) -> bool:
        """Whether masks can be compared."""
        return not len(self.annotations) or bool(self.annotations.has_mask.any())

    @property
    def num_instances(self) -> int:
        """All annotations, without crowds."""
        return int((~self.annotations.is_crowd).sum())

    def num_of(self, category_id: int) -> int:
        """Returns the category's annotations, without crowds."""
        return int(((self.annotations.category_id == category_id) & ~self.annotations.is_crowd).sum())

    def places(self, image_id: npt.NDArray[np.object_]) -> Rows:
        """Where images stand; 0 for those that do not count."""
        return _places(self.image_ids, image_id)

    def ground_truth(self, iou_type: str) -> GroundTruth:
        """Returns the annotations, in their order."""
        table = self.annotations
        shape: npt.NDArray[np.generic] = table.box_xywh
        if iou_type == "segm":
            shape = table.mask_rle.copy()
            for row in range(len(shape)):
                shape[row] = self.true_mask(row)
        return GroundTruth(table.category_id, self.annotation_image, table.area, shape, table.is_crowd)

    def predictions(self, iou_type: str, conventions: Conventions) -> Predictions:
        """Returns the detections, in their order, with areas as the conventions have them."""
        table = self.detections
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
        return Predictions(table.category_id, self.detection_image, area, shape, table.score)

    def true_mask(self, row: int) -> Rle:
        """Returns an annotation's mask; where it has none, its box as one."""
        mask: Rle | None = self.annotations.mask_rle[row]
        if mask is not None:
            return mask
        return _filled(self.annotations.box_xywh[row], self.sizes.get(int(self.annotation_image[row]), (0, 0)))

    def warn_of_other_sizes(self) -> None:
        """COCO silently takes masks of different sizes for disjoint."""
        found = zip(self.detection_image.tolist(), self.detections.mask_rle, strict=True)
        differing = sorted({place for place, mask in found if self.sizes[place] != mask.size})
        if differing:
            shown = ", ".join(self.image_ids[place - 1] for place in differing[:_NAMED_IN_WARNINGS])
            logger.warning(
                "%s labeled at another size than the annotations declare, so that nothing is sure to match there: "
                "%s%s. Check that width and height in the annotations are those of the image files.",
                counted(len(differing), "image"),
                shown,
                ", ..." if len(differing) > _NAMED_IN_WARNINGS else "",
            )


def _places(image_ids: npt.NDArray[np.object_], image_id: npt.NDArray[np.object_]) -> Rows:
    place_of = {image_id: place for place, image_id in enumerate(image_ids.tolist(), start=1)}
    return np.fromiter((place_of.get(one, 0) for one in image_id), dtype=np.int64, count=len(image_id))


def _mask_sizes(table: Annotations | Detections, image_places: Rows) -> Sizes:
    masks = zip(image_places.tolist(), table.mask_rle, strict=True)
    return {place: mask.size for place, mask in masks if mask is not None}


def _filled(box_xywh: npt.NDArray[np.float64], size: tuple[int, int]) -> Rle:
    """Returns the box as a mask; of any size where the image's is unknown, since nothing is compared with it then."""
    left, top, width, height = box_xywh.tolist()
    corners = [left, top, left, top + height, left + width, top + height, left + width, top]
    rows, columns = size if all(size) else (1, 1)
    return rle_from_polygons([corners], rows, columns)
