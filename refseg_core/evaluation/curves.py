"""COCO's precision and recall, to the last digit those of `pycocotools.cocoeval.COCOeval`.

Shapes: T IoU thresholds, R recall points, K categories, A area ranges, M limits of detections per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.matching import AREA_RANGES, IOU_THRESHES, CategoryMatches
from refseg_core.evaluation.overlaps import Bools, Floats

Which = slice | int | npt.NDArray[np.bool_]

NO_VALUE = -1.0  # COCO's number for "no ground truth"
_ALL = slice(None)
RECALL_POINTS: Floats = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Curves:
    """COCO's precision [T, R, K, A, M] and recall [T, K, A, M], -1 where there is no ground truth."""

    max_detections: Sequence[int]
    precision: Floats
    recall: Floats

    @classmethod
    def of(cls, matches: Sequence[CategoryMatches], max_detections: Sequence[int]) -> "Curves":
        """Returns the curves of the categories, in their order; `max_detections` ascends."""
        shape = (len(matches), len(AREA_RANGES), len(max_detections))
        precision = np.full((len(IOU_THRESHES), len(RECALL_POINTS), *shape), NO_VALUE)
        recall = np.full((len(IOU_THRESHES), *shape), NO_VALUE)
        for index, of_category in enumerate(matches):
            _trace(of_category, max_detections, precision[:, :, index], recall[:, index])
        return cls(max_detections, precision, recall)

    def average_precision(self, *, percent: int | None = None, which: Which = _ALL, area: str = "all") -> float:
        """AP at the largest limit of detections: over all IoU thresholds or at one, of `which` categories."""
        ious = _ALL if percent is None else np.isclose(IOU_THRESHES, percent / 100)
        return known_mean(self.precision[:, :, which, _range_index(area), -1][ious])

    def average_recall(self, *, limit: int = -1, which: Which = _ALL, area: str = "all") -> float:
        """AR at the limit of detections of that index, of `which` categories."""
        return known_mean(self.recall[:, which, _range_index(area), limit])


def _range_index(area: str) -> int:
    return list(AREA_RANGES).index(area)


def _trace(matches: CategoryMatches, max_detections: Sequence[int], precision_TRAM: Floats, recall_TAM: Floats) -> None:
    """Writes the curves of one category."""
    outcomes = matches.outcomes
    order = np.argsort(-matches.score, kind="stable")
    for index, limit in enumerate(max_detections):
        kept = order[matches.rank[order] < limit]
        for area in np.flatnonzero(outcomes.num_wanted).tolist():
            outcome = outcomes.is_right[area][:, kept], outcomes.is_wrong[area][:, kept]
            precision_TRAM[:, :, area, index], recall_TAM[:, area, index] = _curve(*outcome, outcomes.num_wanted[area])


def _curve(is_right_TD: Bools, is_wrong_TD: Bools, num_wanted: int) -> tuple[Floats, Floats]:
    """Precision [T, R] and recall [T] of detections by falling score, of which some are neither right nor wrong."""
    is_counted_TD = is_right_TD | is_wrong_TD
    precision = [_precision(*of_thresh, num_wanted) for of_thresh in zip(is_right_TD, is_counted_TD, strict=True)]
    return np.array(precision), is_right_TD.sum(axis=1) / num_wanted


def _precision(is_right: Bools, is_counted: Bools, num_wanted: int) -> Floats:
    """Precision [R]: at each recall point the best that is reached there or further on, 0 where recall never gets.

    Only right detections [D] are looked at: wrong ones lower precision and leave recall as it is.
    """
    right = np.flatnonzero(is_right)
    num_right = np.arange(1, len(right) + 1)
    precision = num_right / (np.cumsum(is_counted)[right] + np.spacing(1))
    best_from = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return best_from[np.searchsorted(num_right / num_wanted, RECALL_POINTS)]


def known_mean(values: Floats) -> float:
    """Returns COCO's mean: over what has ground truth."""
    known = values[values > NO_VALUE]
    return float(np.mean(known)) if len(known) else NO_VALUE
