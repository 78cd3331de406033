"""COCO's numbers by pycocotools as everybody uses it: on dictionaries, over all images and categories at once."""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from refseg_core.settings import Conventions
from refseg_core.tables import Detections
from tests.support.oracles.evaluation_cases import Document

TWELVE = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
LIMITS = (1, 10, 100)

Numbers = dict[tuple[str, str, int | None], float]


def coco_numbers(document: Document, detections: Detections, conventions: Conventions) -> Numbers:
    """The twelve numbers and AP, AP50 and AR100 of each category, for boxes and masks."""
    return {
        (iou_type, name, category_id): value
        for iou_type in ("bbox", "segm")
        for name, category_id, value in _numbers(coco_run(document, detections, iou_type, conventions))
    }


def coco_run(
    document: Document,
    detections: Detections,
    iou_type: str,
    conventions: Conventions = "corrected",
    limits: Sequence[int] = LIMITS,
) -> COCOeval:
    # Without a bbox in the results, loadRes takes the detections' area from their masks.
    with_boxes = iou_type == "bbox" or conventions == "original"
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = json.loads(json.dumps(document))
        ground_truth.createIndex()
        results = ground_truth.loadRes(_results(detections, conventions, with_boxes=with_boxes))
        evaluation = COCOeval(ground_truth, results, iou_type)
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        if tuple(limits) == LIMITS:
            evaluation.summarize()
    return evaluation


def _results(detections: Detections, conventions: Conventions, *, with_boxes: bool) -> list[Document]:
    shrink = 1 if conventions == "original" else 0
    results = []
    for row in range(len(detections)):
        x1, y1, x2, y2 = detections.box_xyxy[row].tolist()
        result = {
            "image_id": int(detections.image_id[row]),
            "category_id": int(detections.category_id[row]),
            "score": float(detections.score[row]),
            "segmentation": detections.mask_rle[row].to_coco(),
        }
        if with_boxes:
            result["bbox"] = [x1, y1, x2 - x1 - shrink, y2 - y1 - shrink]
        results.append(result)
    return results


def _numbers(evaluation: COCOeval) -> Iterator[tuple[str, int | None, float]]:
    yield from ((name, None, value) for name, value in zip(TWELVE, evaluation.stats.tolist(), strict=True))
    for index, category_id in enumerate(evaluation.params.catIds):
        precision = evaluation.eval["precision"][:, :, index, 0, -1]
        recall = evaluation.eval["recall"][:, index, 0, -1]
        for name, values in (("AP", precision), ("AP50", precision[0]), ("AR100", recall)):
            known = values[values > -1]
            yield name, int(category_id), float(np.mean(known)) if known.size else -1.0
