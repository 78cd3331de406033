"""How good labels are by what people decided on instances that were drawn by chance.

Not here: which ones are drawn (`review_queue.py`).
"""

import math
from dataclasses import dataclass

import numpy as np

from refseg_core.analysis.decisions import label_decisions
from refseg_core.table_schema import Array
from refseg_core.tables import Decisions

_NORMAL_95 = 1.959964  # two-sided, 95 %
_RIGHT = ("accept",)  # mask and category as they were found


@dataclass(frozen=True)
class Precision:
    """The share of right instances among those of a score and above, with its 95 % interval.

    `num_right` of `num_decided` were found right; `thresh` is the score.
    """

    category_id: int
    thresh: float
    num_right: int
    num_decided: int

    @property
    def value(self) -> float:
        """The share that was right; NaN where nothing is decided."""
        return self.num_right / self.num_decided if self.num_decided else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the share."""
        return wilson_interval(self.num_right, self.num_decided)

    def describe(self, category_name: str) -> str:
        """Returns it as people read it: "boat: 0.94, 0.88 to 0.97, at 0.41, of 60"."""
        if not self.num_decided:
            return f"{category_name}: nothing audited yet at {self.thresh:.2f}"
        low, high = self.interval
        return (
            f"{category_name}: {self.value:.2f}, {low:.2f} to {high:.2f}, at {self.thresh:.2f}, of {self.num_decided}"
        )


def wilson_interval(num_right: int, num: int, z: float = _NORMAL_95) -> tuple[float, float]:
    """Returns Wilson's score interval of a share, within [0, 1] whatever the share; (0, 1) of no observations."""
    if num == 0:
        return 0.0, 1.0
    share, squared = num_right / num, z * z / num
    center = share + squared / 2
    spread = z * math.sqrt(share * (1 - share) / num + squared / (4 * num))
    low, high = (center - spread) / (1 + squared), (center + spread) / (1 + squared)
    return max(0.0, min(share, low)), min(1.0, max(share, high))  # rounding may put the share just outside


@dataclass(frozen=True)
class ReviewedScores:
    """N instances that labels had and people decided on: what thresholds can be learned from.

    `score` [N]: as they were found. `category_id` [N]: as which they were found. `is_right` [N]: mask and category are.
    `is_audit` [N]: drawn by chance; the others were chosen because they may be wrong, and say nothing of shares.
    """

    category_id: Array
    score: Array
    is_right: Array
    is_audit: Array

    def precision(self, category_id: int, thresh: float) -> Precision:
        """Returns the precision of a category at and above a score, by the audit."""
        fit = self.is_audit & (self.category_id == category_id) & (self.score >= thresh)
        return Precision(category_id, thresh, int(self.is_right[fit].sum()), int(fit.sum()))


def reviewed_scores(decisions: Decisions) -> ReviewedScores:
    """Returns the instances that were found and decided on, by the decisions that count."""
    labels = label_decisions(decisions)
    found = labels[np.array([score is not None for score in labels.score], dtype=bool)]
    return ReviewedScores(
        category_id=found.found_category_id.astype(np.int64),
        score=found.score.astype(np.float64),
        is_right=np.isin(found.verdict, _RIGHT),
        is_audit=found.is_audit,
    )
