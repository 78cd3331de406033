"""From curves to metrics: what COCO's and LVIS's numbers have in common.

A protocol says what is compared and which numbers are read off all categories together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refseg_core.evaluation.curves import Curves
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.matching import CategoryMatches, match
from refseg_core.evaluation.overlaps import GroundTruth, Predictions
from refseg_core.tables import Categories, Metrics

_AREAS = {"small": "s", "medium": "m", "large": "l"}

Numbers = Iterator[tuple[str, float]]


class Row(NamedTuple):
    """A row of the table of metrics."""

    iou_type: str
    metric: str
    category_id: int | None
    category_name: str | None
    num_instances: int
    value: float


def metrics_of(rows: Iterable[Row]) -> Metrics:
    """Returns the rows as a table."""
    columns = list(zip(*rows, strict=True))
    if not columns:
        return Metrics.empty()
    return Metrics(**{name: np.array(values, dtype=object) for name, values in zip(Row._fields, columns, strict=True)})


@dataclass(frozen=True)
class InstanceComparison:
    """What a protocol compared: its matches by IoU type, and the numbers it reads off all categories together.

    `categories` are by ascending id; masks are left out if there are annotations and none has a mask. `additional`
    numbers come from no curve of COCO's.
    """

    instances: Instances
    categories: Categories
    max_detections: Sequence[int]
    matches: Mapping[str, list[CategoryMatches]]
    overall: Callable[[Curves], Numbers]
    additional: tuple[Row, ...] = ()


def compare(
    instances: Instances,
    categories: Categories,
    max_detections: Sequence[int],
    *,
    compared: Callable[[str], tuple[GroundTruth, Predictions]],
    overall: Callable[[Curves], Numbers],
) -> InstanceComparison:
    """Matches what is `compared` by an IoU type, for boxes and masks; `max_detections` ascends."""
    instances.warn_of_other_sizes()
    iou_types = ("bbox", "segm") if instances.have_masks else ("bbox",)
    matches = {kind: match(*compared(kind), categories.category_id.tolist(), max_detections[-1]) for kind in iou_types}
    return InstanceComparison(instances, categories, max_detections, matches, overall)


def summarize(comparison: InstanceComparison) -> Metrics:
    """Returns the metrics: of each IoU type those of all categories, then of each."""
    instances = comparison.instances
    rows: list[Row] = []
    for iou_type, matches in comparison.matches.items():
        curves = Curves.of(matches, comparison.max_detections)
        numbers = comparison.overall(curves)
        rows += [Row(iou_type, name, None, None, instances.num_instances, value) for name, value in numbers]
        rows += _category_rows(iou_type, curves, comparison.categories, instances)
    return metrics_of([*rows, *comparison.additional])


def average_precisions(curves: Curves) -> Numbers:
    """AP, at two thresholds, and of small, medium and large instances."""
    yield "AP", curves.average_precision()
    yield from ((f"AP{percent}", curves.average_precision(percent=percent)) for percent in (50, 75))
    yield from ((f"AP{letter}", curves.average_precision(area=area)) for area, letter in _AREAS.items())


def average_recalls(curves: Curves) -> Numbers:
    """AR at each limit of detections, and of small, medium and large instances."""
    limits = enumerate(curves.max_detections)
    yield from ((f"AR{limit}", curves.average_recall(limit=index)) for index, limit in limits)
    yield from ((f"AR{letter}", curves.average_recall(area=area)) for area, letter in _AREAS.items())


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
