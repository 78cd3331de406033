"""What a reviewer asks beside AP: counts at a score, confusion, misses and how sure AP is; against plain oracles."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.evaluation.bootstrap import resampled_ap
from refseg_core.evaluation.coco import compare_coco
from refseg_core.evaluation.diagnostics import Review
from refseg_core.evaluation.protocols import review
from refseg_core.masks.rle import mask_ious
from refseg_core.settings import EvaluationSettings, ProtocolName
from refseg_core.tables import Detections
from tests.support.oracles.coco import coco_run
from tests.support.oracles.evaluation_cases import (
    Document,
    a_federated_case,
    a_synthetic_case,
    coco_metrics,
    dataset_of,
    detections_of,
    found,
)

THRESHES = (0.3, 0.5, 0.7)

Numbers = dict[tuple[str, str, int | None], float]


def reviewed(document: Document, detections: Detections, **options: Any) -> Review:
    dataset = dataset_of(document)
    return review(dataset, detections, **options)


def numbers(document: Document, detections: Detections, **options: Any) -> Numbers:
    metrics = reviewed(document, detections, **options).metrics
    keys = zip(metrics.iou_type, metrics.metric, metrics.category_id, strict=True)
    return dict(zip(keys, metrics.value.tolist(), strict=True))


def boats_and_birds(boxes: list[tuple[int, int, tuple[int, int, int, int]]]) -> Document:
    """Images 1 and 2 with an instance for each (image, category, x, y, width, height)."""
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "segmentation": [_corners(*box)]}
        for number, (image, category, box) in enumerate(boxes, start=1)
    ]
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 100, "width": 200} for number in (1, 2)]
    categories = [{"id": 1, "name": "boat"}, {"id": 2, "name": "bird"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _corners(x: int, y: int, width: int, height: int) -> list[int]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def test_the_protocols_numbers_come_first_and_are_what_they_were() -> None:
    document, detections = a_synthetic_case(0)
    dataset = dataset_of(document)
    metrics = coco_metrics(dataset, detections)
    assert reviewed(document, detections).metrics[: len(metrics)].equals(metrics)


class TestAtScores:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("iou_type", ["bbox", "segm"])
    def test_counts_are_those_of_pycocotools_matches(self, iou_type: str, seed: int) -> None:
        document, detections = a_synthetic_case(seed)
        own = numbers(document, detections)
        plain = coco_run(document, detections, iou_type)
        for thresh in THRESHES:
            right, wrong, wanted = Counter[int](), Counter[int](), Counter[int]()
            for of_image in plain.evalImgs:
                if of_image is None or of_image["aRng"] != plain.params.areaRng[0]:
                    continue
                category = of_image["category_id"]
                is_kept = np.array(of_image["dtScores"]) >= np.float32(thresh)
                is_right = (of_image["dtMatches"][0] > 0) & ~of_image["dtIgnore"][0].astype(bool)
                is_wrong = (of_image["dtMatches"][0] == 0) & ~of_image["dtIgnore"][0].astype(bool)
                right[category] += int((is_right & is_kept).sum())
                wrong[category] += int((is_wrong & is_kept).sum())
                wanted[category] += int((np.array(of_image["gtIgnore"]) == 0).sum())
            for category in (*plain.params.catIds, None):
                counts = [of.total() if category is None else of[category] for of in (right, wrong, wanted)]
                names = [f"{name}@{thresh:g}" for name in ("TP", "FP", "FN", "precision", "recall")]
                num_right, num_wrong, num_wanted = counts
                expected = [num_right, num_wrong, num_wanted - num_right]
                expected.append(num_right / (num_right + num_wrong) if num_right + num_wrong else -1)
                expected.append(num_right / num_wanted if num_wanted else -1)
                assert [own[iou_type, name, category] for name in names] == expected

    def test_what_is_found_where_nothing_of_its_category_is_annotated_is_wrong_too(self) -> None:
        document = boats_and_birds([(1, 1, (0, 0, 50, 50))])
        own = numbers(document, detections_of([found(2, 2, 0.6, (0, 0, 9, 9)), found(1, 1, 0.9, (0, 0, 50, 50))]))
        assert (own["segm", "FP@0.5", 2], own["segm", "precision@0.5", 2], own["segm", "recall@0.5", 2]) == (1, 0, -1)
        assert (own["segm", "precision@0.5", None], own["segm", "recall@0.5", None]) == (0.5, 1)
        assert own["segm", "precision@0.7", None] == 1

    def test_the_scores_are_a_setting_each_told_once(self) -> None:
        document, detections = a_synthetic_case(0)
        own = numbers(document, detections, settings=EvaluationSettings(score_threshes=(0.25, 0.1, 0.25000001)))
        named = [metric for kind, metric, category in own if kind == "segm" and category is None]
        assert [name for name in named if name.startswith("TP@")] == ["TP@0.1", "TP@0.25"]


class TestConfusion:
    @staticmethod
    def plain(document: Document, detections: Detections, thresh: float) -> Counter[tuple[int, int | None]]:
        """By the definition, image by image."""
        table = dataset_of(document).annotations
        counts: Counter[tuple[int, int | None]] = Counter()
        for image_id in set(table.image_id):
            true = table[(table.image_id == image_id) & ~table.is_crowd]
            here = detections[(detections.image_id == image_id) & (detections.score >= np.float32(thresh))]
            here = here[np.argsort(-here.score, kind="stable")]
            ious = mask_ious(here.mask_rle.tolist(), true.mask_rle.tolist())
            covered_by: dict[int, int] = {}
            for row in range(len(here)):
                near = [(ious[row, own], own) for own in range(len(true)) if own not in covered_by]
                if near and max(near)[0] >= 0.5:
                    covered_by[max(near)[1]] = int(here.category_id[row])
            counts.update((int(category), covered_by.get(row)) for row, category in enumerate(true.category_id))
        return counts

    @given(seed=st.integers(0, 1000))
    @settings(max_examples=12)
    def test_is_that_of_its_definition(self, seed: int) -> None:
        document, detections = a_synthetic_case(seed, num_images=6)
        table = reviewed(document, detections).confusion
        assert table is not None
        for thresh in THRESHES:
            own = table[table.score_thresh == thresh]
            pairs = zip(own.category_id.tolist(), own.found_category_id, strict=True)
            assert dict(zip(pairs, own.count.tolist(), strict=True)) == dict(self.plain(document, detections, thresh))

    def test_names_what_a_category_is_taken_for_and_what_is_covered_by_nothing(self) -> None:
        document = boats_and_birds([(1, 1, (0, 0, 50, 50)), (1, 1, (100, 0, 50, 50)), (2, 2, (0, 0, 20, 20))])
        rows = [
            found(1, 2, 0.9, (0, 0, 50, 50)),
            found(1, 1, 0.8, (0, 0, 50, 50)),
            found(1, 1, 0.4, (100, 0, 150, 50)),
        ]
        table = reviewed(document, detections_of(rows)).confusion
        assert table is not None
        found_rows = list(zip(table.score_thresh, table.category_id, table.found_category_id, table.count, strict=True))
        assert found_rows[:3] == [(0.3, 1, 1, 1), (0.3, 1, 2, 1), (0.3, 2, None, 1)]
        assert found_rows[3:6] == [(0.5, 1, 2, 1), (0.5, 1, None, 1), (0.5, 2, None, 1)]

    def test_without_detections_or_annotations_nothing_is_confused(self) -> None:
        nothing_found = reviewed(boats_and_birds([(1, 1, (0, 0, 50, 50))]), Detections.empty()).confusion
        assert nothing_found is not None
        assert nothing_found.found_category_id.tolist() == [None] * 3
        nothing_there = reviewed(boats_and_birds([]), detections_of([found(1, 1, 0.9, (0, 0, 9, 9))])).confusion
        assert nothing_there is not None
        assert len(nothing_there) == 0


class TestMisses:
    def test_are_images_of_which_nothing_was_found_though_something_is_there(self) -> None:
        document = boats_and_birds([(1, 1, (0, 0, 50, 50)), (2, 2, (0, 0, 20, 20)), (2, 1, (50, 50, 20, 20))])
        document["images"].append({"id": 10, "file_name": "10.jpg", "height": 100, "width": 200})
        rows = [found(1, 1, 0.8, (0, 0, 50, 50)), found(2, 1, 0.9, (0, 0, 20, 20)), found(2, 2, 0.2, (0, 0, 20, 20))]
        misses = reviewed(document, detections_of(rows)).misses
        assert misses is not None
        assert (misses.image_id.tolist(), misses.num_instances.tolist()) == (["2"], [2])
        assert misses.num_detections.tolist() == [1]

    def test_crowds_are_not_missed(self) -> None:
        document = boats_and_birds([(1, 1, (0, 0, 50, 50))])
        document["annotations"][0]["iscrowd"] = 1
        misses = reviewed(document, Detections.empty()).misses
        assert misses is not None
        assert len(misses) == 0


class TestInterval:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_drawn_set_has_the_ap_of_evaluating_it_outright(self, seed: int) -> None:
        document, detections = a_synthetic_case(seed, num_images=7)
        generator = np.random.default_rng(seed)
        scores = generator.permutation(len(detections)) / len(detections)
        detections = detections.replace(score=scores.astype(np.float32))
        times_BI = generator.multinomial(7, np.full(7, 1 / 7), 6)
        dataset = dataset_of(document)
        comparison = compare_coco(dataset, detections)
        ids = comparison.instances.image_ids.tolist()
        own = {kind: resampled_ap(matches, times_BI) for kind, matches in comparison.matches.items()}
        for row, times in enumerate(times_BI):
            drawn = dataset_of(_copied(document, dict(zip(ids, times.tolist(), strict=True))))
            copies = _copied_detections(detections, dict(zip(ids, times.tolist(), strict=True)))
            metrics = coco_metrics(drawn, copies)
            for kind in ("bbox", "segm"):
                expected = metrics.value[(metrics.iou_type == kind) & (metrics.metric == "AP")][0]
                assert own[kind][row] == pytest.approx(expected, abs=1e-12)

    def test_lies_about_ap_and_is_the_same_every_time(self) -> None:
        document, detections = a_synthetic_case(1)
        own = numbers(document, detections)
        for kind in ("bbox", "segm"):
            assert 0 < own[kind, "AP_low", None] < own[kind, "AP", None] < own[kind, "AP_high", None] < 1
        assert numbers(document, detections) == own

    def test_is_left_out_where_there_is_no_ground_truth_or_there_are_many_images(self) -> None:
        rows = detections_of([found(1, 1, 0.9, (0, 0, 9, 9))])
        assert ("segm", "AP_low", None) not in numbers(boats_and_birds([]), rows)
        document = boats_and_birds([(1, 1, (0, 0, 50, 50))])
        assert ("segm", "AP_low", None) in numbers(document, rows)
        document["images"] += [{"id": 100 + number, "file_name": f"{number}.jpg"} for number in range(498)]
        assert ("segm", "AP_low", None) not in numbers(document, rows)


def _copied(document: Document, times: dict[str, int]) -> Document:
    """The images so many times, their copies beside one another in the order of ids."""
    copies = [(old, old * 100 + copy) for old in map(int, times) for copy in range(times[str(old)])]
    images = [image | {"id": new} for old, new in copies for image in document["images"] if image["id"] == old]
    annotations = [
        annotation | {"image_id": new}
        for old, new in copies
        for annotation in document["annotations"]
        if annotation["image_id"] == old
    ]
    numbered = [annotation | {"id": number} for number, annotation in enumerate(annotations, start=1)]
    return document | {"images": images, "annotations": numbered}


def _copied_detections(detections: Detections, times: dict[str, int]) -> Detections:
    parts = [Detections.empty()]
    for image_id, number in times.items():
        own = detections[detections.image_id == image_id]
        ids = [np.full(len(own), str(int(image_id) * 100 + copy), dtype=object) for copy in range(number)]
        parts += [own.replace(image_id=new) for new in ids]
    return Detections.concatenate(parts)


class TestProtocols:
    def test_novel_categories_give_ap_another_name_too(self) -> None:
        document, detections = a_synthetic_case(0)
        own = numbers(document, detections, is_novel=True)
        assert own["segm", "nAP", None] == own["segm", "AP", None]
        assert own["bbox", "nAP50", None] == own["bbox", "AP50", None]
        assert ("segm", "nAP", None) not in numbers(document, detections)

    @pytest.mark.parametrize(("protocol", "num_tables"), [("coco", 3), ("lvis", 3), ("semantic", 1)])
    def test_comparing_pixels_has_the_metrics_only(self, protocol: ProtocolName, num_tables: int) -> None:
        document, detections = a_federated_case(0)
        chosen = EvaluationSettings(protocol=protocol)
        own = reviewed(document, detections, settings=chosen)
        assert len(own.tables) == num_tables
        assert ("TP@0.5" in own.metrics.metric) == (num_tables > 1)
