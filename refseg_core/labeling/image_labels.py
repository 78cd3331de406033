"""What labeling an image begins with and ends with. What the models do in between is not here."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from refseg_core.labeling.guidance import Guide
from refseg_core.labeling.proposal_source import PromptCounts
from refseg_core.masks.bitmasks import PackedMasks, extents
from refseg_core.masks.cleanup import clean_masks
from refseg_core.masks.rle import mask_areas, rle_boxes
from refseg_core.masks.rle_encoding import encode_packed
from refseg_core.settings.areas import AreaLimits
from refseg_core.tables import CategorySimilarities, Detections


class ImageLabels(NamedTuple):
    """An image's instances, by falling score, and what was computed for them.

    `num_proposals`: masks to choose from. `num_prompts`: points that the segmenter was prompted with. `max_similarity`:
    the largest cosine of any patch with any prototype, in [-1, 1]. `similarities`: the categories worth a prompt.
    """

    detections: Detections
    num_proposals: int
    num_prompts: int
    max_similarity: float
    similarities: CategorySimilarities


@dataclass(frozen=True)
class ImageFrame:
    """An RGB image in the segmenter frame, uint8 [S, S, 3], and its own (height, width).

    image_HW3: the image in its own frame, uint8; None where nothing is cut from it, since images wait and may be large.
    """

    pixels_SS3: npt.NDArray[np.uint8]
    size: tuple[int, int]
    image_HW3: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Finish:
    """What is done to the masks of an image at the end: small islands and holes, px, and those of a wrong size go.

    `is_refined`: whether masks have been decoded again since suppression, which may make two of a category the same.
    """

    min_island: int = 0
    min_hole: int = 0
    limits: AreaLimits | None = None
    is_refined: bool = False

    @property
    def is_cleaning(self) -> bool:
        """Whether it may change masks."""
        return max(self.min_island, self.min_hole) > 1


@dataclass(frozen=True)
class FoundInstances:
    """An image's instances on the models' device; `labels` makes a table of them, in any thread."""

    masks: PackedMasks
    score_n: Tensor
    category_id_n: npt.NDArray[np.int64]
    predicted_iou_n: Tensor
    num_proposals: int
    prompts: PromptCounts
    guide: Guide
    known_id_K: npt.NDArray[np.int64]
    """The ids of all categories that were looked for."""
    finish: Finish = Finish()

    def labels(self, image_id: str) -> ImageLabels:
        """Returns the instances with boxes and masks in the image's own frame, pixels."""
        detections = self._finished(self._detections(image_id))
        max_similarity = float(self.guide.similarity_K.max())
        similarities = self._similarities(image_id)
        return ImageLabels(detections, self.num_proposals, self.prompts.points, max_similarity, similarities)

    def _detections(self, image_id: str) -> Detections:
        columns_NWB = self.masks.columns_NWB.cpu().numpy()
        boxes = extents(columns_NWB).astype(np.float64)
        boxes[:, 2:] += 1  # from inclusive pixel extents to the edges of the last pixels
        rles = encode_packed(columns_NWB, self.masks.height)
        return Detections(
            image_id=np.full(len(boxes), image_id, dtype=object),
            category_id=self.category_id_n,
            score=self.score_n.cpu().numpy(),
            predicted_iou=self.predicted_iou_n.cpu().numpy(),
            box_xyxy=boxes,
            mask_rle=np.fromiter(rles, dtype=object, count=len(boxes)),
        )

    def _finished(self, detections: Detections) -> Detections:
        if self.finish.is_cleaning:
            rles = clean_masks(
                detections.mask_rle.tolist(), min_island=self.finish.min_island, min_hole=self.finish.min_hole
            )
            masks = np.fromiter(rles, dtype=object, count=len(rles))
            detections = replace(detections, mask_rle=masks, box_xyxy=rle_boxes(rles))
        if self.finish.is_refined or self.finish.is_cleaning:
            detections = detections[detections.unrepeated()]
        if self.finish.limits is None:
            return detections
        class_index_n = (detections.category_id[:, None] == self.known_id_K).argmax(axis=1)
        area_n = mask_areas(detections.mask_rle.tolist()).astype(np.float64)
        num_pixels = self.masks.height * self.masks.columns_NWB.shape[1]
        return detections[self.finish.limits.fit(area_n, class_index_n, image_pixels=num_pixels)]

    def _similarities(self, image_id: str) -> CategorySimilarities:
        class_index_k = self.guide.class_index_k.cpu().numpy()
        return CategorySimilarities(
            image_id=np.full(len(class_index_k), image_id, dtype=object),
            category_id=self.known_id_K[class_index_k],
            similarity=self.guide.similarity_K.cpu().numpy()[class_index_k],
        )
