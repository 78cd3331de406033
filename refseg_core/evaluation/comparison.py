"""Variants of labeling side by side: what each reached with several sets of references, and how sure differences are.

Not here: labeling, and what it costs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.bootstrap import drawn_ap, paired_interval
from refseg_core.evaluation.coco import compare_coco
from refseg_core.evaluation.coverage import coverage
from refseg_core.evaluation.curves import NO_VALUE, Curves
from refseg_core.evaluation.overlaps import Floats
from refseg_core.evaluation.summary import average_precisions
from refseg_core.tables import Detections, VariantNumbers

_NUM_SETS = 1000  # drawn sets of images: five times as many as for AP's interval, since decisions hang on it
_INTERVAL_OF = "AP"

Key = tuple[str, str]
"""What was compared, 'bbox' or 'segm', and the metric."""


class Scores(NamedTuple):
    """What a variant's labels with one set of references reached; `drawn_ap_B`: AP on drawn sets of images."""

    values: Mapping[Key, float]
    drawn_ap_B: Mapping[str, Floats]


def score(truth: Dataset, detections: Detections) -> Scores:
    """Returns COCO's AP, in all its forms, and what limits it (`coverage.py`)."""
    comparison = compare_coco(truth, detections)
    values: dict[Key, float] = {}
    for iou_type, matches in comparison.matches.items():
        numbers = average_precisions(Curves.of(matches, comparison.max_detections))
        values |= {(iou_type, metric): value for metric, value in numbers}
    limits = coverage(truth, detections).items()
    values |= {(list(comparison.matches)[-1], metric): value for metric, value in limits}
    num_images = len(comparison.instances.image_ids)
    drawn = {kind: drawn_ap(matches, num_images, _NUM_SETS) for kind, matches in comparison.matches.items()}
    return Scores(values, drawn)


def compare_scores(scores: Mapping[str, Sequence[Scores]], seeds: Sequence[int]) -> VariantNumbers:
    """Returns each variant's numbers with each set of references, and their means; differences are to the first.

    `scores`: of each variant, by the seeds of the references.
    """
    first = next(iter(scores.values()))
    rows = [VariantNumbers.empty()]
    for variant, own in scores.items():
        for key in own[0].values:
            rows += [VariantNumbers.row(variant=variant, **row) for row in _rows(key, first, own, seeds)]
    return VariantNumbers.concatenate(rows)


def _rows(
    key: Key, first: Sequence[Scores], own: Sequence[Scores], seeds: Sequence[int]
) -> Iterator[dict[str, object]]:
    iou_type, metric = key
    values, values_of_first = (np.array([one.values[key] for one in each]) for each in (own, first))
    low, high = _interval(iou_type, first, own) if metric == _INTERVAL_OF else (None, None)
    mean, of_first = float(values.mean()), float(values_of_first.mean())
    row = {"iou_type": iou_type, "metric": metric}
    yield row | {"seed": None, "value": mean, "difference": difference(mean, of_first), "low": low, "high": high}
    for seed, *both in zip(seeds, values.tolist(), values_of_first.tolist(), strict=True):
        yield row | {"seed": seed, "value": both[0], "difference": difference(*both), "low": None, "high": None}


def difference(value: float, of_first: float) -> float | None:
    """Returns a number minus the first variant's; None where one of them is undefined."""
    return None if NO_VALUE in (value, of_first) else value - of_first


def _interval(iou_type: str, first: Sequence[Scores], own: Sequence[Scores]) -> tuple[float, float]:
    first_SB, own_SB = (np.array([one.drawn_ap_B[iou_type] for one in each]) for each in (first, own))
    return paired_interval(first_SB, own_SB)
