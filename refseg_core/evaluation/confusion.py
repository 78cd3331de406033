"""Which categories are taken for which: what lies on each annotation, whatever its category.

Here a detection may take an annotation of any category; that is not how AP matches.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refseg_core.evaluation.instances import Instances, Rows
from refseg_core.evaluation.matching import IOU_THRESHES, turns
from refseg_core.evaluation.overlaps import overlaps
from refseg_core.evaluation.shapes import Bools, Found, Truth
from refseg_core.settings import Conventions
from refseg_core.tables import Categories, Confusion


def confusion_of(
    instances: Instances,
    categories: Categories,
    iou_type: str,
    score_threshes: Sequence[float],
    conventions: Conventions,
) -> Confusion:
    """For each score and category, what covers its annotations; crowds are left out.

    `categories` are by ascending id. By falling score each detection covers the open annotation that it overlaps most,
    by an IoU of at least 0.5. So what covers at a high score is among what does at the lowest, and one matching serves
    all.
    """
    is_kept = instances.detections.score >= min(score_threshes)
    kept = replace(
        instances, detections=instances.detections[is_kept], detection_image=instances.detection_image[is_kept]
    )
    truth, found = Truth.of(kept, iou_type), Found.of(kept, iou_type, conventions)
    truth = truth[np.flatnonzero(~truth.is_crowd)]
    truth, found = truth[np.argsort(truth.image, kind="stable")], found[np.lexsort((-found.score, found.image))]
    row = cover(truth, found)
    score, category = np.append(found.score, -1)[row], np.append(found.category_id, 0)[row]
    parts = [Confusion.empty()]
    for thresh in score_threshes:
        is_covered = (row >= 0) & (score >= thresh)
        parts.append(_counted(categories.category_id, thresh, truth.category_id, category, is_covered))
    return Confusion.concatenate(parts)


def cover(truth: Truth, found: Found) -> Rows:
    """The row [G] of the detection that covers each annotation, -1 for none.

    Both are by ascending image, detections of an image by falling score, none is a crowd; categories play no role.
    """
    covered_by = np.full(len(truth), -1, dtype=np.int64)
    for pairs in turns(overlaps(truth, found, IOU_THRESHES[0]), found.image):
        open_pairs = pairs.take(np.flatnonzero(covered_by[pairs.true] < 0))
        is_best = np.diff(open_pairs.found, append=-1) != 0  # a detection's pairs stand together, the best last
        best = open_pairs.take(np.flatnonzero(is_best))
        covered_by[best.true] = best.found
    return covered_by


def _counted(ids: Rows, thresh: float, true_category: Rows, found_category: Rows, is_covered: Bools) -> Confusion:
    """The table of one score; the number of `ids`, which ascend, stands for no category."""
    num_ids = len(ids)
    true_index = np.searchsorted(ids, true_category)
    found_index = np.where(is_covered, np.searchsorted(ids, found_category), num_ids)
    pair, count = np.unique(true_index * (num_ids + 1) + found_index, return_counts=True)
    return Confusion(
        score_thresh=np.full(len(pair), thresh),
        category_id=ids[pair // (num_ids + 1)],
        found_category_id=np.array([*ids.tolist(), None], dtype=object)[pair % (num_ids + 1)],
        count=count,
    )
