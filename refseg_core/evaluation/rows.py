"""The evaluation's numbers as rows of the table of metrics, and that table as text.

Not here: where the numbers come from.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.tables import Metrics

NO_VALUE = -1.0  # COCO's number for "no ground truth"

Floats = npt.NDArray[np.float64]


class Row(NamedTuple):
    """A row of the table of metrics."""

    iou_type: str
    metric: str
    category_id: int | None
    category_name: str | None
    num_instances: int
    value: float


def metrics_of(rows: Iterable[Row]) -> Metrics:
    """The rows as a table."""
    columns = list(zip(*rows, strict=True))
    if not columns:
        return Metrics.empty()
    named = zip(Row._fields, columns, strict=True)
    return Metrics(**{name: np.array(values, dtype=object) for name, values in named})


def known_mean(values: Floats) -> float:
    """COCO's mean: over what has ground truth."""
    known = values[values > NO_VALUE]
    return float(np.mean(known)) if len(known) else NO_VALUE


def metrics_table(metrics: Metrics) -> list[tuple[str, ...]]:
    """The overall numbers as text, header first: one row per metric, one column per IoU type."""
    overall = metrics[np.array([category is None for category in metrics.category_id], dtype=bool)]
    return _as_text("", overall.metric, overall.iou_type, overall.value)


def category_table(metrics: Metrics) -> list[tuple[str, ...]]:
    """The numbers per category as text, header first: name, instances, then one column per IoU type and metric."""
    of_category = metrics[np.array([category is not None for category in metrics.category_id], dtype=bool)]
    columns = [f"{kind} {name}" for kind, name in zip(of_category.iou_type, of_category.metric, strict=True)]
    counts = dict(zip(of_category.category_name, of_category.num_instances, strict=True))
    header, *rows = _as_text("category", of_category.category_name, columns, of_category.value)
    return [
        (header[0], "instances", *header[1:]),
        *((name, str(counts[name]), *values) for name, *values in rows),
    ]


def _as_text(
    corner: str, row_names: Iterable[str], column_names: Iterable[str], values: Floats
) -> list[tuple[str, ...]]:
    cells = dict(zip(zip(row_names, column_names, strict=True), values.tolist(), strict=True))
    columns = list(dict.fromkeys(column_names))
    texts = {cell: f"{value:.3f}" if value != NO_VALUE else "-" for cell, value in cells.items()}
    lines = ((row, *(texts.get((row, column), "") for column in columns)) for row in dict.fromkeys(row_names))
    return [(corner, *columns), *lines]
