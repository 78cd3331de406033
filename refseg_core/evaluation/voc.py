"""PASCAL VOC's average precision at an IoU of 0.5, as its development kit computes it, in addition to COCO's.

It differs from COCO's AP50: every detection of an image counts, a detection stands or falls with the instance that it
overlaps most, also where a better one has that already, and the area under precision and recall is exact (since 2010)
or the mean of eleven points (2007). Difficult objects, crowds in our tables, excuse detections by their full IoU.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from refseg_core.evaluation.curves import NO_VALUE, known_mean
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.overlaps import Floats, GroundTruth, Predictions, Rows, overlaps
from refseg_core.evaluation.summary import InstanceComparison, Row
from refseg_core.settings import Conventions
from refseg_core.tables import Categories

AREA, ELEVEN_POINTS = "VOC_AP50", "VOC07_AP50"
_LEAST_IOU = 0.5
_ELEVEN = np.arange(11) / 10  # recall


class _Curve(NamedTuple):
    """Precision and recall [D] of a category, after each detection that counts, by falling score."""

    precision: Floats
    recall: Floats

    @property
    def area(self) -> float:
        """Under the highest precision that is reached at a recall or further on."""
        steps = np.diff(self.recall, prepend=0)
        return float((steps * self._best_from[:-1]).sum())

    @property
    def mean_of_eleven(self) -> float:
        """Of that precision at recall 0, 0.1, ..., 1."""
        return float(self._best_from[np.searchsorted(self.recall, _ELEVEN)].mean())

    @property
    def _best_from(self) -> Floats:
        """[D + 1]; the last is of recalls that are never reached."""
        return np.append(np.maximum.accumulate(self.precision[::-1])[::-1], 0)


def with_voc_ap(comparison: InstanceComparison, conventions: Conventions) -> InstanceComparison:
    """Returns COCO's comparison with VOC's two numbers added."""
    instances = comparison.instances
    of_kinds = (
        (kind, instances.ground_truth(kind), instances.predictions(kind, conventions)) for kind in comparison.matches
    )
    rows = chain.from_iterable(_rows(*of_kind, instances, comparison.categories) for of_kind in of_kinds)
    return replace(comparison, additional=tuple(rows))


def _rows(
    iou_type: str, truth: GroundTruth, found: Predictions, instances: Instances, categories: Categories
) -> Iterator[Row]:
    """Both numbers over all categories, the mean of those with instances, then of each."""
    truth, found = truth[np.argsort(truth.image, kind="stable")], found[np.argsort(found.image, kind="stable")]
    ids = categories.category_id.tolist()
    curves = [_curve(truth[truth.category_id == one], found[found.category_id == one]) for one in ids]
    values = {
        AREA: np.array([curve.area if curve else NO_VALUE for curve in curves]),
        ELEVEN_POINTS: np.array([curve.mean_of_eleven if curve else NO_VALUE for curve in curves]),
    }
    for metric, of_categories in values.items():
        yield Row(iou_type, metric, None, None, instances.num_instances, known_mean(of_categories))
        for category_id, name, value in zip(ids, categories.name, of_categories.tolist(), strict=True):
            yield Row(iou_type, metric, category_id, name, instances.num_of(category_id), value)


def _curve(truth: GroundTruth, found: Predictions) -> _Curve | None:
    """Returns the curve of one category, whose rows are by ascending image; None without instances."""
    num_wanted = int((~truth.is_crowd).sum())
    if not num_wanted:
        return None
    order = np.argsort(-found.score, kind="stable")
    taken = _most_overlapped(truth, found)[order]
    is_excused = (taken >= 0) & truth.is_crowd[taken]
    is_first = np.zeros(len(taken), dtype=bool)
    is_first[np.unique(taken, return_index=True)[1]] = True
    is_right = ((taken >= 0) & is_first)[~is_excused]
    num_right = np.cumsum(is_right)
    return _Curve(num_right / np.arange(1, len(is_right) + 1), num_right / num_wanted)


def _most_overlapped(truth: GroundTruth, found: Predictions) -> Rows:
    """Of each detection [D] the annotation with the highest IoU, the first of equals; -1 where none is enough."""
    no_crowds = replace(truth, is_crowd=np.zeros(len(truth), dtype=bool))  # whose overlap would be another
    pairs = overlaps(no_crowds, found, _LEAST_IOU)
    order = np.lexsort((pairs.true, -pairs.iou, pairs.found))
    detection, first = np.unique(pairs.found[order], return_index=True)
    taken = np.full(len(found), -1)
    taken[detection] = pairs.true[order][first]
    return taken
