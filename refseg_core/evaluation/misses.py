"""Images in which nothing was found that is there."""

import numpy as np

from refseg_core.evaluation.instances import Instances, Rows
from refseg_core.evaluation.matches import Matches
from refseg_core.tables import Misses


def misses_of(instances: Instances, matches: list[Matches], score_thresh: float) -> Misses:
    """The images with annotations of which none was found at that score, by an IoU of at least 0.5; in COCO's order."""
    length = len(instances.image_ids) + 1  # the first image's place is 1
    num_wanted = _count([of_category.wanted_image for of_category in matches], length)
    kept = [(of_category, of_category.score >= score_thresh) for of_category in matches]
    num_found = _count([one.image[is_kept] for one, is_kept in kept], length)
    num_right = _count([one.image[is_kept & one.is_right] for one, is_kept in kept], length)
    places = np.flatnonzero((num_wanted > 0) & (num_right == 0))
    return Misses(
        image_id=instances.image_ids[places - 1], num_instances=num_wanted[places], num_detections=num_found[places]
    )


def _count(image: list[Rows], length: int) -> Rows:
    """How many there are of each place."""
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *image]), minlength=length)
