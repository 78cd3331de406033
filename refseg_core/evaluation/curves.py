"""COCO's precision and recall, to the last digit those of `pycocotools.cocoeval.COCOeval`.

Matching and counting never cross categories, so they are done for one category at a time: neither COCOeval's images x
categories x areas table (0.4 billion entries for LVIS's validation set) nor a Python object per detection exists.

Shapes: T IoU thresholds, R recall points, K categories, A area ranges, M limits of detections per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.assignment import AREA_RANGES, IOU_THRESHES, assign
from refseg_core.evaluation.instances import Rows
from refseg_core.evaluation.rows import NO_VALUE, Floats, known_mean
from refseg_core.evaluation.shapes import Bools, Found, Truth
from refseg_core.tables import Categories

Which = slice | int | npt.NDArray[np.bool_]

_ALL = slice(None)
_RECALL_POINTS: Floats = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Curves:
    """COCO's precision [T, R, K, A, M] and recall [T, K, A, M], -1 where there is no ground truth."""

    max_detections: Sequence[int]
    precision: Floats
    recall: Floats

    @classmethod
    def of(cls, truth: Truth, found: Found, categories: Categories, max_detections: Sequence[int]) -> "Curves":
        """The curves of the categories, in their order; `max_detections` ascends."""
        truth = truth[np.lexsort((truth.image, truth.category_id))]
        found, rank = _best(found, max_detections[-1])
        shape = (len(categories), len(AREA_RANGES), len(max_detections))
        precision = np.full((len(IOU_THRESHES), len(_RECALL_POINTS), *shape), NO_VALUE)
        recall = np.full((len(IOU_THRESHES), *shape), NO_VALUE)
        for index, category_id in enumerate(categories.category_id.tolist()):
            true_rows, found_rows = (_rows_of(category_id, side.category_id) for side in (truth, found))
            _trace(
                truth[true_rows],
                found[found_rows],
                [rank[found_rows] < limit for limit in max_detections],
                precision[:, :, index],
                recall[:, index],
            )
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


def _best(found: Found, limit: int) -> tuple[Found, Rows]:
    """The best of each category and image, with their ranks: by category, image, falling score and given order."""
    found = found[np.lexsort((-found.score, found.image, found.category_id))]
    is_first = np.ones(len(found), dtype=bool)
    is_first[1:] = (np.diff(found.category_id) != 0) | (np.diff(found.image) != 0)
    row = np.arange(len(found))
    rank = row - np.maximum.accumulate(np.where(is_first, row, 0))
    return found[rank < limit], rank[rank < limit]


def _rows_of(category_id: int, category_ids: Rows) -> slice:
    """Where the category stands among ascending ids."""
    start, stop = (int(np.searchsorted(category_ids, category_id, side)) for side in ("left", "right"))
    return slice(start, stop)


def _trace(truth: Truth, found: Found, within: list[Bools], precision_TRAM: Floats, recall_TAM: Floats) -> None:
    """Writes the curves of one category, whose detections are `within` each limit or not."""
    if not len(truth):
        return
    outcomes = assign(truth, found)
    order = np.argsort(-found.score, kind="stable")
    for limit, is_within in enumerate(within):
        kept = order[is_within[order]]
        for area in np.flatnonzero(outcomes.num_wanted).tolist():
            outcome = outcomes.is_right[area][:, kept], outcomes.is_wrong[area][:, kept]
            precision_TRAM[:, :, area, limit], recall_TAM[:, area, limit] = _curve(*outcome, outcomes.num_wanted[area])


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
    return best_from[np.searchsorted(num_right / num_wanted, _RECALL_POINTS)]
