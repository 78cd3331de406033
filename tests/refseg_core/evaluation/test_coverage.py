"""What limits AP, instance by instance: against the definition, and in cases that can be seen through."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.evaluation.coverage import coverage
from refseg_core.evaluation.matching import AREA_RANGES
from refseg_core.masks.rle import mask_ious
from refseg_core.tables import Detections
from tests.support.oracles.evaluation_cases import Document, a_synthetic_case, dataset_of, detections_of, found

_LETTERS = {"": "all", "_s": "small", "_m": "medium", "_l": "large"}


def _document(*instances: tuple[int, tuple[int, int, int, int]], **more: Any) -> Document:
    """One image with an instance for each (category, x, y, width, height)."""
    annotations = [
        {"id": number, "image_id": 1, "category_id": category, "bbox": box, "segmentation": [_corners(*box)], **more}
        for number, (category, box) in enumerate(instances, start=1)
    ]
    images = [{"id": 1, "file_name": "1.jpg", "height": 100, "width": 200}]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def _corners(x: int, y: int, width: int, height: int) -> list[int]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _by_definition(document: Document, detections: Detections) -> dict[str, float]:
    table = dataset_of(document).annotations
    table = table[~table.is_crowd]
    rights, ious, areas = [], [], table.area
    for row in range(len(table)):
        here = detections[detections.image_id == table.image_id[row]]
        iou = mask_ious(here.mask_rle.tolist(), [table.mask_rle[row]])[:, 0]
        ious.append(iou.max(initial=0))
        covering = here[iou >= 0.5]
        rights.append(len(covering) > 0 and covering.category_id[covering.score.argmax()] == table.category_id[row])
    is_covered = np.array(ious) >= 0.5
    shares = {}
    for letter, size in _LETTERS.items():
        low, high = AREA_RANGES[size]
        own = is_covered[(areas >= low) & (areas <= high)]
        shares[f"covered{letter}"] = own.mean() if len(own) else -1
    any_is_covered = is_covered.any()
    shares["labeled_right"] = np.array(rights)[is_covered].mean() if any_is_covered else -1
    shares["mask_iou"] = np.array(ious)[is_covered].mean() if any_is_covered else -1
    return shares


@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_is_that_of_its_definition(seed: int) -> None:
    document, detections = a_synthetic_case(seed, num_images=5)
    scores = np.random.default_rng(seed).permutation(len(detections)) / len(detections)
    detections = detections.replace(score=scores.astype(np.float32))
    assert dict(coverage(dataset_of(document), detections)) == pytest.approx(_by_definition(document, detections))


def test_the_label_is_that_of_the_best_score_and_the_mask_that_of_the_largest_overlap() -> None:
    document = _document((1, (0, 0, 20, 20)), (2, (100, 0, 40, 50)))
    rows = [
        found(1, 2, 0.9, (0, 0, 20, 15)),
        found(1, 1, 0.8, (0, 0, 20, 20)),
        found(1, 2, 0.7, (100, 0, 140, 45)),
        found(1, 1, 0.95, (100, 0, 140, 10)),
    ]
    shares = coverage(dataset_of(document), detections_of(rows))
    assert (shares["covered"], shares["covered_s"], shares["covered_m"], shares["covered_l"]) == (1, 1, 1, -1)
    assert shares["labeled_right"] == 0.5
    assert shares["mask_iou"] == pytest.approx((1 + 0.9) / 2)


def test_crowds_and_images_without_detections() -> None:
    nothing = coverage(dataset_of(_document((1, (0, 0, 20, 20)))), Detections.empty())
    assert (nothing["covered"], nothing["labeled_right"], nothing["mask_iou"]) == (0, -1, -1)
    crowd = coverage(dataset_of(_document((1, (0, 0, 20, 20)), iscrowd=1)), Detections.empty())
    assert set(crowd.values()) == {-1}
