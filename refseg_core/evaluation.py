"""Step 6: compares detections with the ground truth, as COCO does. The only door to `pycocotools.cocoeval`.

Numbers are those of `COCOeval`, to the last digit. Matching and counting never cross categories, so it is run for
one category at a time, over only the images that have an instance or a detection of it, and its arrays are stacked:
equal numbers, and neither its images x categories x areas table (0.4 billion entries for LVIS's validation set) nor
all detections as Python objects exist at once.

Shapes: T IoU thresholds, R recall points, K categories, A area ranges, M limits of detections per image.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from refseg_core.masks import Rle, mask_areas, rle_from_polygons
from refseg_core.settings import Conventions
from refseg_core.tables import Annotations, Categories, Detections, Images, Metrics

logger = logging.getLogger(__name__)

_NO_VALUE = -1.0  # COCO's number for "no ground truth"
_NAMED_IN_WARNINGS = 5
_AREAS = {"all": "", "small": "s", "medium": "m", "large": "l"}

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def evaluate(
    images: Images,
    annotations: Annotations,
    categories: Categories,
    detections: Detections,
    *,
    max_detections: tuple[int, int, int] = (1, 10, 100),
    conventions: Conventions = "corrected",
) -> Metrics:
    """COCO's twelve numbers over the given categories, and AP, AP50 and AR of each; for boxes and masks.

    All given images count, also those without ground truth; they are taken by ascending id, as COCO does, whatever
    their order here. Annotations and detections of other images or categories are left out; crowds are regions
    where detections do not count. Detections of equal score count in their given order.

    `max_detections`: limits per image and category, ascending; AP and the last AR use the largest. AR is named by
    the limit (AR1, AR10, AR100).
    `conventions`: "corrected" measures detections by their boxes for bbox and by their masks for segm. "original"
    repeats the published code: boxes one pixel smaller in width and height, which also give the area by which
    detections of masks fall into small, medium and large.

    Masks are left out if there are annotations and none has a mask; where only some have none, their box is their
    mask. Without ground truth every number is -1, COCO's sign for it.
    """
    if len(set(max_detections)) != len(max_detections) or min(max_detections) < 1:
        raise ValueError(f"max_detections needs three different limits of at least 1, got {max_detections}")
    categories = categories[np.argsort(categories.category_id)]
    instances = _Instances.select(images, annotations, categories, detections)
    _warn_of_other_sizes(images, instances)
    iou_types = ["bbox", "segm"] if instances.have_masks else ["bbox"]
    rows: list[_Row] = []
    for iou_type in iou_types:
        records = _Records(images, instances, iou_type, conventions)
        curves = _curves(records, categories, iou_type, sorted(max_detections))
        rows += _overall_rows(iou_type, curves, instances)
        rows += _category_rows(iou_type, curves, categories, instances)
    return _metrics(rows)


def metrics_table(metrics: Metrics) -> list[tuple[str, ...]]:
    """The overall numbers as text, header first: one row per metric, one column per IoU type."""
    overall = metrics[np.array([category is None for category in metrics.category_id], dtype=bool)]
    return _as_text("", overall.metric, overall.iou_type, overall.value)


def category_table(metrics: Metrics) -> list[tuple[str, ...]]:
    """The numbers per category as text, header first: name, instances, then one column per IoU type and metric."""
    of_category = metrics[np.array([category is not None for category in metrics.category_id], dtype=bool)]
    columns = [f"{kind} {name}" for kind, name in zip(of_category.iou_type, of_category.metric, strict=True)]
    counts = dict(zip(of_category.category_name, of_category.num_instances, strict=True))
    header, *rows = _as_text("category", of_category.category_name, columns, of_category.value)
    return [
        (header[0], "instances", *header[1:]),
        *((name, str(counts[name]), *values) for name, *values in rows),
    ]


def _as_text(
    corner: str, row_names: Iterable[str], column_names: Iterable[str], values: Floats
) -> list[tuple[str, ...]]:
    cells = dict(zip(zip(row_names, column_names, strict=True), values.tolist(), strict=True))
    columns = list(dict.fromkeys(column_names))
    texts = {cell: f"{value:.3f}" if value != _NO_VALUE else "-" for cell, value in cells.items()}
    lines = ((row, *(texts.get((row, column), "") for column in columns)) for row in dict.fromkeys(row_names))
    return [(corner, *columns), *lines]


# What is compared.


@dataclass(frozen=True)
class _Instances:
    """The annotations and detections that count, and for each the place of its image in COCO's order."""

    annotations: Annotations
    detections: Detections
    annotation_image: Rows
    detection_image: Rows

    @classmethod
    def select(
        cls, images: Images, annotations: Annotations, categories: Categories, detections: Detections
    ) -> "_Instances":
        """Keeps what lies in the images and belongs to the categories."""
        ids = images.image_id[_coco_order(images)]
        place_of = {image_id: place for place, image_id in enumerate(ids, start=1)}
        annotation_image, detection_image = (
            np.array([place_of.get(image_id, 0) for image_id in table.image_id], dtype=np.int64)
            for table in (annotations, detections)
        )
        counts = (annotation_image > 0) & np.isin(annotations.category_id, categories.category_id)
        found = (detection_image > 0) & np.isin(detections.category_id, categories.category_id)
        return cls(annotations[counts], detections[found], annotation_image[counts], detection_image[found])

    @property
    def have_masks(self) -> bool:
        """Whether masks can be compared."""
        return not len(self.annotations) or any(mask is not None for mask in self.annotations.mask_rle)

    def num_of(self, category_id: int) -> int:
        """The category's instances, without crowds."""
        return int(((self.annotations.category_id == category_id) & ~self.annotations.is_crowd).sum())


def _coco_order(images: Images) -> Rows:
    """Ascending ids: as numbers if all are, else as text. Detections of equal score rank in this order."""
    ids = images.image_id.tolist()
    keys = [int(image_id) for image_id in ids] if images.has_integer_id.all() else ids
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)


def _warn_of_other_sizes(images: Images, instances: _Instances) -> None:
    """COCO silently takes masks of different sizes for disjoint."""
    sizes = _ground_truth_sizes(images, instances)
    found = zip(instances.detection_image.tolist(), instances.detections.mask_rle, strict=True)
    differing = sorted({place for place, mask in found if sizes.get(place, mask.size) != mask.size})
    if differing:
        ids = images.image_id[_coco_order(images)]
        shown = ", ".join(ids[place - 1] for place in differing[:_NAMED_IN_WARNINGS])
        logger.warning(
            "%d images were labelled at another size than the annotations declare, so that nothing is sure to match "
            "there: %s%s. Check that width and height in the annotations are those of the image files.",
            len(differing),
            shown,
            ", ..." if len(differing) > _NAMED_IN_WARNINGS else "",
        )


def _ground_truth_sizes(images: Images, instances: _Instances) -> dict[int, tuple[int, int]]:
    """(height, width) by image place: as declared, else that of a mask of the ground truth."""
    order = _coco_order(images)
    declared = zip(images.height[order].tolist(), images.width[order].tolist(), strict=True)
    of_masks = _mask_sizes(instances.annotations, instances.annotation_image)
    return of_masks | {place: size for place, size in enumerate(declared, start=1) if all(size)}


def _mask_sizes(table: Annotations | Detections, image_places: Rows) -> dict[int, tuple[int, int]]:
    masks = zip(image_places.tolist(), table.mask_rle, strict=True)
    return {place: mask.size for place, mask in masks if mask is not None}


# COCO's arrays.


class _Curves(NamedTuple):
    """COCO's precision [T, R, K, A, M] and recall [T, K, A, M], -1 where there is no ground truth."""

    params: Params
    precision: Floats
    recall: Floats


def _curves(records: "_Records", categories: Categories, iou_type: str, max_detections: list[int]) -> _Curves:
    params = Params(iouType=iou_type)
    params.maxDets = max_detections
    num_ious, num_recalls, num_areas = len(params.iouThrs), len(params.recThrs), len(params.areaRng)
    shape = (len(categories), num_areas, len(max_detections))
    curves = _Curves(
        params,
        np.full((num_ious, num_recalls, *shape), _NO_VALUE),
        np.full((num_ious, *shape), _NO_VALUE),
    )
    for index, category_id in enumerate(categories.category_id.tolist()):
        ground_truth, found = records.ground_truth(category_id), records.detections(category_id)
        if ground_truth:
            evaluation = _evaluate_category(ground_truth, found, category_id, params)
            curves.precision[:, :, index] = evaluation["precision"][:, :, 0]
            curves.recall[:, index] = evaluation["recall"][:, 0]
    return curves


class _Records:
    """COCO's dictionaries, one category at a time."""

    def __init__(self, images: Images, instances: _Instances, iou_type: str, conventions: Conventions) -> None:
        self._instances = instances
        self._of_masks = iou_type == "segm"
        self._conventions = conventions
        self._annotation_rows = _by_category(instances.annotations.category_id)
        self._detection_rows = _by_category(instances.detections.category_id)
        # For masks made of boxes. Where there is no ground truth to tell the size, a detection does.
        self._sizes = _mask_sizes(instances.detections, instances.detection_image)
        self._sizes |= _ground_truth_sizes(images, instances)

    def ground_truth(self, category_id: int) -> list[dict[str, Any]]:
        """The category's annotations, with ids from 1: COCO takes a match with id 0 for none."""
        table = self._instances.annotations
        records = []
        for number, row in enumerate(self._annotation_rows.get(category_id, ()), start=1):
            place = int(self._instances.annotation_image[row])
            record = _record(number, place, category_id, table.box_xywh[row])
            record |= {"area": float(table.area[row]), "iscrowd": int(table.is_crowd[row])}
            if self._of_masks:
                mask = table.mask_rle[row] or _filled(table.box_xywh[row], self._sizes.get(place, (0, 0)))
                record["segmentation"] = mask.to_coco()
            records.append(record)
        return records

    def detections(self, category_id: int) -> list[dict[str, Any]]:
        """The category's detections."""
        table = self._instances.detections
        records = []
        for number, row in enumerate(self._detection_rows.get(category_id, ()), start=1):
            left, top, right, bottom = table.box_xyxy[row]
            shrink = 1 if self._conventions == "original" else 0
            box = np.array([left, top, right - left - shrink, bottom - top - shrink])
            record = _record(number, int(self._instances.detection_image[row]), category_id, box)
            record |= {"area": float(box[2] * box[3]), "iscrowd": 0, "score": float(table.score[row])}
            if self._of_masks:
                record["segmentation"] = table.mask_rle[row].to_coco()
                if self._conventions == "corrected":
                    record["area"] = float(mask_areas([table.mask_rle[row]])[0])
            records.append(record)
        return records


def _record(number: int, place: int, category_id: int, box_xywh: Floats) -> dict[str, Any]:
    return {"id": number, "image_id": place, "category_id": category_id, "bbox": box_xywh.tolist()}


def _by_category(category_ids: Rows) -> dict[int, list[int]]:
    """The rows of each category, in their order."""
    order = np.argsort(category_ids, kind="stable")
    present, starts = np.unique(category_ids[order], return_index=True)
    stops = [*starts[1:].tolist(), len(order)]
    spans = zip(present.tolist(), starts.tolist(), stops, strict=False)
    return {category_id: order[start:stop].tolist() for category_id, start, stop in spans}


def _filled(box_xywh: Floats, size: tuple[int, int]) -> Rle:
    """The box as a mask; where nothing tells the image's size nothing is compared with it, and any size does."""
    left, top, width, height = box_xywh.tolist()
    right, bottom = left + width, top + height
    corners = [left, top, left, bottom, right, bottom, right, top]
    rows, columns = size if all(size) else (1, 1)
    return rle_from_polygons([corners], rows, columns)


def _evaluate_category(
    ground_truth: list[dict[str, Any]], detections: list[dict[str, Any]], category_id: int, params: Params
) -> dict[str, Any]:
    """COCOeval's `eval` for one category."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(ground_truth, category_id), _coco(detections, category_id), params.iouType)
        evaluation.params.maxDets = list(params.maxDets)
        places = {record["image_id"] for record in (*ground_truth, *detections)}
        evaluation.params.imgIds = sorted(places)
        evaluation.params.catIds = [category_id]
        evaluation.evaluate()
        evaluation.accumulate()
    arrays: dict[str, Any] = evaluation.eval
    return arrays


def _coco(records: list[dict[str, Any]], category_id: int) -> COCO:
    coco = COCO()
    places = sorted({record["image_id"] for record in records})
    coco.dataset = {
        # Every mask carries its size, so the image's is never asked for.
        "images": [{"id": place, "height": 0, "width": 0} for place in places],
        "annotations": records,
        "categories": [{"id": category_id}],
    }
    coco.createIndex()
    return coco


# The numbers.


class _Row(NamedTuple):
    """A row of the table of metrics."""

    iou_type: str
    metric: str
    category_id: int | None
    category_name: str | None
    num_instances: int
    value: float


def _overall_rows(iou_type: str, curves: _Curves, instances: _Instances) -> Iterator[_Row]:
    num_instances = int((~instances.annotations.is_crowd).sum())
    for name, value in _overall(curves):
        yield _Row(iou_type, name, None, None, num_instances, value)


def _overall(curves: _Curves) -> Iterator[tuple[str, float]]:
    """COCO's twelve numbers in its order."""
    params, precision, recall = curves
    yield "AP", _mean(precision[:, :, :, 0, -1])
    for percent in (50, 75):
        yield f"AP{percent}", _mean(precision[_at_iou(params, percent), :, :, 0, -1])
    for index, label in enumerate(params.areaRngLbl[1:], start=1):
        yield f"AP{_AREAS[label]}", _mean(precision[:, :, :, index, -1])
    for index, limit in enumerate(params.maxDets):
        yield f"AR{limit}", _mean(recall[:, :, 0, index])
    for index, label in enumerate(params.areaRngLbl[1:], start=1):
        yield f"AR{_AREAS[label]}", _mean(recall[:, :, index, -1])


def _category_rows(iou_type: str, curves: _Curves, categories: Categories, instances: _Instances) -> Iterator[_Row]:
    params, precision, recall = curves
    for index, category_id in enumerate(categories.category_id.tolist()):
        numbers = {
            "AP": _mean(precision[:, :, index, 0, -1]),
            "AP50": _mean(precision[_at_iou(params, 50), :, index, 0, -1]),
            f"AR{params.maxDets[-1]}": _mean(recall[:, index, 0, -1]),
        }
        name, num_instances = categories.name[index], instances.num_of(category_id)
        for metric, value in numbers.items():
            yield _Row(iou_type, metric, category_id, name, num_instances, value)


def _at_iou(params: Params, percent: int) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isclose(params.iouThrs, percent / 100))


def _mean(values: Floats) -> float:
    """COCO's mean: over what has ground truth."""
    known = values[values > _NO_VALUE]
    return float(np.mean(known)) if len(known) else _NO_VALUE


def _metrics(rows: list[_Row]) -> Metrics:
    if not rows:
        return Metrics.empty()
    columns = dict(zip(_Row._fields, zip(*rows, strict=True), strict=True))
    return Metrics(**{name: np.array(values, dtype=object) for name, values in columns.items()})
