"""PASCAL VOC's average precision against its development kit's rules, written out detection by detection."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.evaluation.protocols import evaluate, review
from refseg_core.evaluation.report import metrics_table
from refseg_core.settings import EvaluationSettings
from refseg_core.tables import Detections, Metrics
from tests.support.oracles.evaluation_cases import Document, a_synthetic_case, dataset_of, detections_of, found

_NUMBERS = ("VOC_AP50", "VOC07_AP50")
_VOC = EvaluationSettings(protocol="voc")
_Values = dict[tuple[str, int | None], float]


def _evaluated(document: Document, detections: Detections) -> Metrics:
    dataset = dataset_of(document)
    return evaluate(dataset, detections, settings=_VOC)


def _values(metrics: Metrics) -> _Values:
    rows = zip(metrics.iou_type, metrics.metric, metrics.category_id, metrics.value.tolist(), strict=True)
    return {(name, category): value for kind, name, category, value in rows if kind == "bbox" and name in _NUMBERS}


def _iou(one: list[float], other: list[float]) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = one, other
    wide, high = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    shared = max(wide, 0) * max(high, 0)
    return shared / (aw * ah + bw * bh - shared)


def _plainly(document: Document, detections: Detections) -> _Values:
    values: _Values = {}
    for category in sorted(entry["id"] for entry in document["categories"]):
        area, eleven = _of_category(document, detections, category)
        values["VOC_AP50", category], values["VOC07_AP50", category] = area, eleven
    for name in _NUMBERS:
        known = [value for (kind, _), value in values.items() if kind == name and value >= 0]
        values[name, None] = sum(known) / len(known) if known else -1
    return values


def _of_category(document: Document, detections: Detections, category: int) -> tuple[float, float]:
    truth: dict[str, list[dict[str, Any]]] = {}
    for entry in document["annotations"]:
        if entry["category_id"] == category:
            truth.setdefault(str(entry["image_id"]), []).append({**entry, "is_taken": False})
    num_wanted = sum(not entry.get("iscrowd") for entries in truth.values() for entry in entries)
    if not num_wanted:
        return -1, -1
    outcomes = []
    rows = [row for row in range(len(detections)) if detections.category_id[row] == category]
    for row in sorted(rows, key=lambda row: (-detections.score[row], int(detections.image_id[row]))):
        x1, y1, x2, y2 = detections.box_xyxy[row].tolist()
        here = truth.get(detections.image_id[row], [])
        ious = [_iou([x1, y1, x2 - x1, y2 - y1], entry["bbox"]) for entry in here]
        if not ious or max(ious) < 0.5:
            outcomes.append(False)
            continue
        best = here[ious.index(max(ious))]
        if not best.get("iscrowd"):
            outcomes.append(not best["is_taken"])
            best["is_taken"] = True
    recalls, precisions = [], []
    for count in range(1, len(outcomes) + 1):
        recalls.append(sum(outcomes[:count]) / num_wanted)
        precisions.append(sum(outcomes[:count]) / count)

    def best_from(recall: float) -> float:
        return max((p for r, p in zip(recalls, precisions, strict=True) if r >= recall), default=0)

    area = sum((r - before) * best_from(r) for r, before in zip(recalls, [0, *recalls], strict=False))
    return area, sum(best_from(tenth / 10) for tenth in range(11)) / 11


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_numbers_are_those_of_the_rules(seed: int) -> None:
    document, detections = a_synthetic_case(seed)
    assert _values(_evaluated(document, detections)) == pytest.approx(_plainly(document, detections), abs=1e-12)


def _one_image(*truth: tuple[list[float], int]) -> Document:
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 100, "width": 200}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 3, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for number, (box, crowd) in enumerate(truth, start=1)
        ],
    }


def test_a_detection_whose_best_instance_is_taken_is_wrong_though_another_is_left() -> None:
    document = _one_image(([0, 0, 40, 40], 0), ([0, 10, 40, 40], 0))
    detections = detections_of([found(1, 3, 0.9, (0, 0, 40, 40)), found(1, 3, 0.8, (0, 3, 40, 43))])
    metrics = _evaluated(document, detections)
    assert _values(metrics)["VOC_AP50", 3] == 0.5
    assert _values(metrics)["VOC07_AP50", 3] == pytest.approx(6 / 11)
    assert metrics.overall("AP50")["bbox"] == pytest.approx(1)


def test_a_difficult_object_is_neither_found_nor_missed_and_what_lies_in_it_is_not_excused() -> None:
    document = _one_image(([0, 0, 40, 40], 0), ([100, 0, 80, 80], 1))
    good, hit, within = (0, 0, 40, 40), (100, 0, 180, 78), (100, 0, 140, 40)
    assert _values(_evaluated(document, detections_of([found(1, 3, 0.9, hit), found(1, 3, 0.8, good)])))[
        "VOC_AP50", 3
    ] == pytest.approx(1)
    metrics = _evaluated(document, detections_of([found(1, 3, 0.9, within), found(1, 3, 0.8, good)]))
    assert _values(metrics)["VOC_AP50", 3] == 0.5
    assert metrics.overall("AP50")["bbox"] == pytest.approx(1)  # to COCO it is excused


def test_without_instances_or_detections() -> None:
    nothing = _evaluated({**_one_image(), "annotations": []}, detections_of([found(1, 3, 0.9, (0, 0, 9, 9))]))
    assert set(_values(nothing).values()) == {-1.0}
    missed = _evaluated(_one_image(([0, 0, 40, 40], 0)), Detections.empty())
    assert set(_values(missed).values()) == {0.0}


def test_a_reviewer_gets_them_beside_cocos_numbers() -> None:
    document, detections = a_synthetic_case(3)
    dataset = dataset_of(document)
    reviewed = review(dataset, detections, settings=_VOC)
    rows = [row[0] for row in metrics_table(reviewed.metrics)]
    assert [name for name in rows if name in ("AP", *_NUMBERS)] == ["AP", *_NUMBERS]
    assert reviewed.confusion is not None and np.isin(_NUMBERS, reviewed.metrics.metric.astype(str)).all()
