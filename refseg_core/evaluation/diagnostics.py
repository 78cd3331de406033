"""What explains a protocol's numbers: how certain they are, and where they come from.

Right, wrong and missed at chosen scores, by the same matching as AP's: IoU is 0.5 and areas are all. Which categories
are taken for which: there a detection may take an annotation of any category, which is not how AP matches. And images
in which nothing was found that is there. Not here: the interval of AP (`bootstrap.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.bootstrap import ap_interval
from refseg_core.evaluation.curves import NO_VALUE
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.matching import IOU_THRESHES, CategoryMatches, by_rank
from refseg_core.evaluation.overlaps import Bools, GroundTruth, Predictions, Rows, overlaps
from refseg_core.evaluation.summary import InstanceComparison, Row, metrics_of, summarize
from refseg_core.settings import Conventions, EvaluationSettings
from refseg_core.table_schema import Table
from refseg_core.tables import Categories, Confusion, Metrics, Misses

INTERVAL = ("AP_low", "AP_high")
_NOVEL = {"AP": "nAP", "AP50": "nAP50"}
_FEWEST_SURE = 500  # images: with as many AP's interval is narrow, and drawing sets takes long


@dataclass(frozen=True)
class Review:
    """The metrics, and tables of what is no number of a category; these are None where only pixels were compared."""

    metrics: Metrics
    confusion: Confusion | None = None
    misses: Misses | None = None

    @property
    def tables(self) -> list[Table]:
        """The tables that there are."""
        return [table for table in (self.metrics, self.confusion, self.misses) if table is not None]


def diagnose(
    comparison: InstanceComparison,
    settings: EvaluationSettings,
    conventions: Conventions,
    *,
    is_novel: bool,
    thresh_of: Callable[[str], float] | None = None,
) -> Review:
    """Returns the protocol's numbers and what explains them.

    `is_novel`: categories are a benchmark's novel ones. `thresh_of`: the categories' own thresholds, by name.
    """
    metrics = summarize(comparison)
    more = [*(_novel_rows(metrics) if is_novel else ()), *_more_rows(comparison, settings)]
    more += own_score_rows(comparison, thresh_of) if thresh_of else ()
    iou_type = list(comparison.matches)[-1]
    threshes = settings.sorted_score_threshes
    return Review(
        Metrics.concatenate([metrics, metrics_of(more)]),
        confusion_of(comparison.instances, comparison.categories, iou_type, threshes, conventions, thresh_of=thresh_of),
        misses_of(comparison.instances, comparison.matches[iou_type], threshes[0]),
    )


def _novel_rows(metrics: Metrics) -> Iterator[Row]:
    """Yields AP over novel categories under its own name."""
    for row in range(len(metrics)):
        if metrics.category_id[row] is None and metrics.metric[row] in _NOVEL:
            name, num_instances = _NOVEL[metrics.metric[row]], int(metrics.num_instances[row])
            yield Row(metrics.iou_type[row], name, None, None, num_instances, float(metrics.value[row]))


def _more_rows(comparison: InstanceComparison, settings: EvaluationSettings) -> Iterator[Row]:
    num_images, num_instances = len(comparison.instances.image_ids), comparison.instances.num_instances
    for iou_type, matches in comparison.matches.items():
        if num_instances and num_images < _FEWEST_SURE:
            for name, value in zip(INTERVAL, ap_interval(matches, num_images), strict=True):
                yield Row(iou_type, name, None, None, num_instances, value)
        yield from score_rows(iou_type, matches, comparison.categories, settings.sorted_score_threshes)


NUMBERS = ("precision", "recall", "TP", "FP", "FN")
OWN = "own"
"""In names such as `precision@own`: at the threshold of the category itself."""


def own_score_rows(comparison: InstanceComparison, thresh_of: Callable[[str], float]) -> Iterator[Row]:
    """Yields the numbers at each category's own threshold, by its name, of all categories and of each.

    Those of `NUMBERS`, F1, and the threshold as `score_thresh`.
    """
    categories = comparison.categories
    thresh_K = _thresholds(categories, thresh_of).tolist()
    for iou_type, matches in comparison.matches.items():
        counts = [_outcome_counts(one, thresh) for one, thresh in zip(matches, thresh_K, strict=True)]
        counts_K3 = np.array(counts).reshape(-1, 3)
        yield from _own_rows(iou_type, (None, None), counts_K3.sum(axis=0))
        names = zip(categories.category_id.tolist(), map(str, categories.name), strict=True)
        for named, of_category in zip(names, counts_K3, strict=True):
            yield from _own_rows(iou_type, named, of_category)
            num_instances = int(of_category[0] + of_category[2])
            yield Row(iou_type, f"score_thresh@{OWN}", *named, num_instances, float(thresh_of(named[1])))


def _thresholds(categories: Categories, thresh_of: Callable[[str], float]) -> npt.NDArray[np.float64]:
    """Returns the categories' thresholds [K], as scores are stored."""
    return np.array([np.float32(thresh_of(str(name))) for name in categories.name], dtype=np.float64)


def _own_rows(iou_type: str, named: tuple[int | None, str | None], counts: Rows) -> Iterator[Row]:
    yield from _count_rows(iou_type, OWN, named, counts)
    right, wrong, missed = counts.tolist()
    yield Row(iou_type, f"F1@{OWN}", *named, right + missed, _share(2 * right, 2 * right + wrong + missed))


def score_rows(
    iou_type: str, matches: Sequence[CategoryMatches], categories: Categories, score_threshes: Sequence[float]
) -> Iterator[Row]:
    """Yields, for each score, the numbers of all categories, then of each, with names such as `precision@0.5`."""
    for thresh in score_threshes:
        counts_K3 = np.array([_outcome_counts(of_category, thresh) for of_category in matches]).reshape(-1, 3)
        yield from _count_rows(iou_type, f"{thresh:g}", (None, None), counts_K3.sum(axis=0))
        for named, counts in zip(
            zip(categories.category_id.tolist(), categories.name, strict=True), counts_K3, strict=True
        ):
            yield from _count_rows(iou_type, f"{thresh:g}", named, counts)


def _outcome_counts(matches: CategoryMatches, thresh: float) -> tuple[int, int, int]:
    """Returns how many detections are right and wrong, and how many annotations are missed."""
    is_kept = matches.score >= thresh
    right, wrong = (int((is_kept & outcome).sum()) for outcome in (matches.is_right, matches.is_wrong))
    return right, wrong, len(matches.wanted_image) - right


def _count_rows(iou_type: str, thresh: str, named: tuple[int | None, str | None], counts: Rows) -> Iterator[Row]:
    right, wrong, missed = counts.tolist()
    values = (_share(right, right + wrong), _share(right, right + missed), right, wrong, missed)
    for name, value in zip(NUMBERS, values, strict=True):
        yield Row(iou_type, f"{name}@{thresh}", *named, right + missed, float(value))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else NO_VALUE


def confusion_of(
    instances: Instances,
    categories: Categories,
    iou_type: str,
    score_threshes: Sequence[float],
    conventions: Conventions,
    *,
    thresh_of: Callable[[str], float] | None = None,
) -> Confusion:
    """Returns, for each score and category, what covers its annotations; crowds are left out.

    `categories` are by ascending id. By falling score each detection covers the open annotation that it overlaps most,
    by an IoU of at least 0.5. So what covers at a high score is among what does at the lowest, and one matching serves
    all; `thresh_of`, the categories' own thresholds by name, takes another.
    """
    ids, scores = categories.category_id, instances.detections.score
    covering = _covering(instances, iou_type, conventions, scores >= min(score_threshes))
    parts = [_confusion_at(ids, thresh, covering, covering.score >= thresh) for thresh in score_threshes]
    if thresh_of is not None:
        own_K = _thresholds(categories, thresh_of)
        index_N = np.searchsorted(ids, instances.detections.category_id)
        covering = _covering(instances, iou_type, conventions, scores >= own_K[index_N])
        parts.append(_confusion_at(ids, None, covering, covering.score >= 0))
    return Confusion.concatenate(parts)


class _Covering(NamedTuple):
    """The categories [G] of annotations, and scores and categories [G] of what covers them; -1 and 0 for nothing."""

    true_category: Rows
    score: npt.NDArray[np.floating[Any]]
    found_category: Rows


def _covering(instances: Instances, iou_type: str, conventions: Conventions, is_kept: Bools) -> _Covering:
    """Returns what of the detections that are kept covers each annotation, by ascending image."""
    kept = replace(
        instances, detections=instances.detections[is_kept], detection_image=instances.detection_image[is_kept]
    )
    truth, found = kept.ground_truth(iou_type), kept.predictions(iou_type, conventions)
    truth = truth[np.flatnonzero(~truth.is_crowd)]
    truth, found = truth[np.argsort(truth.image, kind="stable")], found[np.lexsort((-found.score, found.image))]
    row = covering_rows(truth, found)
    return _Covering(truth.category_id, np.append(found.score, -1)[row], np.append(found.category_id, 0)[row])


def covering_rows(truth: GroundTruth, found: Predictions) -> Rows:
    """Returns the row [G] of the detection that covers each annotation, -1 for none.

    Both are by ascending image, detections of an image by falling score, none is a crowd; categories play no role.
    """
    covered_by = np.full(len(truth), -1, dtype=np.int64)
    for pairs in by_rank(overlaps(truth, found, IOU_THRESHES[0]), found.image):
        open_pairs = pairs.take(np.flatnonzero(covered_by[pairs.true] < 0))
        is_best = np.diff(open_pairs.found, append=-1) != 0  # a detection's pairs stand together, the best last
        best = open_pairs.take(np.flatnonzero(is_best))
        covered_by[best.true] = best.found
    return covered_by


def _confusion_at(ids: Rows, thresh: float | None, covering: _Covering, is_covered: Bools) -> Confusion:
    """Returns the table of one score; the number of `ids`, which ascend, stands for no category."""
    num_ids = len(ids)
    true_index = np.searchsorted(ids, covering.true_category)
    found_index = np.where(is_covered, np.searchsorted(ids, covering.found_category), num_ids)
    pair, count = np.unique(true_index * (num_ids + 1) + found_index, return_counts=True)
    return Confusion(
        score_thresh=np.full(len(pair), thresh),
        category_id=ids[pair // (num_ids + 1)],
        found_category_id=np.array([*ids.tolist(), None], dtype=object)[pair % (num_ids + 1)],
        count=count,
    )


def misses_of(instances: Instances, matches: list[CategoryMatches], score_thresh: float) -> Misses:
    """Returns the images, in COCO's order, of whose annotations none was found at that score and an IoU of 0.5."""
    length = len(instances.image_ids) + 1  # the first image's place is 1
    num_wanted = _num_in_place([of_category.wanted_image for of_category in matches], length)
    kept = [(of_category, of_category.score >= score_thresh) for of_category in matches]
    num_found = _num_in_place([one.image[is_kept] for one, is_kept in kept], length)
    num_right = _num_in_place([one.image[is_kept & one.is_right] for one, is_kept in kept], length)
    places = np.flatnonzero((num_wanted > 0) & (num_right == 0))
    return Misses(
        image_id=instances.image_ids[places - 1], num_instances=num_wanted[places], num_detections=num_found[places]
    )


def _num_in_place(image: list[Rows], length: int) -> Rows:
    """Returns how many there are of each place."""
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *image]), minlength=length)
