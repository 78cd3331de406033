"""COCO's numbers: boxes and masks, all images and categories alike."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.summary import InstanceComparison, average_precisions, average_recalls, compare, summarize
from refseg_core.settings import Conventions
from refseg_core.tables import Annotations, Categories, Detections, Images, Metrics


def evaluate_coco(
    images: Images,
    annotations: Annotations,
    categories: Categories,
    detections: Detections,
    *,
    max_detections: tuple[int, int, int] = (1, 10, 100),
    conventions: Conventions = "corrected",
) -> Metrics:
    """COCO's twelve numbers over the given categories, and AP, AP50 and AR of each; for boxes and masks.

    All given images count, also those without ground truth; they are taken by ascending id, as COCO does, whatever
    their order here. Annotations and detections of other images or categories are left out; crowds are regions
    where detections do not count. Detections of equal score count in their given order.

    `max_detections`: limits per image and category, ascending; AP and the last AR use the largest. AR is named by
    the limit (AR1, AR10, AR100).
    `conventions`: "corrected" measures detections by their boxes for bbox and by their masks for segm. "original"
    repeats the published code: boxes one pixel smaller in width and height, which also give the area by which
    detections of masks fall into small, medium and large.

    Masks are left out if there are annotations and none has a mask; where only some have none, their box is their
    mask. Without ground truth every number is -1, COCO's sign for it.
    """
    limits = sorted(max_detections)
    return summarize(
        compare_coco(images, annotations, categories, detections, max_detections=limits, conventions=conventions)
    )


def compare_coco(
    images: Images,
    annotations: Annotations,
    categories: Categories,
    detections: Detections,
    *,
    max_detections: Sequence[int] = (1, 10, 100),
    conventions: Conventions = "corrected",
) -> InstanceComparison:
    """What `evaluate_coco` reads its numbers off; `max_detections` ascends."""
    if len(set(max_detections)) != len(max_detections) or min(max_detections) < 1:
        raise ValueError(f"max_detections needs three different limits of at least 1, got {max_detections}")
    categories = categories[np.argsort(categories.category_id)]
    instances = Instances.select(images, annotations, categories, detections)
    return compare(
        instances,
        categories,
        max_detections,
        compared=lambda iou_type: (instances.ground_truth(iou_type), instances.predictions(iou_type, conventions)),
        overall=lambda curves: chain(average_precisions(curves), average_recalls(curves)),
    )
