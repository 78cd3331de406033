"""Overlaps, matching and curves: bit for bit pycocotools', on drawn cases that crowd together what is rare."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from refseg_core.evaluation.curves import Curves
from refseg_core.evaluation.matching import AREA_RANGES, IOU_THRESHES, assign, match
from refseg_core.evaluation.overlaps import GroundTruth, Predictions, box_ious
from refseg_core.masks.rle import encode_masks
from refseg_core.tables import Categories

_CATEGORIES = (3, 5)
_IMAGES = (1, 2, 3, 4)  # the last without instances
_SIDE = 8
# Areas at the ranges' borders, just beside them, and in no range.
_BORDERS = [0.0, 1.0, 1024.0, np.nextafter(1024, 0), np.nextafter(1024, 2000), 9216.0, 9216.5, 1e10, 2e10, np.inf]

_box = st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(0, _SIDE - 3)] * 2)
_annotation = st.tuples(
    st.sampled_from(_IMAGES[:-1]), st.sampled_from(_CATEGORIES), _box, st.sampled_from(_BORDERS), st.booleans()
)
_detection = st.tuples(
    st.sampled_from(_IMAGES), st.sampled_from(_CATEGORIES), _box, st.sampled_from(_BORDERS), st.sampled_from([0.3, 0.5])
)
_limits = st.sampled_from([(1, 10, 100), (1, 2, 3), (2,), (1, 3)])


def columns(kind: type[Any], rows: Sequence[tuple[Any, ...]], iou_type: str) -> Any:
    """GroundTruth or Predictions of (image, category, box, area, crowd or score)."""
    image, category, boxes, area, last = zip(*rows, strict=True) if rows else ((),) * 5
    shape = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    if iou_type == "segm":
        shape = np.empty(len(rows), dtype=object)
        shape[:] = [mask_of(box) for box in boxes]
    last = np.array(last, dtype=bool if kind is GroundTruth else np.float32)
    return kind(np.array(category, dtype=np.int64), np.array(image, dtype=np.int64), np.array(area), shape, last)


def mask_of(box: tuple[int, int, int, int]) -> Any:
    left, top, width, height = box
    mask = np.zeros((1, _SIDE, _SIDE), dtype=bool)
    mask[0, top : top + height, left : left + width] = True
    return encode_masks(mask)[0]


def plain_curves(
    annotations: Sequence[tuple[Any, ...]], detections: Sequence[tuple[Any, ...]], iou_type: str, limits: Sequence[int]
) -> dict[str, Any]:
    """COCOeval's arrays over all images and categories."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(plain_coco(annotations, "iscrowd"), plain_coco(detections, "score"), iou_type)
        evaluation.params.maxDets = list(limits)
        evaluation.params.imgIds, evaluation.params.catIds = list(_IMAGES), list(_CATEGORIES)
        evaluation.evaluate()
        evaluation.accumulate()
    arrays: dict[str, Any] = evaluation.eval
    return arrays


def plain_coco(rows: Sequence[tuple[Any, ...]], last: str) -> COCO:
    coco = COCO()
    records = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": list(box),
            "segmentation": mask_of(box).to_coco(),
            "area": area,
            "iscrowd": 0,
            last: float(np.float32(value)) if last == "score" else int(value),
        }
        for number, (image, category, box, area, value) in enumerate(rows, start=1)
    ]
    coco.dataset = {
        "images": [{"id": image, "height": _SIDE, "width": _SIDE} for image in _IMAGES],
        "annotations": records,
        "categories": [{"id": category} for category in _CATEGORIES],
    }
    coco.createIndex()
    return coco


def categories() -> Categories:
    return Categories(
        category_id=np.array(_CATEGORIES),
        class_index=np.arange(len(_CATEGORIES)),
        name=np.array(["a", "b"], dtype=object),
        frequency=np.array([None, None], dtype=object),
    )


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@given(annotations=st.lists(_annotation, max_size=12), detections=st.lists(_detection, max_size=16), limits=_limits)
@settings(max_examples=100)
@pytest.mark.slow
def test_precision_and_recall_are_those_of_pycocotools(
    iou_type: str, annotations: list[Any], detections: list[Any], limits: tuple[int, ...]
) -> None:
    truth, found = columns(GroundTruth, annotations, iou_type), columns(Predictions, detections, iou_type)
    curves = Curves.of(match(truth, found, categories().category_id.tolist(), limits[-1]), limits)
    expected = plain_curves(annotations, detections, iou_type, limits)
    np.testing.assert_array_equal(curves.precision, expected["precision"])
    np.testing.assert_array_equal(curves.recall, expected["recall"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_so_are_those_of_images_full_of_detections(iou_type: str, seed: int) -> None:
    generator = np.random.default_rng(seed)

    def drawn(num: int, images: int, last: list[float]) -> list[Any]:
        corners = [tuple(generator.integers(0, [4, 4, 6, 6]).tolist()) for _ in range(num)]
        picks = [generator.choice(of, num).tolist() for of in (_IMAGES[:images], _CATEGORIES, _BORDERS, last)]
        return list(zip(*picks[:2], corners, *picks[2:], strict=True))

    annotations, detections = drawn(60, 3, [0, 0, 0, 1]), drawn(900, 4, [0.1, 0.2, 0.3, 0.4])
    truth, found = columns(GroundTruth, annotations, iou_type), columns(Predictions, detections, iou_type)
    curves = Curves.of(match(truth, found, categories().category_id.tolist(), 100), (1, 10, 100))
    expected = plain_curves(annotations, detections, iou_type, (1, 10, 100))
    np.testing.assert_array_equal(curves.precision, expected["precision"])
    np.testing.assert_array_equal(curves.recall, expected["recall"])


_side = st.floats(-3, 1500, width=32).map(lambda value: value / 3)
_boxes = st.lists(st.tuples(_side, _side, _side, _side), min_size=1, max_size=6)


@given(found=_boxes, true=_boxes, crowds=st.lists(st.booleans(), min_size=6, max_size=6))
@settings(max_examples=200)
@pytest.mark.slow
def test_overlaps_of_boxes_are_those_of_pycocotools(found: list[Any], true: list[Any], crowds: list[bool]) -> None:
    is_crowd = np.array(crowds[: len(true)])
    ious = box_ious(np.array(found), np.array(true), is_crowd)
    expected = coco_mask.iou(np.array(found), np.array(true), is_crowd.tolist())
    assert ious.tolist() == expected.tolist()


class TestByHand:
    """One image; at the lowest threshold and over all areas, what becomes of the detections."""

    @staticmethod
    def outcomes(annotations: list[Any], detections: list[Any], area: str = "all") -> str:
        truth = columns(GroundTruth, [(1, 3, *rest) for rest in annotations], "bbox")
        found = columns(Predictions, [(1, 3, *rest, 0.5) for rest in detections], "bbox")
        outcomes = assign(truth, found)
        index = list(AREA_RANGES).index(area)
        named = np.where(outcomes.is_wrong, "wrong", "ignored")
        return " ".join(np.where(outcomes.is_right, "right", named)[index, 0])

    def test_the_first_takes_what_overlaps_it_most(self) -> None:
        annotations = [((0, 0, 4, 4), 16.0, False), ((0, 0, 4, 3), 12.0, False)]
        assert self.outcomes(annotations, [((0, 0, 4, 4), 16.0)] * 3) == "right right wrong"

    def test_a_crowd_is_never_used_up(self) -> None:
        assert self.outcomes([((0, 0, 4, 4), 16.0, True)], [((0, 0, 2, 2), 4.0)] * 3) == "ignored ignored ignored"

    def test_what_counts_goes_before_what_overlaps_more_but_does_not_count(self) -> None:
        annotations = [((0, 0, 4, 4), 16.0, True), ((0, 0, 4, 3), 12.0, False)]
        assert self.outcomes(annotations, [((0, 0, 4, 4), 16.0)] * 2) == "right ignored"

    def test_an_instance_out_of_the_range_is_used_up_and_ignored(self) -> None:
        annotations = [((0, 0, 4, 4), 16.0, False)]
        assert self.outcomes(annotations, [((0, 0, 4, 4), 16.0), ((0, 0, 4, 4), 2000.0)], "medium") == "ignored wrong"


def test_thresholds_and_ranges_are_those_of_coco() -> None:
    params = Params(iouType="bbox")
    assert IOU_THRESHES.tolist() == params.iouThrs.tolist()
    assert [list(ends) for ends in AREA_RANGES.values()] == params.areaRng
    assert list(AREA_RANGES) == params.areaRngLbl
