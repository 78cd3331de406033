"""Semantic evaluation: equal to pixels counted one by one, to numbers by hand, and to the original's bugs."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError
from refseg_core.evaluation.report import category_table, metrics_table
from refseg_core.evaluation.semantic import evaluate_semantic
from refseg_core.masks.rle import decode_mask
from refseg_core.settings import Conventions
from refseg_core.settings.splits import COCO_CATEGORIES, split_categories
from refseg_core.tables import Categories, Detections
from tests.support.oracles.evaluation_cases import a_synthetic_case, dataset_of, detections_of, found

CONVENTIONS: list[Conventions] = ["corrected", "original"]
SIZE = (100, 200)


def numbers(dataset: Dataset, detections: Detections, **options: Any) -> dict[int | None, float]:
    """IoU by category, and mIoU under None."""
    dataset = replace(dataset, categories=options.pop("categories", dataset.categories))
    metrics = evaluate_semantic(dataset, detections, **options)
    assert set(metrics.iou_type) == {"semantic"}
    assert [metric for metric, one in zip(metrics.metric, metrics.category_id, strict=True) if one is None] == ["mIoU"]
    return dict(zip(metrics.category_id.tolist(), metrics.value.tolist(), strict=True))


# The reference: each pixel of each image, one by one.


def pixel_labels(
    instances: list[tuple[Any, int]], size: tuple[int, int], label_of: dict[int, int]
) -> dict[tuple[int, int], int]:
    labels = {(row, column): 0 for row in range(size[0]) for column in range(size[1])}
    for mask, category_id in instances:
        for row, column in zip(*np.nonzero(decode_mask(mask)), strict=True):
            labels[int(row), int(column)] = label_of[category_id]
    return labels


def counted(dataset: Dataset, detections: Detections, conventions: Conventions) -> tuple[float, dict[int, float]]:
    """mIoU, and IoU by label."""
    ids = sorted(dataset.categories.category_id.tolist())
    first = 0 if conventions == "original" else 1
    label_of = {category_id: label for label, category_id in enumerate(ids, start=first)}
    both, either = Counter[int](), Counter[int]()
    for row, image_id in enumerate(dataset.images.image_id):
        size = int(dataset.images.height[row]), int(dataset.images.width[row])
        true = dataset.annotations[(dataset.annotations.image_id == image_id) & ~dataset.annotations.is_crowd]
        there = detections[(detections.image_id == image_id) & (detections.score >= 0.5)]
        pairs = zip(there.score.tolist(), there.mask_rle, there.category_id.tolist(), strict=True)
        ranked = sorted(pairs, key=lambda one: -one[0])
        ranked = ranked if conventions == "original" else ranked[::-1]
        true_labels = pixel_labels(list(zip(true.mask_rle, true.category_id.tolist(), strict=True)), size, label_of)
        found_labels = pixel_labels([(mask, category) for _, mask, category in ranked], size, label_of)
        for pixel, label in true_labels.items():
            either.update({label, found_labels[pixel]})
            both.update([label] if label == found_labels[pixel] else [])
    averaged = range(20) if conventions == "original" else range(1, len(ids) + 1)
    ious = {label: both[label] / either[label] for label in averaged if either[label]}
    return sum(ious.values()) / len(ious), ious


@pytest.mark.parametrize("conventions", CONVENTIONS)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_numbers_are_those_of_pixels_counted_one_by_one(seed: int, conventions: Conventions) -> None:
    document, detections = a_synthetic_case(seed, num_images=4)
    dataset = dataset_of(document)
    own = numbers(dataset, detections, conventions=conventions)
    mean, ious = counted(dataset, detections, conventions)
    assert own[None] == pytest.approx(mean)
    first = 0 if conventions == "original" else 1
    for label, category_id in enumerate(dataset.categories.category_id.tolist(), start=first):
        assert own[category_id] == pytest.approx(ious.get(label, -1))


# By hand. One image of 100 x 200 with instances that fill their boxes, and an empty one.


def truth(*instances: tuple[int, tuple[int, int, int, int]], **values: Any) -> Dataset:
    """Categories 1 (boat) and 2 (bird)."""
    annotations = []
    for number, (category_id, (x1, y1, x2, y2)) in enumerate(instances, start=1):
        annotation = {"id": number, "image_id": 1, "category_id": category_id, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        annotations.append(annotation | {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]} | values)
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 100, "width": 200} for number in (1, 2)]
    categories = [{"id": 1, "name": "boat"}, {"id": 2, "name": "bird"}]
    return dataset_of({"images": images, "annotations": annotations, "categories": categories})


LEFT, RIGHT, ALL = (0, 0, 100, 100), (100, 0, 200, 100), (0, 0, 200, 100)


def test_the_highest_score_wins_overlaps_and_of_equal_ones_the_first() -> None:
    dataset = truth((1, LEFT), (2, RIGHT))
    over = [found(1, 1, 0.9, LEFT), found(1, 2, 0.8, ALL)]
    assert numbers(dataset, detections_of(over)) == numbers(dataset, detections_of(over[::-1])) == {None: 1, 1: 1, 2: 1}
    under = [found(1, 1, 0.7, LEFT), found(1, 2, 0.8, ALL)]
    assert numbers(dataset, detections_of(under)) == {None: 0.25, 1: 0, 2: 0.5}
    equal = [found(1, 1, 0.8, LEFT), found(1, 2, 0.8, ALL)]
    assert numbers(dataset, detections_of(equal))[None] == 1
    assert numbers(dataset, detections_of(equal[::-1]))[None] == 0.25


def test_of_overlapping_annotations_the_last_in_the_file_lies_above() -> None:
    rows = detections_of([found(1, 1, 0.9, LEFT), found(1, 2, 0.8, RIGHT)])
    assert numbers(truth((2, ALL), (1, LEFT)), rows)[None] == 1
    assert numbers(truth((1, LEFT), (2, ALL)), rows) == {None: 0.25, 1: 0, 2: 0.5}


def test_pixels_found_in_another_image_cost_iou() -> None:
    rows = [found(1, 1, 0.9, LEFT), found(2, 1, 0.9, RIGHT)]
    assert numbers(truth((1, LEFT)), detections_of(rows))[1] == 0.5


def test_only_instances_of_at_least_the_threshold_are_painted() -> None:
    dataset = truth((1, ALL))
    rows = detections_of([found(1, 1, 0.5, LEFT), found(1, 1, 0.25, ALL)])
    assert numbers(dataset, rows)[1] == 0.5
    assert numbers(dataset, rows, score_thresh=0.25)[1] == 1
    assert numbers(dataset, rows, score_thresh=0.75)[1] == 0


def test_what_is_neither_annotated_nor_found_is_not_in_the_mean_and_what_is_only_found_is() -> None:
    dataset = truth((1, LEFT))
    assert numbers(dataset, detections_of([found(1, 1, 0.9, LEFT)])) == {None: 1, 1: 1, 2: -1}
    both = [found(1, 1, 0.9, LEFT), found(1, 2, 0.9, RIGHT)]
    assert numbers(dataset, detections_of(both)) == {None: 0.5, 1: 1, 2: 0}


def test_crowds_are_not_painted() -> None:
    rows = detections_of([found(1, 1, 0.9, LEFT)])
    assert numbers(truth((1, LEFT), iscrowd=1), rows) == {None: 0, 1: 0, 2: -1}


def test_nothing_found_in_nothing_is_no_number() -> None:
    assert numbers(truth(), Detections.empty()) == {None: -1, 1: -1, 2: -1}
    dataset = truth((1, LEFT))
    assert numbers(dataset, Detections.empty(), categories=Categories.empty()) == {None: -1}


def test_the_numbers_stand_in_tables() -> None:
    dataset = truth((1, LEFT))
    rows = detections_of([found(1, 1, 0.9, LEFT)])
    metrics = evaluate_semantic(dataset, rows)
    assert metrics_table(metrics) == [("", "semantic"), ("mIoU", "1.000")]
    assert category_table(metrics) == [
        ("category", "instances", "semantic IoU"),
        ("boat", "1", "1.000"),
        ("bird", "0", "-"),
    ]


def test_boxes_alone_are_refused_and_beside_masks_they_are_masks() -> None:
    dataset = truth((1, LEFT), (2, RIGHT))
    rows = detections_of([found(1, 1, 0.9, LEFT), found(1, 2, 0.9, RIGHT)])
    masks = dataset.annotations.mask_rle
    some = dataset.annotations.replace(mask_rle=np.array([None, masks[1]], dtype=object))
    assert numbers(Dataset(dataset.images, some, dataset.categories), rows)[None] == 1
    none = dataset.annotations.replace(mask_rle=np.array([None, None], dtype=object))
    with pytest.raises(DatasetError, match=r"none of 2 annotations has one.*evaluation.protocol"):
        numbers(Dataset(dataset.images, none, dataset.categories), rows)


def test_masks_of_another_size_lie_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    dataset = truth((1, LEFT))
    turned = dataset.images.replace(height=dataset.images.width, width=dataset.images.height)
    own = numbers(Dataset(turned, dataset.annotations[:0], dataset.categories), detections_of([found(1, 1, 0.9, LEFT)]))
    assert own[1] == -1
    assert "labeled at another size" in caplog.text


def test_maps_of_one_image_stand_in_memory_at_a_time() -> None:
    document, _ = a_synthetic_case(0, num_images=1)
    document["annotations"] = []
    side = 1000
    document["images"] = [
        {"id": number, "file_name": f"{number}.jpg", "height": side, "width": side} for number in range(40)
    ]
    dataset = dataset_of(document)
    tracemalloc.start()
    try:
        numbers(dataset, Detections.empty())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * side * side


# The original's numbers. Method, section 8.1.


def a_fold(fold: int) -> tuple[Dataset, Categories]:
    """Every category of a fold once in an image of its own, 20 of its 100 rows; and the fold's categories."""
    names = split_categories(f"coco_semantic_split_{fold}")
    ids = {name: number for number, name in enumerate(COCO_CATEGORIES, start=1)}
    annotations = [
        {
            "id": number,
            "image_id": number,
            "category_id": ids[name],
            "bbox": [0, 0, 200, 20],
            "segmentation": [[0, 0, 200, 0, 200, 20, 0, 20]],
        }
        for number, name in enumerate(names, start=1)
    ]
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 100, "width": 200} for number in range(1, 21)]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    dataset = dataset_of({"images": images, "annotations": annotations, "categories": categories})
    return dataset, dataset.categories[np.isin(dataset.categories.name, names)]


def all_found(dataset: Dataset) -> Detections:
    pairs = zip(dataset.annotations.image_id, dataset.annotations.category_id.tolist(), strict=True)
    return detections_of([found(int(image_id), category_id, 0.9, (0, 0, 200, 20)) for image_id, category_id in pairs])


@pytest.mark.parametrize("fold", [1, 2, 3, 4])
def test_original_scores_five_of_twenty_categories_and_corrected_all(fold: int) -> None:
    dataset, categories = a_fold(fold)
    perfect = all_found(dataset)
    corrected = numbers(dataset, perfect, categories=categories)
    assert corrected == dict.fromkeys([None, *categories.category_id.tolist()], 1)
    original = numbers(dataset, perfect, categories=categories, conventions="original")
    scored = [category_id for category_id, value in original.items() if value != -1 and category_id is not None]
    assert scored == [fold, fold + 4, fold + 8, fold + 12, fold + 16]
    assert original[None] == 1


@pytest.mark.parametrize(("fold", "expected"), [(1, 0.81 / 5), (2, 0.8 / 6), (3, 0.8 / 6), (4, 0.8 / 6)])
def test_original_gives_an_empty_prediction_the_backgrounds_iou(fold: int, expected: float) -> None:
    """In fold 1 the background is one with the persons; in the others it is a sixth label of the mean."""
    dataset, categories = a_fold(fold)
    assert numbers(dataset, Detections.empty(), categories=categories)[None] == 0
    own = numbers(dataset, Detections.empty(), categories=categories, conventions="original")
    assert own[None] == pytest.approx(expected)


def test_original_lets_the_lowest_score_win() -> None:
    dataset = truth((1, LEFT), (2, RIGHT))
    rows = [found(1, 1, 0.8, LEFT), found(1, 2, 0.9, ALL)]
    own = numbers(dataset, detections_of(rows), conventions="original")
    assert own[2] == 1
    assert own[1] == 1
