"""Which detection is right, wrong or ignored: COCO's greedy matching.

It is done for all IoU thresholds and area ranges at once, and for all images: each image's best detection chooses its
annotation first, then each image's second. A detection's choice depends only on those before it in its image.

What became of every detection of a category is kept once: curves, counts and intervals are read off it. Matching never
crosses categories, so it is done for one at a time: neither COCOeval's images x categories x areas table (0.4 billion
entries for LVIS's validation set) nor a Python object per detection exists.

Shapes: T IoU thresholds, A area ranges, G annotations, D detections, P pairs of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.overlaps import Bools, Floats, GroundTruth, Overlaps, Predictions, Rows, overlaps

IOU_THRESHES: Floats = np.linspace(0.5, 0.95, 10)
# Areas of instances in px^2, both ends included.
AREA_RANGES = {
    "all": (0, 100_000**2),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 100_000**2),
}


class Outcomes(NamedTuple):
    """What became of the detections [A, T, D]; what is neither is ignored. And how many annotations count [A]."""

    is_right: Bools
    is_wrong: Bools
    num_wanted: npt.NDArray[np.int64]


def assign(truth: GroundTruth, found: Predictions) -> Outcomes:
    """Gives each detection the annotation it overlaps most, if any is left that it overlaps enough.

    Both are of one category and by ascending image; in an image detections are by falling score. Annotations that are
    crowds or out of the area range are second choice, and who gets one is ignored; a crowd is never used up.
    A detection out of the range is ignored where it gets none. Of equal overlaps the last annotation is taken.
    """
    wanted_GA = _in_range(truth.area) & ~truth.is_crowd[:, None]
    shape = (len(AREA_RANGES), len(IOU_THRESHES))
    is_matched, is_right = (np.zeros((len(found), *shape), dtype=bool) for _ in range(2))
    is_taken_GAT = np.zeros((len(truth), *shape), dtype=bool)
    for pairs in by_rank(overlaps(truth, found, IOU_THRESHES[0]), found.image):
        detection, choice = _choose(pairs, wanted_GA, is_taken_GAT)
        is_matched[detection] = choice >= 0
        is_right[detection] = choice >= len(pairs.iou)
        which = np.nonzero(choice >= 0)
        chosen = pairs.true[choice[which] % len(pairs.iou)]
        is_taken_GAT[chosen, which[1], which[2]] = ~truth.is_crowd[chosen]
    is_wrong = ~is_matched & _in_range(found.area)[:, :, None]
    return Outcomes(np.moveaxis(is_right, 0, -1), np.moveaxis(is_wrong, 0, -1), wanted_GA.sum(axis=0))


def _choose(pairs: Overlaps, wanted_GA: Bools, is_taken_GAT: Bools) -> tuple[Rows, Rows]:
    """Returns the detections [d] of the pairs, and what each takes [d, A, T]: -1 is nothing, p is pair p.

    P + p is pair p too, with an annotation that counts: a higher number is always the better choice.
    """
    detection, start = np.unique(pairs.found, return_index=True)
    num_pairs = len(pairs.iou)
    number_PA = np.arange(num_pairs)[:, None] + num_pairs * wanted_GA[pairs.true]
    is_open_PAT = (pairs.iou[:, None] >= IOU_THRESHES)[:, None] & ~is_taken_GAT[pairs.true]
    return detection, np.maximum.reduceat(np.where(is_open_PAT, number_PA[:, :, None], -1), start)


def by_rank(pairs: Overlaps, image: Rows) -> Iterator[Overlaps]:
    """Yields the pairs of the first detection of every image, then those of every second, and so on.

    A detection's pairs stand together, the best last.
    """
    detection, inverse = np.unique(pairs.found, return_inverse=True)
    place = image[detection]
    turn = (np.arange(len(detection)) - np.searchsorted(place, place))[inverse]
    order = np.lexsort((pairs.true, pairs.iou, pairs.found, turn))
    stops = np.cumsum(np.bincount(turn)).tolist()
    for start, stop in zip([0, *stops], stops, strict=False):
        yield pairs.take(order[start:stop])


def _in_range(area: Floats) -> Bools:
    """Returns whether areas [N] lie in the ranges [N, A]."""
    low, high = np.array(list(AREA_RANGES.values())).T
    is_out: Bools = (area[:, None] < low) | (area[:, None] > high)
    return ~is_out


@dataclass(frozen=True, eq=False)
class CategoryMatches:
    """One category's detections [D], by image, falling score and given order, with what became of each.

    `image` is the place of a detection's image, `rank` its place among those of its image, from 0. `wanted_image` [G]
    are the images of the annotations that are no crowds.
    """

    image: Rows
    rank: Rows
    score: npt.NDArray[np.float32]
    outcomes: Outcomes
    wanted_image: Rows

    @property
    def is_right(self) -> Bools:
        """Whether each detection [D] is right at an IoU of 0.5, of any area."""
        is_right: Bools = self.outcomes.is_right[0, 0]
        return is_right

    @property
    def is_wrong(self) -> Bools:
        """Whether each detection [D] is wrong at an IoU of 0.5, of any area; what is neither is ignored."""
        is_wrong: Bools = self.outcomes.is_wrong[0, 0]
        return is_wrong


def match(truth: GroundTruth, found: Predictions, category_ids: Sequence[int], limit: int) -> list[CategoryMatches]:
    """Matches the best `limit` detections of each image, for every category in the given order."""
    truth = truth[np.lexsort((truth.image, truth.category_id))]
    found, rank = _best(found, limit)
    matches = []
    for category_id in category_ids:
        edges = [np.searchsorted(side.category_id, [category_id, category_id + 1]) for side in (truth, found)]
        true_rows, found_rows = (slice(*of_side.tolist()) for of_side in edges)
        own, here = truth[true_rows], found[found_rows]
        wanted_image = own.image[~own.is_crowd]
        matches.append(CategoryMatches(here.image, rank[found_rows], here.score, assign(own, here), wanted_image))
    return matches


def _best(found: Predictions, limit: int) -> tuple[Predictions, Rows]:
    """Returns the best of each category and image, with ranks, by category, image, falling score and given order."""
    found = found[np.lexsort((-found.score, found.image, found.category_id))]
    is_first = np.ones(len(found), dtype=bool)
    is_first[1:] = (np.diff(found.category_id) != 0) | (np.diff(found.image) != 0)
    row = np.arange(len(found))
    rank = row - np.maximum.accumulate(np.where(is_first, row, 0))
    return found[rank < limit], rank[rank < limit]
