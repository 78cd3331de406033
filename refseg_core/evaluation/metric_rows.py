"""The evaluation's numbers as rows of the table of metrics. Not here: where the numbers come from, and text of them."""

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
