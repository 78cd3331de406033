"""From curves to metrics: what COCO's and LVIS's numbers have in common.

A protocol says what is compared and which numbers are read off all categories together.
"""

from collections.abc import Callable, Iterator

from refseg_core.evaluation.curves import Curves
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.rows import Row, metrics_of
from refseg_core.evaluation.shapes import Found, Truth
from refseg_core.tables import Categories, Metrics

_AREAS = {"small": "s", "medium": "m", "large": "l"}

Numbers = Iterator[tuple[str, float]]


def summarize(
    instances: Instances,
    categories: Categories,
    max_detections: list[int],
    *,
    compared: Callable[[str], tuple[Truth, Found]],
    overall: Callable[[Curves], Numbers],
) -> Metrics:
    """The metrics of boxes and masks, from what is `compared` by an IoU type, with the numbers of `overall` first.

    Masks are left out if there are annotations and none has a mask.
    """
    instances.warn_of_other_sizes()
    rows: list[Row] = []
    for iou_type in ("bbox", "segm") if instances.have_masks else ("bbox",):
        curves = Curves.of(*compared(iou_type), categories, max_detections)
        rows += [Row(iou_type, name, None, None, instances.num_instances, value) for name, value in overall(curves)]
        rows += _category_rows(iou_type, curves, categories, instances)
    return metrics_of(rows)


def average_precisions(curves: Curves) -> Numbers:
    """AP, at two thresholds, and of small, medium and large instances."""
    yield "AP", curves.average_precision()
    for percent in (50, 75):
        yield f"AP{percent}", curves.average_precision(percent=percent)
    for area, letter in _AREAS.items():
        yield f"AP{letter}", curves.average_precision(area=area)


def average_recalls(curves: Curves) -> Numbers:
    """AR at each limit of detections, and of small, medium and large instances."""
    for index, limit in enumerate(curves.max_detections):
        yield f"AR{limit}", curves.average_recall(limit=index)
    for area, letter in _AREAS.items():
        yield f"AR{letter}", curves.average_recall(area=area)


def _category_rows(iou_type: str, curves: Curves, categories: Categories, instances: Instances) -> Iterator[Row]:
    """AP, AP50 and AR of each category."""
    for index, category_id in enumerate(categories.category_id.tolist()):
        numbers = {
            "AP": curves.average_precision(which=index),
            "AP50": curves.average_precision(percent=50, which=index),
            f"AR{curves.max_detections[-1]}": curves.average_recall(which=index),
        }
        num_instances = instances.num_of(category_id)
        for metric, value in numbers.items():
            yield Row(iou_type, metric, category_id, categories.name[index], num_instances, value)
