"""What limits AP: whether any mask covers an instance, whether that has the right label, and how well it is cut.

A mask covers an instance where their IoU is at least 0.5, whatever its category. Not here: AP itself, which mixes all
three.

Shapes: G instances, P pairs of an instance and a detection that covers it.
"""

from collections.abc import Mapping

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.curves import NO_VALUE
from refseg_core.evaluation.instances import Instances
from refseg_core.evaluation.matching import AREA_RANGES, IOU_THRESHES
from refseg_core.evaluation.overlaps import Bools, Floats, overlaps
from refseg_core.tables import Detections

COVERED = {"all": "covered", "small": "covered_s", "medium": "covered_m", "large": "covered_l"}
LABELED_RIGHT, MASK_IOU = "labeled_right", "mask_iou"


def coverage(truth: Dataset, detections: Detections) -> Mapping[str, float]:
    """Returns shares of the instances of the given categories, crowds left out; -1 where there are none.

    `covered`: by any detection; `covered_s`, `covered_m`, `covered_l`: of small, medium and large ones. Of the covered
    instances, `labeled_right`: those whose covering detection of the highest score has their category; `mask_iou`: the
    mean of the largest IoU. Without masks in the ground truth boxes are compared.
    """
    instances = Instances.select(truth.images, truth.annotations, truth.categories, detections)
    kind = "segm" if instances.have_masks else "bbox"
    true, found = instances.ground_truth(kind), instances.predictions(kind, "corrected")
    true = true[np.flatnonzero(~true.is_crowd)]
    true, found = true[np.argsort(true.image, kind="stable")], found[np.argsort(found.image, kind="stable")]
    pairs = overlaps(true, found, IOU_THRESHES[0])
    iou_G = np.zeros(len(true))
    np.maximum.at(iou_G, pairs.true, pairs.iou)
    is_covered_G = iou_G > 0
    category_G = np.full(len(true), -1)
    by_score = np.argsort(found.score[pairs.found], kind="stable")  # the highest is written last
    category_G[pairs.true[by_score]] = found.category_id[pairs.found[by_score]]
    is_right_G = (category_G == true.category_id) & is_covered_G
    shares = {name: _mean(is_covered_G[_is_within(true.area, size)]) for size, name in COVERED.items()}
    return shares | {LABELED_RIGHT: _mean(is_right_G[is_covered_G]), MASK_IOU: _mean(iou_G[is_covered_G])}


def _is_within(area_G: Floats, size: str) -> Bools:
    low, high = AREA_RANGES[size]
    is_within: Bools = (area_G >= low) & (area_G <= high)
    return is_within


def _mean(values: Floats | Bools) -> float:
    return float(values.mean()) if len(values) else NO_VALUE
