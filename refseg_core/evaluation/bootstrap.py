"""How uncertain AP is because the images are few: AP of image sets drawn from them with replacement.

Nothing is matched again: an image that is drawn twice counts its detections and annotations twice.

Shapes: B drawn sets, S sets of references, I images, D detections by falling score, P right ones of them, R recall
points.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.curves import NO_VALUE, RECALL_POINTS
from refseg_core.evaluation.matching import AREA_RANGES, CategoryMatches
from refseg_core.evaluation.overlaps import Bools, Floats, Rows

_NUM_SETS = 200
_SEED = 0
_PERCENTILES = (2.5, 97.5)
_ALL = list(AREA_RANGES).index("all")

Counts = npt.NDArray[np.int32]


def ap_interval(matches: Sequence[CategoryMatches], num_images: int) -> tuple[float, float]:
    """Returns the bounds of 95 % of the drawn sets' APs; -1 twice where there is no ground truth."""
    values = drawn_ap(matches, num_images)
    return _bounds(values[values > NO_VALUE])


def paired_interval(first_SB: Floats, other_SB: Floats) -> tuple[float, float]:
    """Returns the bounds of 95 % of the differences of AP, the other's minus the first's, on the same drawn sets.

    AP [S, B] as of `drawn_ap`, of S sets of references, whose mean counts. Drawn sets without ground truth are left
    out; -1 twice where all are.
    """
    is_known = ((first_SB > NO_VALUE) & (other_SB > NO_VALUE)).all(axis=0)
    return _bounds((other_SB - first_SB)[:, is_known].mean(axis=0))


def drawn_ap(matches: Sequence[CategoryMatches], num_images: int, num_sets: int = _NUM_SETS) -> Floats:
    """Returns AP [B] of the drawn sets, -1 without ground truth; for so many images they are the same every time."""
    drawn = np.random.default_rng(_SEED).multinomial(num_images, np.full(num_images, 1 / num_images), num_sets)
    return resampled_ap(matches, drawn.astype(np.int32))


def _bounds(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, _PERCENTILES).tolist() if len(values) else (NO_VALUE, NO_VALUE)
    return low, high


def resampled_ap(matches: Sequence[CategoryMatches], times_BI: Counts) -> Floats:
    """Returns AP [B] of the sets that hold each image so many times; -1 where a set has no ground truth.

    It is what evaluating the copies outright gives, but for detections of one category, image and score of which some
    are right: there COCO's number depends on the order of rows.
    """
    ap_KB = np.array([_category_ap(of_category, times_BI) for of_category in matches]).reshape(-1, len(times_BI))
    is_known = ap_KB > NO_VALUE
    num_known = is_known.sum(axis=0)
    total = np.where(is_known, ap_KB, 0).sum(axis=0)
    return np.where(num_known > 0, total / np.maximum(num_known, 1), NO_VALUE)


def _category_ap(matches: CategoryMatches, times_BI: Counts) -> Floats:
    """Returns AP [B] of a category."""
    num_wanted_B = times_BI[:, matches.wanted_image - 1].sum(axis=1)
    needed_BR = _needed(np.maximum(num_wanted_B, 1))
    order = np.argsort(-matches.score, kind="stable")
    times_BD = times_BI[:, matches.image[order] - 1]
    is_right_TD, is_wrong_TD = (of[_ALL][:, order] for of in (matches.outcomes.is_right, matches.outcomes.is_wrong))
    of_threshes = [
        _mean_precision(times_BD, is_right, is_right | is_wrong, needed_BR)
        for is_right, is_wrong in zip(is_right_TD, is_wrong_TD, strict=True)
    ]
    return np.where(num_wanted_B > 0, np.mean(of_threshes, axis=0), NO_VALUE)


def _needed(num_wanted_B: Rows) -> Rows:
    """Returns the fewest right detections [B, R] that reach each recall point."""
    num_wanted_B1 = num_wanted_B[:, None]
    needed = np.maximum(np.ceil(RECALL_POINTS * num_wanted_B1), 1)
    needed -= (needed > 1) & ((needed - 1) / num_wanted_B1 >= RECALL_POINTS)  # where rounding went up
    needed += needed / num_wanted_B1 < RECALL_POINTS
    return needed.astype(np.int64)


def _mean_precision(times_BD: Counts, is_right: Bools, is_counted: Bools, needed_BR: Rows) -> Floats:
    """Returns the mean [B] of precision over the recall points; of copies of a detection the last is the best."""
    right = np.flatnonzero(is_right)
    num_sets, num_right = len(times_BD), len(right)
    if not num_right:
        return np.zeros(num_sets)
    right_BP = np.cumsum(times_BD[:, right], axis=1, dtype=np.int64)
    counted_BP = np.cumsum(times_BD * is_counted, axis=1, dtype=np.int32)[:, right]
    precision_BP = right_BP / (counted_BP + np.spacing(1))
    best_from = np.zeros((num_sets, num_right + 1))
    best_from[:, :-1] = np.maximum.accumulate(precision_BP[:, ::-1], axis=1)[:, ::-1]
    # One search for all sets: each has numbers of its own, above those of the sets before it.
    first_B1 = np.arange(num_sets)[:, None] * (int(needed_BR.max()) + int(right_BP.max()) + 1)
    reached = np.searchsorted((right_BP + first_B1).ravel(), (needed_BR + first_B1).ravel())
    reached_BR = reached.reshape(needed_BR.shape) - np.arange(num_sets)[:, None] * num_right
    return np.asarray(np.take_along_axis(best_from, reached_BR, axis=1).mean(axis=1))
