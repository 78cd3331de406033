"""LVIS's numbers, to the last digit those of its authors' package: COCO's comparison of fewer detections.

LVIS's images are annotated for some categories only. A detection counts where its category is annotated in the image
or known to be absent from it; where not every instance is annotated, one that matches nothing may still be right.
"""

from dataclasses import replace
from itertools import chain

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.curves import Curves
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.overlaps import Bools, GroundTruth, Predictions, Rows
from refseg_core.evaluation.summary import (
    InstanceComparison,
    Numbers,
    average_precisions,
    average_recalls,
    compare,
)
from refseg_core.settings import Conventions
from refseg_core.tables import Categories, Detections, FederatedLabels

_MAX_DETECTIONS = 300
_FREQUENCIES = ("r", "c", "f")


def compare_lvis(
    truth: Dataset, detections: Detections, *, conventions: Conventions = "corrected"
) -> InstanceComparison:
    """Compares for LVIS's thirteen numbers over the given categories, and AP, AP50 and AR300 of each.

    An image's best 300 detections count, over all categories. There are no crowds, and what has no area is left out.
    APr, APc and APf are AP over the rare, common and frequent categories; all else is as in `compare_coco`.
    """
    labels = truth.federated_labels or FederatedLabels.empty()
    categories = truth.categories[np.argsort(truth.categories.category_id)]
    annotations = truth.annotations[truth.annotations.area > 0]
    annotations = annotations.replace(is_crowd=np.zeros(len(annotations), dtype=bool))
    instances = Instances.select(truth.images, annotations, categories, _best_of_images(detections))
    return compare(
        instances,
        categories,
        [_MAX_DETECTIONS],
        compared=lambda iou_type: _counted(instances, iou_type, conventions, labels),
        overall=lambda curves: _overall(curves, categories),
    )


def _overall(curves: Curves, categories: Categories) -> Numbers:
    frequencies = {
        f"AP{frequency}": curves.average_precision(which=categories.frequency == frequency)
        for frequency in _FREQUENCIES
    }
    yield from chain(average_precisions(curves), frequencies.items(), average_recalls(curves))


def _best_of_images(detections: Detections) -> Detections:
    """Returns the best of each image, in their given order; of equal scores the first."""
    _, image = np.unique(detections.image_id, return_inverse=True)
    order = np.lexsort((-detections.score, image))
    rank = np.arange(len(order)) - np.searchsorted(image[order], image[order])
    return detections[np.sort(order[rank < _MAX_DETECTIONS])]


def _counted(
    instances: Instances, iou_type: str, conventions: Conventions, labels: FederatedLabels
) -> tuple[GroundTruth, Predictions]:
    """Returns the annotations, and the detections in images where their category is annotated or known to be absent."""
    truth, found = instances.ground_truth(iou_type), instances.predictions(iou_type, conventions)
    is_annotated = _is_among(found, truth.category_id, truth.image)
    found = found[(is_annotated | _is_labeled(found, instances, labels, "negative")) & (found.area > 0)]
    # Out of every range, so that what matches nothing is ignored; of what matches the area does not count.
    is_partly_annotated = _is_labeled(found, instances, labels, "not_exhaustive")
    return truth, replace(found, area=np.where(is_partly_annotated, np.inf, found.area))


def _is_labeled(found: Predictions, instances: Instances, labels: FederatedLabels, kind: str) -> Bools:
    """Returns whether the detections' images say this of their categories."""
    labels = labels[labels.kind == kind]
    return _is_among(found, labels.category_id, instances.places(labels.image_id))


def _is_among(found: Predictions, category_id: Rows, image: Rows) -> Bools:
    """Returns whether the detections' categories and images are a pair of those."""
    ids, category = np.unique(np.concatenate([found.category_id, category_id]), return_inverse=True)
    pairs = category + len(ids) * np.concatenate([found.image, image])
    return np.isin(pairs[: len(found)], pairs[len(found) :])
