"""Evaluation by LVIS's protocol: equal to its definition in plain loops, and to numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.lvis import compare_lvis
from refseg_core.evaluation.summary import summarize
from refseg_core.masks.rle import Rle, decode_mask
from refseg_core.settings import Conventions
from refseg_core.tables import Detections
from tests.support.oracles.evaluation_cases import Document, a_federated_case, dataset_of, detections_of, found
from tests.support.oracles.lvis import Thing, lvis_numbers

THIRTEEN = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300", "ARs", "ARm", "ARl"]
CONVENTIONS: list[Conventions] = ["corrected", "original"]


def numbers(
    dataset: Dataset, detections: Detections, conventions: Conventions = "corrected"
) -> dict[tuple[str, str, int | None], float]:
    assert dataset.federated_labels is not None
    metrics = summarize(compare_lvis(dataset, detections, conventions=conventions))
    keys = zip(metrics.iou_type, metrics.metric, metrics.category_id, strict=True)
    return dict(zip(keys, metrics.value.tolist(), strict=True))


def true_things(document: Document) -> list[Thing]:
    return [
        Thing(
            annotation["image_id"],
            annotation["category_id"],
            annotation["bbox"],
            decode_mask(Rle(tuple(annotation["segmentation"]["size"]), annotation["segmentation"]["counts"])),
            annotation["area"],
        )
        for annotation in document["annotations"]
    ]


def found_things(detections: Detections, iou_type: str, conventions: Conventions) -> list[Thing]:
    things = []
    for row in range(len(detections)):
        x1, y1, x2, y2 = detections.box_xyxy[row].tolist()
        shrink = 1 if conventions == "original" else 0
        mask = decode_mask(detections.mask_rle[row])
        width, height = x2 - x1 - shrink, y2 - y1 - shrink
        area = float(mask.sum()) if (iou_type, conventions) == ("segm", "corrected") else width * height
        image_id, category_id = int(detections.image_id[row]), int(detections.category_id[row])
        box = [x1, y1, width, height]
        things.append(Thing(image_id, category_id, box, mask, area, float(detections.score[row])))
    return things


def assert_equals_the_definition(document: Document, detections: Detections, conventions: Conventions) -> None:
    own = numbers(dataset_of(document), detections, conventions)
    for iou_type in ("bbox", "segm"):
        found_ones = found_things(detections, iou_type, conventions)
        expected = lvis_numbers(document, true_things(document), found_ones, iou_type)
        for name in THIRTEEN:
            assert own[iou_type, name, None] == pytest.approx(expected[name], abs=1e-12), (iou_type, name)
        for category in document["categories"]:
            number = category["id"]
            assert own[iou_type, "AP", number] == pytest.approx(expected[str(number)], abs=1e-12)


class TestAgainstTheDefinition:
    @pytest.mark.parametrize("conventions", CONVENTIONS)
    @pytest.mark.parametrize("seed", range(3))
    def test_every_number_is_equal(self, seed: int, conventions: Conventions) -> None:
        document, detections = a_federated_case(seed)
        assert_equals_the_definition(document, detections, conventions)

    @pytest.mark.slow
    def test_three_hundred_detections_in_an_image_are_cut_equally(self) -> None:
        document, detections = a_federated_case(9, num_images=2)
        many = Detections.concatenate([detections] * 70)
        assert max(np.unique(many.image_id, return_counts=True)[1]) > 300
        assert_equals_the_definition(document, many, "corrected")


def federated(boxes: list[tuple[int, int]], frequency: str = "f", **labels: Any) -> Dataset:
    """Images 1 to 3 of 100 x 200, with boxes of (image, category) on the left; `labels` go to image 3 only."""
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 100, "width": 200} for number in (1, 2, 3)]
    box, corners = [0, 0, 50, 100], [0, 0, 50, 0, 50, 100, 0, 100]
    return dataset_of(
        {
            "images": [image | lists | (labels if image["id"] == 3 else {}) for image in images],
            "annotations": [
                {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": [corners]}
                for number, (image, category) in enumerate(boxes)
            ],
            "categories": [
                {"id": 1, "name": "boat", "frequency": frequency},
                {"id": 2, "name": "bird", "frequency": "r"},
            ],
        }
    )


RIGHT, WRONG = (0, 0, 50, 100), (100, 0, 150, 100)


class TestByHand:
    @pytest.mark.parametrize(
        ("boxes", "labels", "expected"),
        [
            ([(1, 1)], {}, 1.0),
            ([(1, 1)], {"neg_category_ids": [2]}, 1.0),
            ([(1, 1)], {"neg_category_ids": [1]}, 0.5),
            ([(1, 1), (3, 1)], {}, 51 / 101 / 2),
            ([(1, 1), (3, 1)], {"not_exhaustive_category_ids": [1]}, 51 / 101),
            ([(1, 1)], {"neg_category_ids": [1], "not_exhaustive_category_ids": [1]}, 1.0),
            ([(1, 1)], {"not_exhaustive_category_ids": [1]}, 1.0),
        ],
        ids=[
            "unknown: ignored",
            "another is absent: ignored",
            "absent: wrong",
            "annotated: wrong",
            "annotated in part: ignored",
            "absent but in part: ignored",
            "in part without any: ignored",
        ],
    )
    def test_a_detection_beside_every_instance_counts_by_what_the_image_says(
        self, boxes: list[tuple[int, int]], labels: dict[str, Any], expected: float
    ) -> None:
        rows = [found(1, 1, 0.8, RIGHT), found(3, 1, 0.9, WRONG)]
        own = numbers(federated(boxes, **labels), detections_of(rows))
        for iou_type in ("bbox", "segm"):
            assert own[iou_type, "AP", 1] == pytest.approx(expected)

    def test_a_match_counts_where_not_all_are_annotated(self) -> None:
        dataset = federated([(3, 1)], not_exhaustive_category_ids=[1])
        assert numbers(dataset, detections_of([found(3, 1, 0.9, RIGHT)]))["segm", "AP", None] == pytest.approx(1.0)

    def test_frequency_groups_have_their_own_means(self) -> None:
        dataset = federated([(1, 1), (1, 2)], frequency="c")
        own = numbers(dataset, detections_of([found(1, 1, 0.9, RIGHT)]))
        assert (own["segm", "APr", None], own["segm", "APc", None], own["segm", "APf", None]) == (
            0,
            pytest.approx(1),
            -1,
        )
        assert own["segm", "AP", None] == pytest.approx(0.5)

    def test_crowds_are_instances_like_others(self) -> None:
        dataset = federated([(1, 1), (2, 1)])
        crowds = dataset.annotations.replace(is_crowd=np.array([True, False]))
        own = numbers(Dataset(dataset.images, crowds, dataset.categories, dataset.federated_labels), Detections.empty())
        assert own["segm", "AR300", None] == 0

    def test_the_numbers_are_named_as_lvis_names_them(self) -> None:
        own = numbers(federated([]), Detections.empty())
        assert [name for kind, name, category in own if (kind, category) == ("bbox", None)] == THIRTEEN
        assert [name for kind, name, category in own if (kind, category) == ("segm", 2)] == ["AP", "AP50", "AR300"]
        assert set(own.values()) == {-1}

    def test_masks_are_left_out_where_no_annotation_has_one(self) -> None:
        dataset = federated([(1, 1)])
        boxes = dataset.annotations.replace(mask_rle=np.array([None], dtype=object))
        bare = Dataset(dataset.images, boxes, dataset.categories, dataset.federated_labels)
        assert {kind for kind, _, _ in numbers(bare, Detections.empty())} == {"bbox"}
