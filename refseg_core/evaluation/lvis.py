"""LVIS's numbers, to the last digit those of its authors' package: COCO's comparison of fewer detections.

LVIS's images are annotated for some categories only. A detection counts where its category is annotated in the image
or known to be absent from it; where not every instance is annotated, one that matches nothing may still be right.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

import numpy as np

from refseg_core.evaluation.curves import Curves, Record, Records
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.summary import Numbers, average_precisions, average_recalls, summarize
from refseg_core.settings import Conventions
from refseg_core.tables import Annotations, Categories, Detections, FederatedLabels, Images, Metrics

_MAX_DETECTIONS = 300
_FREQUENCIES = ("r", "c", "f")


def evaluate_lvis(
    images: Images,
    annotations: Annotations,
    categories: Categories,
    detections: Detections,
    federated_labels: FederatedLabels,
    *,
    conventions: Conventions = "corrected",
) -> Metrics:
    """LVIS's thirteen numbers over the given categories, and AP, AP50 and AR300 of each; for boxes and masks.

    An image's best 300 detections count, over all categories. There are no crowds, and what has no area is left out.
    APr, APc and APf are AP over the rare, common and frequent categories; all else is as in `evaluate_coco`.
    """
    categories = categories[np.argsort(categories.category_id)]
    annotations = annotations[annotations.area > 0]
    annotations = annotations.replace(is_crowd=np.zeros(len(annotations), dtype=bool))
    instances = Instances.select(images, annotations, categories, _best_of_images(detections))
    labels = _Labels.of(instances, federated_labels)
    return summarize(
        instances,
        categories,
        [_MAX_DETECTIONS],
        records_of=lambda iou_type: _FederatedRecords(instances, iou_type, conventions, labels),
        overall=lambda curves: _overall(curves, categories),
    )


def _overall(curves: Curves, categories: Categories) -> Numbers:
    frequencies = {
        f"AP{frequency}": curves.average_precision(which=categories.frequency == frequency)
        for frequency in _FREQUENCIES
    }
    yield from chain(average_precisions(curves), frequencies.items(), average_recalls(curves))


def _best_of_images(detections: Detections) -> Detections:
    """The best of each image, in their given order; of equal scores the first."""
    _, image = np.unique(detections.image_id, return_inverse=True)
    order = np.lexsort((-detections.score, image))
    first = np.searchsorted(image[order], image[order])
    rank = np.arange(len(order)) - first
    return detections[np.sort(order[rank < _MAX_DETECTIONS])]


class _Labels(NamedTuple):
    """By category the places of the images it is absent from, and of those where not all of it is annotated."""

    negative: Mapping[int, set[int]]
    not_exhaustive: Mapping[int, set[int]]

    @classmethod
    def of(cls, instances: Instances, labels: FederatedLabels) -> "_Labels":
        """The labels of the images that count."""
        place_of = {image_id: place for place, image_id in enumerate(instances.image_ids, start=1)}
        by_kind = {kind: defaultdict[int, set[int]](set) for kind in cls._fields}
        for image_id, category_id, kind in zip(labels.image_id, labels.category_id.tolist(), labels.kind, strict=True):
            if image_id in place_of:
                by_kind[kind][category_id].add(place_of[image_id])
        return cls(**by_kind)


class _FederatedRecords(Records):
    """COCO's dictionaries of what may count."""

    def __init__(self, instances: Instances, iou_type: str, conventions: Conventions, labels: _Labels) -> None:
        super().__init__(instances, iou_type, conventions)
        self._labels = labels

    def of_category(self, category_id: int) -> tuple[list[Record], list[Record]]:
        """The category's annotations, and its detections in images where it is annotated or known to be absent."""
        ground_truth, detections = super().of_category(category_id)
        known = {record["image_id"] for record in ground_truth} | self._labels.negative.get(category_id, set())
        counted = [record for record in detections if record["image_id"] in known and record["area"] > 0]
        for record in counted:
            if record["image_id"] in self._labels.not_exhaustive.get(category_id, ()):
                # Out of every range: COCO ignores it where it matches nothing, and else does not ask.
                record["area"] = np.inf
        return ground_truth, counted
