"""Right, wrong and missed at chosen scores: what labels are worth to somebody who keeps those of a score and above.

IoU is 0.5 and areas are all, by the same matching as AP's.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.matches import Matches
from refseg_core.evaluation.metric_rows import NO_VALUE, Row
from refseg_core.tables import Categories

NUMBERS = ("precision", "recall", "TP", "FP", "FN")


def score_rows(
    iou_type: str, matches: Sequence[Matches], categories: Categories, score_threshes: Sequence[float]
) -> Iterator[Row]:
    """At each score the numbers of all categories together, then of each; `precision@0.5` is a metric's name."""
    for thresh in score_threshes:
        counts_K3 = np.array([_counts(of_category, thresh) for of_category in matches]).reshape(-1, 3)
        yield from _rows(iou_type, thresh, (None, None), counts_K3.sum(axis=0))
        for named, counts in zip(
            zip(categories.category_id.tolist(), categories.name, strict=True), counts_K3, strict=True
        ):
            yield from _rows(iou_type, thresh, named, counts)


def _counts(matches: Matches, thresh: float) -> tuple[int, int, int]:
    """How many detections are right and wrong, and how many annotations are missed."""
    is_kept = matches.score >= thresh
    right, wrong = (int((is_kept & outcome).sum()) for outcome in (matches.is_right, matches.is_wrong))
    return right, wrong, len(matches.wanted_image) - right


def _rows(
    iou_type: str, thresh: float, named: tuple[int | None, str | None], counts: npt.NDArray[np.int64]
) -> Iterator[Row]:
    right, wrong, missed = counts.tolist()
    values = (_share(right, right + wrong), _share(right, right + missed), right, wrong, missed)
    for name, value in zip(NUMBERS, values, strict=True):
        yield Row(iou_type, f"{name}@{thresh:g}", *named, right + missed, float(value))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else NO_VALUE
