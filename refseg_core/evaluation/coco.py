"""COCO's numbers: boxes and masks, all images and categories alike."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.summary import InstanceComparison, average_precisions, average_recalls, compare
from refseg_core.settings import Conventions
from refseg_core.tables import Detections


def compare_coco(
    truth: Dataset,
    detections: Detections,
    *,
    max_detections: Sequence[int] = (1, 10, 100),
    conventions: Conventions = "corrected",
) -> InstanceComparison:
    """Compares for COCO's twelve numbers over the given categories, and AP, AP50 and AR of each; for boxes and masks.

    All images of the ground truth count, also those without annotations; they are taken by ascending id, as COCO does,
    whatever their order here. Annotations and detections of other images or categories are left out; crowds are regions
    where detections do not count. Detections of equal score count in their given order.

    `max_detections`: limits per image and category; AP and the last AR use the largest. AR is named by the limit (AR1,
    AR10, AR100).
    `conventions`: "corrected" measures detections by their boxes for bbox and by their masks for segm. "original"
    repeats the published code: boxes one pixel smaller in width and height, which also give the area by which
    detections of masks fall into small, medium and large.

    Masks are left out if there are annotations and none has a mask; where only some have none, their box is their
    mask. Without ground truth every number is -1, COCO's sign for it.
    """
    limits = sorted(set(max_detections))
    if len(limits) != len(max_detections) or limits[0] < 1:
        raise ValueError(f"max_detections needs different limits of at least 1, got {max_detections}")
    categories = truth.categories[np.argsort(truth.categories.category_id)]
    instances = Instances.select(truth.images, truth.annotations, categories, detections)
    return compare(
        instances,
        categories,
        limits,
        compared=lambda iou_type: (instances.ground_truth(iou_type), instances.predictions(iou_type, conventions)),
        overall=lambda curves: chain(average_precisions(curves), average_recalls(curves)),
    )
