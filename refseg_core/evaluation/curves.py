"""COCO's precision and recall. The only door to `pycocotools.cocoeval`.

Numbers are those of `COCOeval`, to the last digit. Matching and counting never cross categories, so it is run for
one category at a time, over only the images that have an instance or a detection of it, and its arrays are stacked:
equal numbers, and neither its images x categories x areas table (0.4 billion entries for LVIS's validation set) nor
all detections as Python objects exist at once.

Shapes: T IoU thresholds, R recall points, K categories, A area ranges, M limits of detections per image.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from refseg_core.evaluation.instances import Instances, Rows
from refseg_core.evaluation.rows import NO_VALUE, Floats, known_mean
from refseg_core.masks import mask_areas
from refseg_core.settings import Conventions
from refseg_core.tables import Categories

Record = dict[str, Any]
Which = slice | int | npt.NDArray[np.bool_]

_ALL = slice(None)


class Records:
    """COCO's dictionaries, one category at a time."""

    def __init__(self, instances: Instances, iou_type: str, conventions: Conventions) -> None:
        self._instances = instances
        self._of_masks = iou_type == "segm"
        self._conventions = conventions
        self._annotation_rows = _by_category(instances.annotations.category_id)
        self._detection_rows = _by_category(instances.detections.category_id)

    def of_category(self, category_id: int) -> tuple[list[Record], list[Record]]:
        """The category's annotations and detections."""
        return self._ground_truth(category_id), self._detections(category_id)

    def _ground_truth(self, category_id: int) -> list[Record]:
        """Annotations, with ids from 1: COCO takes a match with id 0 for none."""
        table = self._instances.annotations
        records = []
        for number, row in enumerate(self._annotation_rows.get(category_id, ()), start=1):
            place = int(self._instances.annotation_image[row])
            record = _record(number, place, category_id, table.box_xywh[row])
            record |= {"area": float(table.area[row]), "iscrowd": int(table.is_crowd[row])}
            if self._of_masks:
                record["segmentation"] = self._instances.true_mask(row).to_coco()
            records.append(record)
        return records

    def _detections(self, category_id: int) -> list[Record]:
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


def _record(number: int, place: int, category_id: int, box_xywh: Floats) -> Record:
    return {"id": number, "image_id": place, "category_id": category_id, "bbox": box_xywh.tolist()}


def _by_category(category_ids: Rows) -> dict[int, list[int]]:
    """The rows of each category, in their order."""
    order = np.argsort(category_ids, kind="stable")
    present, starts = np.unique(category_ids[order], return_index=True)
    stops = [*starts[1:].tolist(), len(order)]
    spans = zip(present.tolist(), starts.tolist(), stops, strict=False)
    return {category_id: order[start:stop].tolist() for category_id, start, stop in spans}


@dataclass(frozen=True)
class Curves:
    """COCO's precision [T, R, K, A, M] and recall [T, K, A, M], -1 where there is no ground truth."""

    params: Params
    precision: Floats
    recall: Floats

    @classmethod
    def of(cls, records: Records, categories: Categories, iou_type: str, max_detections: Sequence[int]) -> "Curves":
        """The curves of the categories, in their order; `max_detections` ascends."""
        params = Params(iouType=iou_type)
        params.maxDets = list(max_detections)
        num_ious, num_recalls = len(params.iouThrs), len(params.recThrs)
        shape = (len(categories), len(params.areaRng), len(max_detections))
        precision = np.full((num_ious, num_recalls, *shape), NO_VALUE)
        recall = np.full((num_ious, *shape), NO_VALUE)
        for index, category_id in enumerate(categories.category_id.tolist()):
            ground_truth, found = records.of_category(category_id)
            if ground_truth:
                evaluation = _evaluate_category(ground_truth, found, category_id, params)
                precision[:, :, index] = evaluation["precision"][:, :, 0]
                recall[:, index] = evaluation["recall"][:, 0]
        return cls(params, precision, recall)

    def average_precision(self, *, percent: int | None = None, which: Which = _ALL, area: str = "all") -> float:
        """AP at the largest limit of detections: over all IoU thresholds or at one, of `which` categories."""
        ious = _ALL if percent is None else np.isclose(self.params.iouThrs, percent / 100)
        return known_mean(self.precision[:, :, which, self._at(area), -1][ious])

    def average_recall(self, *, limit: int = -1, which: Which = _ALL, area: str = "all") -> float:
        """AR at the limit of detections of that index, of `which` categories."""
        return known_mean(self.recall[:, which, self._at(area), limit])

    def _at(self, area: str) -> int:
        return int(self.params.areaRngLbl.index(area))


def _evaluate_category(
    ground_truth: list[Record], detections: list[Record], category_id: int, params: Params
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


def _coco(records: list[Record], category_id: int) -> COCO:
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
