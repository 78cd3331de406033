"""The evaluation as text to read: tables with their header first, and sentences. The same for terminal and UI."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from refseg_core.errors import counted, listed
from refseg_core.evaluation.curves import NO_VALUE
from refseg_core.evaluation.diagnostics import INTERVAL, NUMBERS, OWN, Review
from refseg_core.tables import Confusion, Metrics

_COLLAPSED_BELOW = 0.01  # AP, or IoU of pixels
_CONFUSIONS_SHOWN = 10
_OWN_NUMBERS = ("score_thresh", "precision", "recall", "F1")

TextRows = list[tuple[str, ...]]


def metrics_table(metrics: Metrics) -> TextRows:
    """Returns the overall numbers: one row per metric, one column per IoU type; AP with its interval."""
    overall = metrics[_is_overall(metrics) & ~_is_at_score(metrics)]
    values = _values(overall)
    cells = {(name, kind): _number(value) for (kind, name), value in values.items() if name not in INTERVAL}
    for kind in {kind for kind, name in values if name == INTERVAL[0]}:
        low, high = (values[kind, name] for name in INTERVAL)
        cells["AP", kind] += f" ({low:.3f} to {high:.3f})"
    return _laid_out("", cells)


def category_table(metrics: Metrics) -> TextRows:
    """Returns the numbers of each category: name, instances, then one column per IoU type and metric.

    Of those at a score, only some of the last IoU type: the categories' own thresholds with precision, recall and F1
    there; without such thresholds precision and recall at the middle score.
    """
    of_category = metrics[~_is_overall(metrics) & (~_is_at_score(metrics) | _is_typical(metrics))]
    columns = [f"{kind} {name}" for kind, name in zip(of_category.iou_type, of_category.metric, strict=True)]
    counts = dict(zip(of_category.category_name, of_category.num_instances, strict=True))
    pairs = zip(of_category.category_name, columns, strict=True)
    header, *rows = _laid_out("category", dict(zip(pairs, map(_number, of_category.value), strict=True)))
    return [
        (header[0], "instances", *header[1:]),
        *((name, str(counts[name]), *values) for name, *values in rows),
    ]


def score_table(metrics: Metrics) -> TextRows:
    """Returns what labels of a score and above are worth, over all categories: one row per IoU type and score."""
    at_score = _values(metrics[_is_overall(metrics) & _is_at_score(metrics)])
    header = ("", "score", *NUMBERS)
    rows: TextRows = [header]
    for kind, score in dict.fromkeys((kind, name.partition("@")[2]) for kind, name in at_score):
        precision, recall, *counts = (at_score[kind, f"{name}@{score}"] for name in NUMBERS)
        rows.append((kind, score, _number(precision), _number(recall), *(f"{count:,.0f}" for count in counts)))
    return rows


def confusion_table(review: Review) -> TextRows:
    """Returns the most frequent mistakes: a category, what it is taken for, and how often.

    At the categories' own thresholds, where there are such; else at the middle score.
    """
    confusion = _typical(review.confusion)
    at_score = f" ({_of_score(confusion)})" if len(confusion) else ""
    header = ("category", f"taken for{at_score}", "instances", "of")
    mistaken = [(count, own, other) for own, other, count in _counts(confusion) if other is not None and other != own]
    name_of, total = category_names(review.metrics), Counter[int]()
    for own, _, count in _counts(confusion):
        total[own] += count
    mistaken.sort(key=lambda mistake: -mistake[0])
    rows = [
        (name_of[own], name_of[other], str(count), str(total[own]))
        for count, own, other in mistaken[:_CONFUSIONS_SHOWN]
    ]
    return [header, *rows]


def findings(review: Review) -> list[str]:
    """Returns sentences on what needs attention: collapsed categories, what is covered, images with nothing found."""
    return [*_collapsed(review.metrics), *_covered(_typical(review.confusion)), *_missed(review)]


def category_names(metrics: Metrics) -> dict[int, str]:
    """Returns the names of the evaluated categories, by their ids."""
    named = zip(metrics.category_id, metrics.category_name, strict=True)
    return {int(category_id): str(name) for category_id, name in named if category_id is not None}


def _collapsed(metrics: Metrics) -> Iterator[str]:
    kind = [*metrics.iou_type, ""][-1] if "segm" not in metrics.iou_type else "segm"
    name = "IoU" if kind == "semantic" else "AP"
    is_low = (metrics.value < _COLLAPSED_BELOW) & (metrics.num_instances > 0)
    low = metrics[~_is_overall(metrics) & (metrics.iou_type == kind) & (metrics.metric == name) & is_low]
    if len(low):
        named = [f"{one} ({count})" for one, count in zip(low.category_name, low.num_instances, strict=True)]
        yield (
            f"{counted(len(low), 'category')} collapsed, {kind} {name} below {_COLLAPSED_BELOW} though there "
            f"are instances: {listed(named)}."
        )


def _covered(confusion: Confusion) -> Iterator[str]:
    if len(confusion):
        nothing = sum(count for _, other, count in _counts(confusion) if other is None)
        right = sum(count for own, other, count in _counts(confusion) if other == own)
        total = int(confusion.count.sum())
        yield (
            f"Detections of a {_of_score(confusion)} cover {right:,} of "
            f"{counted(total, 'instance')} by their own category, {total - right - nothing:,} by another, "
            f"{nothing:,} by none."
        )


def _missed(review: Review) -> Iterator[str]:
    if review.misses is not None and len(review.misses):
        empty = int((review.misses.num_detections == 0).sum())
        yield (
            f"In {counted(len(review.misses), 'image')} nothing of the ground truth is found, in {empty:,} of them "
            f"nothing at all: {listed(review.misses.image_id)}."
        )


def _typical(confusion: Confusion | None) -> Confusion:
    """Returns what there is at the categories' own thresholds, else at the middle score."""
    if confusion is None or not len(confusion):
        return Confusion.empty()
    is_own = np.array([score is None for score in confusion.score_thresh], dtype=bool)
    if is_own.any():
        return confusion[is_own]
    scores = sorted(set(confusion.score_thresh))
    return confusion[confusion.score_thresh == scores[len(scores) // 2]]


def _of_score(confusion: Confusion) -> str:
    """Returns which scores a table is of, in words."""
    score = confusion.score_thresh[0]
    return "score at their category's threshold and above" if score is None else f"score of {score:g} and above"


def _counts(confusion: Confusion) -> list[tuple[int, int | None, int]]:
    ids = confusion.category_id.tolist()
    return list(zip(ids, confusion.found_category_id.tolist(), confusion.count.tolist(), strict=True))


def _is_overall(metrics: Metrics) -> npt.NDArray[np.bool_]:
    return np.array([category is None for category in metrics.category_id], dtype=bool)


def _is_at_score(metrics: Metrics) -> npt.NDArray[np.bool_]:
    return np.array(["@" in name for name in metrics.metric], dtype=bool)


def _is_typical(metrics: Metrics) -> npt.NDArray[np.bool_]:
    """Returns whether they are numbers of the last IoU type at the categories' own thresholds, else at the middle."""
    scores = {name.partition("@")[2] for name in metrics.metric if "@" in name}
    if OWN in scores:
        names = [f"{name}@{OWN}" for name in _OWN_NUMBERS]
    else:
        ordered = sorted(scores, key=float)
        names = [f"{name}@{ordered[len(ordered) // 2]}" for name in NUMBERS[:2]] if ordered else []
    is_last: npt.NDArray[np.bool_] = metrics.iou_type == metrics.iou_type[-1:]
    return np.isin(metrics.metric.astype(str), names) & is_last


def _values(metrics: Metrics) -> dict[tuple[str, str], float]:
    return dict(zip(zip(metrics.iou_type, metrics.metric, strict=True), metrics.value.tolist(), strict=True))


def _number(value: float) -> str:
    return "-" if value == NO_VALUE else f"{value:.3f}"


def _laid_out(corner: str, cells: Mapping[tuple[str, str], str]) -> TextRows:
    columns = list(dict.fromkeys(column for _, column in cells))
    rows = dict.fromkeys(row for row, _ in cells)
    return [(corner, *columns), *((row, *(cells.get((row, column), "") for column in columns)) for row in rows)]
