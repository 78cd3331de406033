"""Semantic segmentation's numbers, as for COCO-20i: every pixel of an image has one label, and labels are compared.

Here: painting instances into a map of labels, and IoU per category. Maps [H, W] of one image stand in memory at a time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError, counted
from refseg_core.evaluation.curves import NO_VALUE, known_mean
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.overlaps import Floats, Rows
from refseg_core.evaluation.summary import Row, metrics_of
from refseg_core.masks.rle import Rle, decode_mask
from refseg_core.settings import Conventions
from refseg_core.tables import Annotations, Categories, Detections, Metrics

_IOU_TYPE = "semantic"
_ORIGINAL_NUM_LABELS = 20  # categories of a COCO-20i fold. Method, section 8.1

LabelMap = npt.NDArray[np.int32]


def evaluate_semantic(
    truth: Dataset,
    detections: Detections,
    *,
    score_thresh: float = 0.5,
    conventions: Conventions = "corrected",
) -> Metrics:
    """Returns IoU of each given category over the pixels of all images, and mIoU, their mean.

    Detections of at least `score_thresh` are painted over one another, and so are the annotations in their order,
    without crowds; where no mask lies is background. Where an annotation has no mask its box is it. A category that
    is neither annotated nor found has IoU -1 and is not in the mean.

    `conventions`: "corrected" lets the highest score win where detections overlap, and averages the categories.
    "original" repeats the published code, whose mean says something else: the lowest score wins; a category's label
    is its `class_index`, but labels 0 to 19 are averaged; 0 is the background as well as the first category.

    Raises DatasetError where there are annotations and none has a mask.
    """
    categories = truth.categories[np.argsort(truth.categories.category_id)]
    instances = Instances.select(truth.images, truth.annotations, categories, detections)
    require_masks(instances.annotations)
    instances.warn_of_other_sizes()
    labeling = _Labeling.by(conventions, categories)
    ious = _ious(instances, labeling, score_thresh)
    return metrics_of(_rows(instances, categories, labeling, ious))


def require_masks(annotations: Annotations) -> None:
    """Raises DatasetError where there are annotations and none has a mask."""
    if len(annotations) and not annotations.has_mask.any():
        raise DatasetError(
            f"The semantic evaluation compares masks, and none of {counted(len(annotations), 'annotation')} has one. "
            "Give annotations with segmentation, or set evaluation.protocol to 'auto'."
        )


@dataclass(frozen=True)
class _Labeling:
    """Which label a category's pixels get, which labels are averaged, and which detection wins an overlap."""

    label_of: dict[int, int]
    averaged: range
    best_wins: bool

    @classmethod
    def by(cls, conventions: Conventions, categories: Categories) -> "_Labeling":
        """Label 0 is the background."""
        ids = categories.category_id.tolist()
        if conventions == "original":
            label_of = dict(zip(ids, categories.class_index.tolist(), strict=True))
            return cls(label_of, range(_ORIGINAL_NUM_LABELS), best_wins=False)
        label_of = {category_id: label for label, category_id in enumerate(ids, start=1)}
        return cls(label_of, range(1, len(ids) + 1), best_wins=True)

    @property
    def num_labels(self) -> int:
        """One more than the largest label."""
        return max(self.averaged.stop - 1, 0, *self.label_of.values()) + 1


def _ious(instances: Instances, labeling: _Labeling, score_thresh: float) -> Floats:
    """Returns IoU by label, over all images; -1 where no pixel has the label."""
    shared, either = (np.zeros(labeling.num_labels, dtype=np.int64) for _ in range(2))
    for true, found in _label_maps(instances, labeling, score_thresh):
        num_true, num_found, num_both = (
            np.bincount(labels, minlength=labeling.num_labels) for labels in (true, found, true[true == found])
        )
        shared += num_both
        either += num_true + num_found - num_both
    return np.where(either > 0, shared / np.maximum(either, 1), NO_VALUE)


def _label_maps(instances: Instances, labeling: _Labeling, score_thresh: float) -> Iterator[tuple[LabelMap, LabelMap]]:
    """Yields the true and the found map of each image whose size is known, as one row of pixels."""
    annotations, detections = instances.annotations, instances.detections
    true_rows = _by_image(instances.annotation_image, np.flatnonzero(~annotations.is_crowd))
    painted = np.flatnonzero(detections.score >= score_thresh)
    order = painted[np.argsort(-detections.score[painted], kind="stable")]
    found_rows = _by_image(instances.detection_image, order[::-1] if labeling.best_wins else order)
    for place, size in sorted(instances.sizes.items()):
        true = [
            (instances.true_mask(row), labeling.label_of[int(annotations.category_id[row])])
            for row in true_rows.get(place, ())
        ]
        found = [
            (detections.mask_rle[row], labeling.label_of[int(detections.category_id[row])])
            for row in found_rows.get(place, ())
        ]
        yield _paint(true, size).ravel(order="K"), _paint(found, size).ravel(order="K")


def _by_image(image_places: Rows, rows: Rows) -> dict[int, list[int]]:
    """Returns the rows of each image, in their given order."""
    of_image: dict[int, list[int]] = {}
    for row in rows.tolist():
        of_image.setdefault(int(image_places[row]), []).append(row)
    return of_image


def _paint(instances: Iterable[tuple[Rle, int]], size: tuple[int, int]) -> LabelMap:
    """Masks with their labels, each over those before it; masks of another size lie nowhere."""
    labels = np.zeros(size, dtype=np.int32, order="F")  # as decoded masks lie: a third of the time
    for mask, label in instances:
        if mask.size == size:
            labels[decode_mask(mask)] = label
    return labels


def _rows(instances: Instances, categories: Categories, labeling: _Labeling, ious: Floats) -> Iterator[Row]:
    yield Row(_IOU_TYPE, "mIoU", None, None, instances.num_instances, known_mean(ious[labeling.averaged]))
    for category_id, name in zip(categories.category_id.tolist(), categories.name, strict=True):
        label = labeling.label_of[category_id]
        value = float(ious[label]) if label in labeling.averaged else NO_VALUE
        yield Row(_IOU_TYPE, "IoU", category_id, name, instances.num_of(category_id), value)
