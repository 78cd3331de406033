"""COCO's numbers: boxes and masks, all images and categories alike."""

from collections.abc import Iterator

import numpy as np

from refseg_core.evaluation.curves import Curves, Records
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.rows import Row, metrics_of
from refseg_core.settings import Conventions
from refseg_core.tables import Annotations, Categories, Detections, Images, Metrics

AREAS = {"small": "s", "medium": "m", "large": "l"}


def evaluate(
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
    if len(set(max_detections)) != len(max_detections) or min(max_detections) < 1:
        raise ValueError(f"max_detections needs three different limits of at least 1, got {max_detections}")
    categories = categories[np.argsort(categories.category_id)]
    instances = Instances.select(images, annotations, categories, detections)
    instances.warn_of_other_sizes()
    rows: list[Row] = []
    for iou_type in ("bbox", "segm") if instances.have_masks else ("bbox",):
        records = Records(instances, iou_type, conventions)
        curves = Curves.of(records, categories, iou_type, sorted(max_detections))
        rows += [Row(iou_type, name, None, None, instances.num_instances, value) for name, value in _overall(curves)]
        rows += category_rows(iou_type, curves, categories, instances)
    return metrics_of(rows)


def _overall(curves: Curves) -> Iterator[tuple[str, float]]:
    """COCO's twelve numbers in its order."""
    yield "AP", curves.average_precision()
    for percent in (50, 75):
        yield f"AP{percent}", curves.average_precision(percent=percent)
    for area, letter in AREAS.items():
        yield f"AP{letter}", curves.average_precision(area=area)
    for index, limit in enumerate(curves.params.maxDets):
        yield f"AR{limit}", curves.average_recall(limit=index)
    for area, letter in AREAS.items():
        yield f"AR{letter}", curves.average_recall(area=area)


def category_rows(iou_type: str, curves: Curves, categories: Categories, instances: Instances) -> Iterator[Row]:
    """AP, AP50 and AR of each category."""
    for index, category_id in enumerate(categories.category_id.tolist()):
        numbers = {
            "AP": curves.average_precision(which=index),
            "AP50": curves.average_precision(percent=50, which=index),
            f"AR{curves.params.maxDets[-1]}": curves.average_recall(which=index),
        }
        num_instances = instances.num_of(category_id)
        for metric, value in numbers.items():
            yield Row(iou_type, metric, category_id, categories.name[index], num_instances, value)
