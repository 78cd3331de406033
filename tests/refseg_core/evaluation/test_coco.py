"""Evaluation by COCO's protocol: equal to plain pycocotools to the last digit, and to numbers worked out by hand."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.diagnostics import Review
from refseg_core.evaluation.protocols import review
from refseg_core.evaluation.report import category_table, confusion_table, findings, metrics_table, score_table
from refseg_core.masks.rle import encode_masks
from refseg_core.settings import Conventions
from refseg_core.tables import Detections, Metrics
from tests.support.oracles.coco import TWELVE, coco_numbers, coco_run
from tests.support.oracles.evaluation_cases import (
    Document,
    a_mask,
    a_synthetic_case,
    coco_metrics,
    dataset_of,
    detections_of,
    found,
)

CONVENTIONS: list[Conventions] = ["corrected", "original"]


def numbers(dataset: Dataset, detections: Detections, **options: Any) -> dict[tuple[str, str, int | None], float]:
    metrics = coco_metrics(dataset, detections, **options)
    keys = zip(metrics.iou_type, metrics.metric, metrics.category_id, strict=True)
    return dict(zip(keys, metrics.value.tolist(), strict=True))


def assert_equals_plain_pycocotools(document: Document, detections: Detections, conventions: Conventions) -> None:
    own = numbers(dataset_of(document), detections, conventions=conventions)
    assert own == coco_numbers(document, detections, conventions)


class TestAgainstPycocotools:
    @pytest.mark.parametrize("conventions", CONVENTIONS)
    @pytest.mark.parametrize("seed", range(4))
    def test_every_number_is_equal_to_the_last_digit(self, seed: int, conventions: Conventions) -> None:
        document, detections = a_synthetic_case(seed)
        assert any(annotation["iscrowd"] for annotation in document["annotations"])
        assert_equals_plain_pycocotools(document, detections, conventions)

    @pytest.mark.parametrize("conventions", CONVENTIONS)
    def test_a_hundred_detections_in_an_image_are_cut_equally(self, conventions: Conventions) -> None:
        document, detections = a_synthetic_case(5, num_images=2)
        many = Detections.concatenate([detections] * 40)
        assert_equals_plain_pycocotools(document, many, conventions)

    def test_other_limits_name_the_recalls_and_replace_100_everywhere(self) -> None:
        document, detections = a_synthetic_case(6, num_images=3)
        limits = (2, 3, 5)
        own = numbers(dataset_of(document), detections, max_detections=limits)
        plain = coco_run(document, detections, "bbox", limits=limits)
        precision, recall = plain.eval["precision"], plain.eval["recall"]
        assert own["bbox", "AP", None] == precision[:, :, :, 0, 2][precision[:, :, :, 0, 2] > -1].mean()
        for index, limit in enumerate(limits):
            assert own["bbox", f"AR{limit}", None] == recall[:, :, 0, index][recall[:, :, 0, index] > -1].mean()
        assert ("bbox", "AR100", None) not in own
        assert ("segm", "AR5", 9) in own

    @pytest.mark.real
    @pytest.mark.slow
    @pytest.mark.parametrize("conventions", CONVENTIONS)
    def test_real_annotations_give_equal_numbers(self, shared: Path, conventions: Conventions) -> None:
        path = shared / "data" / "coco_tiny" / "annotations" / "instances_val2017.json"
        document = json.loads(path.read_bytes())
        dataset = parse_coco(path.read_bytes(), source="x")
        generator = np.random.default_rng(0)
        rows = []
        for row, (x, y, width, height) in enumerate(dataset.annotations.box_xywh.tolist()):
            error = generator.normal(0, 2, 4)
            box = tuple((np.array([x, y, x + width, y + height]) + error).tolist())
            neighbor = min(row + int(generator.random() < 0.3), len(dataset.annotations) - 1)
            same_image = dataset.annotations.image_id[neighbor] == dataset.annotations.image_id[row]
            mask = dataset.annotations.mask_rle[neighbor if same_image else row]
            image_id, category_id = dataset.annotations.image_id[row], int(dataset.annotations.category_id[row])
            rows.append((image_id, category_id, round(generator.random(), 1) + 0.05, box, mask))
        assert_equals_plain_pycocotools(document, detections_of(rows), conventions)


class TestProperties:
    @given(seed=st.integers(0, 1000))
    @settings(max_examples=8)
    def test_neither_the_order_of_images_and_categories_nor_the_shards_matter(self, seed: int) -> None:
        document, detections = a_synthetic_case(seed, num_images=5)
        expected = numbers(dataset_of(document), detections)
        generator = np.random.default_rng(seed)
        generator.shuffle(document["images"])
        generator.shuffle(document["categories"])
        shards = np.argsort(detections.image_id, kind="stable")
        assert numbers(dataset_of(document), detections[shards]) == expected

    @given(seed=st.integers(0, 1000))
    @settings(max_examples=8)
    def test_the_ground_truth_itself_is_perfect(self, seed: int) -> None:
        document, _ = a_synthetic_case(seed, num_images=4)
        dataset = dataset_of(document)
        single = dataset.annotations[~dataset.annotations.is_crowd]
        corners = single.box_xywh + np.concatenate([np.zeros((len(single), 2)), single.box_xywh[:, :2]], axis=1)
        rows = zip(single.image_id, single.category_id.tolist(), corners.tolist(), single.mask_rle, strict=True)
        own = numbers(
            dataset, detections_of([(image, category, 0.9, box, mask) for image, category, box, mask in rows])
        )
        for iou_type in ("bbox", "segm"):
            assert own[iou_type, "AP", None] == pytest.approx(1.0 if len(single) else -1)
            assert own[iou_type, "AR100", None] == pytest.approx(1.0 if len(single) else -1)

    def test_nothing_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        document, detections = a_synthetic_case(1, num_images=2)
        numbers(dataset_of(document), detections)
        assert capsys.readouterr().out == ""


def tiny(boxes: list[list[float]], masks: bool = True, **values: Any) -> Document:
    """One 100 x 200 image with boxes of category 1, in a dataset with a second category and image."""
    annotations = []
    for number, (x, y, width, height) in enumerate(boxes):
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        annotation = {"id": number, "image_id": 1, "category_id": 1, "bbox": [x, y, width, height]} | values
        annotations.append(annotation | ({"segmentation": [corners]} if masks else {}))
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 100, "width": 200} for number in (1, 2)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "boat"}, {"id": 2, "name": "bird"}],
    }


class TestByHand:
    def test_one_of_two_found_with_iou_062_counts_at_three_of_ten_thresholds(self) -> None:
        dataset = dataset_of(tiny([[0, 0, 50, 100], [100, 0, 50, 100]]))
        own = numbers(dataset, detections_of([found(1, 1, 0.9, (0, 0, 50, 62))]))
        for iou_type in ("bbox", "segm"):
            assert own[iou_type, "AP", None] == pytest.approx(0.3 * 51 / 101)
            assert own[iou_type, "AP50", None] == pytest.approx(51 / 101)
            assert own[iou_type, "AP75", None] == 0
            assert own[iou_type, "AR100", None] == pytest.approx(0.3 * 0.5)
            assert own[iou_type, "APm", None] == own[iou_type, "AP", 1] == own[iou_type, "AP", None]
            assert own[iou_type, "APs", None] == own[iou_type, "APl", None] == own[iou_type, "AP", 2] == -1

    def test_a_false_positive_in_an_image_without_ground_truth_costs_precision(self) -> None:
        dataset = dataset_of(tiny([[0, 0, 50, 100]]))
        rows = [found(1, 1, 0.8, (0, 0, 50, 100)), found(2, 1, 0.9, (0, 0, 50, 100))]
        assert numbers(dataset, detections_of(rows))["segm", "AP", None] == pytest.approx(0.5)

    def test_of_equal_scores_the_image_with_the_smaller_id_comes_first(self) -> None:
        document = tiny([[0, 0, 50, 100]], image_id=10)
        document["images"][0]["id"] = 10
        rows = [found(10, 1, 0.9, (0, 0, 50, 100)), found(2, 1, 0.9, (0, 0, 50, 100))]
        assert numbers(dataset_of(document), detections_of(rows))["segm", "AP", None] == pytest.approx(0.5)
        document["images"][1]["id"] = "2"
        assert numbers(dataset_of(document), detections_of(rows))["segm", "AP", None] == pytest.approx(1.0)

    def test_crowds_neither_need_finding_nor_punish_it(self) -> None:
        document = tiny([[0, 0, 50, 100], [100, 0, 100, 100]])
        document["annotations"][1]["iscrowd"] = 1
        rows = [found(1, 1, 0.8, (0, 0, 50, 100)), found(1, 1, 0.9, (110, 0, 130, 100))]
        dataset = dataset_of(document)
        assert numbers(dataset, detections_of(rows))["segm", "AP", None] == pytest.approx(1.0)
        metrics = coco_metrics(dataset, detections_of(rows))
        assert set(metrics.num_instances.tolist()) == {1, 0}

    def test_a_match_with_annotation_0_is_a_match(self) -> None:
        dataset = dataset_of(tiny([[0, 0, 50, 100]]))
        assert dataset.annotations.annotation_id.tolist() == ["0"]
        assert numbers(dataset, detections_of([found(1, 1, 0.9, (0, 0, 50, 100))]))[
            "bbox", "AP", None
        ] == pytest.approx(1)

    def test_original_boxes_are_one_pixel_smaller(self) -> None:
        dataset = dataset_of(tiny([[20, 20, 10, 10]]))
        detections = detections_of([found(1, 1, 0.9, (20, 20, 30, 30))])
        assert numbers(dataset, detections)["bbox", "AP", None] == pytest.approx(1.0)
        original = numbers(dataset, detections, conventions="original")
        assert original["bbox", "AP", None] == pytest.approx(0.7), "IoU 0.81 reaches seven thresholds"
        assert original["segm", "AP", None] == pytest.approx(1.0)

    def test_original_detections_of_masks_are_small_by_their_box(self) -> None:
        dataset = dataset_of(tiny([[0, 0, 20, 20]]))
        corner = np.zeros((1, 100, 200), dtype=bool)
        corner[0, 50:90, 50:60] = corner[0, 80:90, 50:90] = True
        rows = [found(1, 1, 0.8, (0, 0, 20, 20)), ("1", 1, 0.9, (50, 50, 90, 90), encode_masks(corner)[0])]
        assert numbers(dataset, detections_of(rows))["segm", "APs", None] == pytest.approx(0.5)
        original = numbers(dataset, detections_of(rows), conventions="original")
        assert original["segm", "APs", None] == pytest.approx(1.0), "1600 px of box are not small, 700 of mask are"

    def test_only_the_given_categories_and_images_count(self) -> None:
        document = tiny([[0, 0, 50, 100]])
        dataset = dataset_of(document)
        rows = [found(1, 1, 0.5, (0, 0, 50, 100)), found(2, 1, 0.9, (0, 0, 9, 9)), found(1, 2, 0.9, (0, 0, 50, 100))]
        first, boat = dataset.images[:1], dataset.categories[:1]
        metrics = coco_metrics(replace(dataset, images=first, categories=boat), detections_of(rows))
        assert metrics.value[0] == pytest.approx(1.0)
        assert set(metrics.category_name) == {None, "boat"}
        bird = coco_metrics(replace(dataset, images=first, categories=dataset.categories[1:]), detections_of(rows))
        assert set(bird.value.tolist()) == {-1}
        assert set(bird.num_instances.tolist()) == {0}


class TestMissingThings:
    @pytest.mark.parametrize("conventions", CONVENTIONS)
    def test_without_ground_truth_every_number_is_minus_one(self, conventions: Conventions) -> None:
        dataset = dataset_of(tiny([]))
        detections = detections_of([found(1, 1, 0.9, (0, 0, 50, 100))])
        own = numbers(dataset, detections, conventions=conventions)
        assert set(own.values()) == {-1}
        assert len(own) == 2 * (12 + 2 * 3)

    def test_without_detections_what_has_ground_truth_is_zero(self) -> None:
        own = numbers(dataset_of(tiny([[0, 0, 50, 100]])), Detections.empty())
        assert own["segm", "AP", None] == own["bbox", "AR100", None] == own["bbox", "AP50", 1] == 0
        assert own["bbox", "APs", None] == own["segm", "AP", 2] == -1

    def test_without_images_or_categories_every_number_is_minus_one(self) -> None:
        dataset = dataset_of(tiny([[0, 0, 50, 100]]))
        detections = detections_of([found(1, 1, 0.9, (0, 0, 50, 100))])
        no_images = coco_metrics(replace(dataset, images=dataset.images[:0]), detections)
        no_categories = coco_metrics(replace(dataset, categories=dataset.categories[:0]), detections)
        assert set(no_images.value.tolist()) == set(no_categories.value.tolist()) == {-1}
        assert len(no_categories) == 24

    def test_without_any_mask_only_boxes_are_compared(self) -> None:
        dataset = dataset_of(tiny([[0, 0, 50, 100]], masks=False))
        own = numbers(dataset, detections_of([found(1, 1, 0.9, (0, 0, 50, 100))]))
        assert own["bbox", "AP", None] == pytest.approx(1.0)
        assert {iou_type for iou_type, _, _ in own} == {"bbox"}

    @pytest.mark.parametrize("declared", [True, False])
    def test_where_only_some_have_no_mask_their_box_is_it(self, declared: bool) -> None:
        document = tiny([[0, 0, 50, 100], [100, 0, 50, 100]])
        document["annotations"][1]["segmentation"] = None
        document["annotations"].append({"id": 7, "image_id": 2, "category_id": 1, "bbox": [5, 5, 50, 50]})
        if not declared:
            document["annotations"][0]["segmentation"] = a_mask((0, 0, 50, 100)).to_coco()
            for image in document["images"]:
                del image["height"], image["width"]
        rows = [found(1, 1, 0.9, (100, 0, 150, 100)), found(1, 1, 0.9, (0, 0, 50, 100))]
        own = numbers(dataset_of(document), detections_of(rows))
        assert own["segm", "AR100", None] == pytest.approx(2 / 3)

    def test_images_labeled_at_another_size_are_named(self, caplog: pytest.LogCaptureFixture) -> None:
        document = tiny([[0, 0, 50, 100]])
        document["images"][0] |= {"height": 200, "width": 100}
        with caplog.at_level(logging.WARNING):
            own = numbers(dataset_of(document), detections_of([found(1, 1, 0.9, (0, 0, 50, 100))]))
        assert own["segm", "AP", None] == 0
        assert "1 image labeled at another size" in caplog.text
        assert ": 1. Check that width and height" in caplog.text

    @pytest.mark.parametrize("limits", [(1, 1, 100), (0, 1, 2)])
    def test_limits_that_mean_nothing_are_refused(self, limits: tuple[int, int, int]) -> None:
        dataset = dataset_of(tiny([]))
        with pytest.raises(ValueError, match="different limits of at least 1, got"):
            numbers(dataset, Detections.empty(), max_detections=limits)


class TestTables:
    @staticmethod
    def metrics() -> Metrics:
        dataset = dataset_of(tiny([[0, 0, 50, 100], [100, 0, 50, 100]]))
        detections = detections_of([found(1, 1, 0.9, (0, 0, 50, 62))])
        return coco_metrics(dataset, detections)

    def test_overall_numbers_stand_side_by_side(self) -> None:
        rows = metrics_table(self.metrics())
        assert rows[0] == ("", "bbox", "segm")
        assert [row[0] for row in rows[1:]] == TWELVE
        assert rows[1:5] == [
            ("AP", "0.151", "0.151"),
            ("AP50", "0.505", "0.505"),
            ("AP75", "0.000", "0.000"),
            ("APs", "-", "-"),
        ]

    def test_each_category_has_a_row(self) -> None:
        header = ("category", "instances", "bbox AP", "bbox AP50", "bbox AR100", "segm AP", "segm AP50", "segm AR100")
        assert category_table(self.metrics()) == [
            header,
            ("boat", "2", "0.151", "0.505", "0.150", "0.151", "0.505", "0.150"),
            ("bird", "0", "-", "-", "-", "-", "-", "-"),
        ]

    def test_the_tables_of_nothing_are_headers(self) -> None:
        nothing = Review(Metrics.empty())
        assert metrics_table(nothing.metrics) == [("",)]
        assert category_table(nothing.metrics) == [("category", "instances")]
        assert score_table(nothing.metrics) == [("", "score", "precision", "recall", "TP", "FP", "FN")]
        assert confusion_table(nothing) == [("category", "taken for", "instances", "of")]
        assert findings(nothing) == []

    @staticmethod
    def review(thresh_of: Callable[[str], float] | None = None) -> Review:
        document = tiny([[0, 0, 50, 100], [100, 0, 50, 100]])
        document["annotations"].append({"id": 9, "image_id": 2, "category_id": 2, "bbox": [0, 0, 9, 9]})
        dataset = dataset_of(document)
        rows = [
            found(1, 1, 0.9, (0, 0, 50, 62)),
            found(1, 2, 0.8, (100, 0, 150, 100)),
            found(2, 1, 0.2, (50, 50, 60, 60)),
        ]
        return review(dataset, detections_of(rows), thresh_of=thresh_of)

    def test_ap_stands_with_its_interval_and_categories_with_precision_and_recall(self) -> None:
        metrics = self.review().metrics
        rows = metrics_table(metrics)
        assert [row[0] for row in rows[1:]] == TWELVE
        assert rows[1][2] == "0.076 (0.000 to 0.151)"
        header, boat, _ = category_table(metrics)
        assert [name for name in header if "@" in name] == ["segm precision@0.5", "segm recall@0.5"]
        assert boat[-2:] == ("1.000", "0.500")

    def test_what_labels_of_a_score_are_worth_has_a_row_for_each_score(self) -> None:
        rows = score_table(self.review().metrics)
        assert rows[0] == ("", "score", "precision", "recall", "TP", "FP", "FN")
        assert [row[:2] for row in rows[1:]] == [(kind, s) for kind in ("bbox", "segm") for s in ("0.3", "0.5", "0.7")]
        assert rows[-1] == ("segm", "0.7", "0.500", "0.333", "1", "1", "2")

    def test_confusions_are_told_by_name_and_findings_by_sentences(self) -> None:
        assert confusion_table(self.review()) == [
            ("category", "taken for (score of 0.5 and above)", "instances", "of"),
            ("boat", "bird", "1", "2"),
        ]
        assert findings(self.review()) == [
            "1 category collapsed, segm AP below 0.01 though there are instances: bird (1).",
            "Detections of a score of 0.5 and above cover 1 of 3 instances by their own category, 1 by another, "
            "1 by none.",
            "In 1 image nothing of the ground truth is found, in 1 of them nothing at all: 2.",
        ]

    def test_confusions_are_those_at_the_thresholds_of_categories_where_there_are_some(self) -> None:
        among_both, boats_only = (self.review({"boat": 0.85, "bird": bird}.__getitem__) for bird in (0.1, 0.85))
        assert confusion_table(among_both) == [
            ("category", "taken for (score at their category's threshold and above)", "instances", "of"),
            ("boat", "bird", "1", "2"),
        ]
        assert confusion_table(boats_only)[1:] == []
        assert "cover 1 of 3 instances by their own category, 0 by another, 2 by none." in findings(boats_only)[1]
