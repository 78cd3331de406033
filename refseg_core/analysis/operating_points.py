"""From which score on labels are worth keeping: thresholds of categories, chosen by what is known of their labels.

What is known is `Evidence`: which labels are right, and how many instances there are to find. A category with few
instances says little by itself, so that all categories together count as some instances more.

Not here: where the evidence comes from (`tasks/outputs/propose_thresholds.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

VERSION = 2  # of proposals

PRIOR_INSTANCES = 5.0
"""As how many instances of a category those of all categories together count."""
_ENOUGH_LABELS = 10
_DRAWS = 200  # of units, for the interval of a threshold
_INTERVAL = (0.025, 0.975)
_GRID: Floats = np.arange(1, 101) / 100  # scores at which all categories together are asked
_MOST_DECIMALS = 6
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of N labels of a category, and of the G instances that there are to find.

    `score` [N]; `is_right` [N], 0 or 1; `weight` [N]: for how many labels each stands; `instance_weight` [G]. `unit`
    [N] and `instance_unit` [G]: what labels and instances were drawn with, from 0, such as the place of their image.
    """

    score: Floats
    is_right: Floats
    weight: Floats
    unit: Rows
    instance_weight: Floats
    instance_unit: Rows

    @classmethod
    def of_sample(cls, score: Floats, is_right: Floats, all_scores: Floats, num_missed: int) -> Self:
        """Returns what is known where only some labels were judged, mostly doubtful ones.

        `score` [n] and `is_right` [n] are of the judged ones, `all_scores` [N] of all labels of the category. Each
        judged one stands for as many as there are for each judged one among those of a like score. `num_missed`:
        instances without a label that the judges found.
        """
        weight = _stratum_weights(score, all_scores)
        units, missed = np.arange(len(score)), np.arange(num_missed) + len(score)
        found = is_right > 0
        instance_weight = np.concatenate([weight[found], np.ones(num_missed)])
        return cls(score, is_right, weight, units, instance_weight, np.concatenate([units[found], missed]))

    @classmethod
    def together(cls, parts: Sequence["Evidence"]) -> "Evidence":
        """Returns the evidence of all categories as if they were one."""
        names = ("score", "is_right", "weight", "unit", "instance_weight", "instance_unit")
        return cls(*(np.concatenate([np.zeros(0), *(getattr(part, name) for part in parts)]) for name in names))

    def sorted(self) -> "Evidence":
        """Returns the same by falling score."""
        order = np.argsort(-self.score, kind="stable")
        return replace(
            self,
            score=self.score[order],
            is_right=self.is_right[order],
            weight=self.weight[order],
            unit=self.unit[order],
        )

    @property
    def num_units(self) -> int:
        """How many units there are."""
        return int(max(part.max(initial=-1) for part in (self.unit, self.instance_unit))) + 1

    def counts(self, drawn: Floats | None = None) -> "Counts":
        """Returns the counts at each score; the labels are by falling score. `drawn`: how often each unit was."""
        weight, instances = self.weight, self.instance_weight
        if drawn is not None:
            weight, instances = weight * drawn[self.unit], instances * drawn[self.instance_unit]
        is_last = np.append(np.diff(self.score) != 0, True)[: len(self.score)]
        right, labels = np.cumsum(weight * self.is_right)[is_last], np.cumsum(weight)[is_last]
        return Counts(self.score[is_last], right, labels, float(instances.sum()))


class Counts(NamedTuple):
    """Labels of a score and above: how many are right [S], and how many there are [S], at falling scores [S]."""

    score: Floats
    num_right: Floats
    num_labels: Floats
    num_instances: float

    def at(self, score: Floats) -> "Counts":
        """Returns the counts at other scores."""
        place = np.searchsorted(-self.score, -score, side="right")
        right, labels = (np.append(0.0, counts)[place] for counts in (self.num_right, self.num_labels))
        return Counts(score, right, labels, self.num_instances)

    def plus(self, other: "Counts", weight: float) -> "Counts":
        """Returns the counts with those of others at the same scores, of which each counts so much."""
        return Counts(
            self.score,
            self.num_right + weight * other.num_right,
            self.num_labels + weight * other.num_labels,
            self.num_instances + weight * other.num_instances,
        )

    @property
    def precision(self) -> Floats:
        """The share of the labels [S] that are right; 1 where there is none."""
        return np.where(self.num_labels > 0, self.num_right / np.maximum(self.num_labels, _LEAST), 1.0)

    @property
    def recall(self) -> Floats:
        """The share of the instances [S] that are found; 0 where there is none."""
        return self.num_right / max(self.num_instances, _LEAST)

    @property
    def f1(self) -> Floats:
        """The harmonic mean [S] of precision and recall."""
        return 2 * self.num_right / np.maximum(self.num_labels + self.num_instances, _LEAST)

    def best(self, wanted_precision: float | None) -> int:
        """Returns the place of the score of the best F1, or of the lowest that reaches a precision.

        Where none reaches it, that of the highest precision. Of scores between the same labels the one in the middle.
        """
        first, last = self._best(wanted_precision)
        return (first + last) // 2

    def best_range(self, wanted_precision: float | None) -> tuple[float, float]:
        """Returns between which scores the best one lies: all between these keep the same labels."""
        first, last = self._best(wanted_precision)
        return float(self.score[last + 1]) if last + 1 < len(self.score) else 0.0, float(self.score[first])

    def _best(self, wanted_precision: float | None) -> tuple[int, int]:
        """Returns the first and the last place that keep the best labels."""
        if wanted_precision is None:
            return _equal(self.num_labels, int(self.f1.argmax()))
        reached = np.flatnonzero(self.precision >= wanted_precision)
        return _equal(self.num_labels, int(reached[-1]) if len(reached) else int(self.precision.argmax()))


class Proposal(NamedTuple):
    """A category's threshold, its 95 % interval over draws of the category's own units, and the counts at it.

    The interval holds all scores that would do as well in a draw, so that it is wide where labels are few.
    """

    thresh: float
    low: float
    high: float
    num_right: float
    num_labels: float
    num_instances: float

    @property
    def precision(self) -> float | None:
        """The share of the labels that are right; None where there are no labels."""
        return self.num_right / self.num_labels if self.num_labels else None

    @property
    def recall(self) -> float | None:
        """The share of the instances that are found; None where there are no instances."""
        return self.num_right / self.num_instances if self.num_instances else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both; None where there is neither a label nor an instance."""
        total = self.num_labels + self.num_instances
        return 2 * self.num_right / total if total else None


def propose(evidence: Evidence, everything: Evidence, *, wanted_precision: float | None = None) -> Proposal | None:
    """Returns the threshold of a category: that of the best F1, or the lowest that reaches a wanted precision.

    `everything`: the evidence of all categories, this one among them. None where it judges no label. It does not count
    for the precision of a category of which enough labels are judged.
    """
    own, prior = evidence.sorted(), everything.sorted().counts()
    scores = np.unique(np.concatenate([own.score, _GRID]))[::-1]
    if not len(prior.score):
        return None
    is_known = wanted_precision is not None and len(own.score) >= _ENOUGH_LABELS
    prior_weight = 0.0 if is_known else PRIOR_INSTANCES / max(prior.num_instances, 1.0)
    at_scores = prior.at(scores)
    counts = own.counts().at(scores).plus(at_scores, prior_weight)
    thresh = _short_number(scores, counts.best(wanted_precision))
    low, high = _interval(own, scores, wanted_precision)
    at_thresh = own.counts().at(np.array([thresh]))
    return Proposal(
        *(thresh, min(low, thresh), max(high, thresh)),
        *(float(at_thresh.num_right[0]), float(at_thresh.num_labels[0]), at_thresh[3]),
    )


def _interval(own: Evidence, scores: Floats, wanted_precision: float | None) -> tuple[float, float]:
    """Returns the 95 % interval over draws of units, without what other categories say.

    Draws without a right label say nothing; where no draw says anything it is all scores.
    """
    drawn = (own.counts(times).at(scores) for times in _draws(own.num_units))
    ranges = [counts.best_range(wanted_precision) for counts in drawn if counts.num_right[-1] > 0]
    if not ranges:
        return 0.0, 1.0
    lows, highs = zip(*ranges, strict=True)
    return float(np.quantile(lows, _INTERVAL[0])), float(np.quantile(highs, _INTERVAL[1]))


def _draws(num_units: int) -> Iterator[Floats]:
    """Yields how often each unit [U] is drawn, in as many draws of U units as an interval takes."""
    generator = np.random.default_rng(0)
    for _ in range(_DRAWS if num_units else 0):
        units = generator.integers(num_units, size=num_units)
        yield np.bincount(units, minlength=num_units).astype(np.float64)


_JUDGED_IN_STRATUM, _MOST_STRATA = 5, 10


def _stratum_weights(score: Floats, all_scores: Floats) -> Floats:
    """Returns for how many labels each judged one [n] stands, by strata of like scores with some judged ones each."""
    num_strata = min(_MOST_STRATA, max(1, len(score) // _JUDGED_IN_STRATUM))
    edges = np.quantile(score, np.arange(1, num_strata) / num_strata) if len(score) else np.zeros(0)
    stratum = np.searchsorted(edges, score, side="right")
    num_all, num_judged = (
        np.bincount(np.searchsorted(edges, some, side="right"), minlength=num_strata) for some in (all_scores, score)
    )
    return np.maximum(num_all[stratum], num_judged[stratum]) / num_judged[stratum]


def _equal(values: Floats, place: int) -> tuple[int, int]:
    """Returns the first and the last place of the equal values [S] around a place."""
    changes = np.flatnonzero(np.diff(values) != 0)
    first = changes[changes < place].max(initial=-1) + 1
    last = changes[changes >= place].min(initial=len(values) - 1)
    return int(first), int(last)


def _short_number(scores: Floats, place: int) -> float:
    """Returns a short number above the next lower score, and not above the one at the place."""
    high = float(scores[place])
    low = float(scores[place + 1]) if place + 1 < len(scores) else 0.0
    for decimals in range(2, _MOST_DECIMALS):
        short = round((low + high) / 2, decimals)
        if low < short <= high:
            return short
    return high
