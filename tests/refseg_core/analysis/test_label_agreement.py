"""Two labelings agree where the same category has the same mask, each instance once."""

import numpy as np
import pytest

from refseg_core.analysis.label_agreement import compare_labels
from refseg_core.masks.rle import encode_masks
from refseg_core.tables import Detections


def _labels(*instances: tuple[str, int, float, tuple[int, int]]) -> Detections:
    """Image, category, score, and from which to which row of 100 the mask reaches."""
    masks = np.zeros((len(instances), 100, 30), dtype=bool)
    for mask, (_, _, _, (start, stop)) in zip(masks, instances, strict=True):
        mask[start:stop] = True
    return Detections(
        image_id=np.array([image for image, *_ in instances], dtype=object),
        category_id=np.array([category for _, category, *_ in instances], dtype=np.int64),
        score=np.array([score for _, _, score, _ in instances], dtype=np.float32),
        predicted_iou=np.full(len(instances), 0.9, dtype=np.float32),
        box_xyxy=np.tile([0.0, 0.0, 30.0, 100.0], (len(instances), 1)),
        mask_rle=np.fromiter(encode_masks(masks), dtype=object, count=len(instances)),
    )


def test_a_labeling_agrees_with_itself_whatever_its_order() -> None:
    labels = _labels(("a", 1, 0.9, (0, 50)), ("a", 1, 0.8, (0, 60)), ("b", 2, 0.7, (3, 9)))
    agreement = compare_labels(labels, labels[np.array([2, 0, 1])])
    assert (agreement.num_paired, agreement.num_same, agreement.share) == (3, 3, 1.0)
    assert (agreement.min_iou, agreement.max_score_difference, agreement.differences) == (1.0, 0.0, ())


def test_another_mask_category_or_image_is_a_difference_and_is_named() -> None:
    expected = _labels(("a", 1, 0.9, (0, 50)), ("a", 2, 0.8, (0, 50)), ("b", 1, 0.7, (0, 50)), ("c", 1, 0.6, (0, 50)))
    found = _labels(("a", 1, 0.5, (0, 40)), ("a", 3, 0.8, (0, 50)), ("c", 1, 0.6, (0, 50)))
    agreement = compare_labels(expected, found)
    assert (agreement.num_expected, agreement.num_found, agreement.num_paired, agreement.num_same) == (4, 3, 2, 1)
    assert agreement.share == pytest.approx(1 / 5)
    assert agreement.min_iou == pytest.approx(0.8)
    assert agreement.mean_iou == pytest.approx(0.9)
    assert agreement.max_score_difference == pytest.approx(0.4)
    assert [(image, category) for image, category, _, _ in agreement.differences] == [("a", 1), ("a", 2), ("b", 1)]
    assert agreement.differences[0][3] == pytest.approx(0.8)


def test_each_instance_is_paired_once_with_the_most_alike() -> None:
    expected = _labels(("a", 1, 0.9, (0, 50)), ("a", 1, 0.9, (0, 45)))
    agreement = compare_labels(expected, _labels(("a", 1, 0.9, (0, 45))))
    assert (agreement.num_paired, agreement.num_same) == (1, 1)
    assert len(agreement.differences) == 1


def test_nothing_agrees_with_nothing() -> None:
    agreement = compare_labels(Detections.empty(), Detections.empty())
    assert (agreement.share, agreement.mean_iou, agreement.max_score_difference) == (1.0, 1.0, 0.0)
