"""What became of every detection of a category, kept once: curves, counts and intervals are read off it.

Matching never crosses categories, so it is done for one at a time: neither COCOeval's images x categories x areas table
(0.4 billion entries for LVIS's validation set) nor a Python object per detection exists.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.evaluation.instances import Rows
from refseg_core.evaluation.matching import Outcomes, assign
from refseg_core.evaluation.shapes import Bools, Found, Truth
from refseg_core.tables import Categories


@dataclass(frozen=True, eq=False)
class Matches:
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


def match(truth: Truth, found: Found, categories: Categories, limit: int) -> list[Matches]:
    """Matches the best `limit` detections of each image, for every category in the table's order."""
    truth = truth[np.lexsort((truth.image, truth.category_id))]
    found, rank = _best(found, limit)
    matches = []
    for category_id in categories.category_id.tolist():
        true_rows, found_rows = (_rows_of(category_id, side.category_id) for side in (truth, found))
        own, here = truth[true_rows], found[found_rows]
        wanted_image = own.image[~own.is_crowd]
        matches.append(Matches(here.image, rank[found_rows], here.score, assign(own, here), wanted_image))
    return matches


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
