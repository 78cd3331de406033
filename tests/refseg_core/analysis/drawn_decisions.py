"""Decisions on drawn masks, each a square of an image of 20 x 20 pixels."""

import uuid
from itertools import count
from typing import Any

import numpy as np

from refseg_core.analysis.decisions import instance_id
from refseg_core.masks.rle import Rle, encode_masks, rle_boxes
from refseg_core.tables import Decisions, Detections, LabeledImages

SIDE = 20
CATEGORIES = {1: "boat", 2: "bird"}
_time = count(1)


def square(left: int, top: int, side: int = 10) -> Rle:
    """The mask of a square."""
    mask = np.zeros((1, SIDE, SIDE), dtype=bool)
    mask[0, top : top + side, left : left + side] = True
    return encode_masks(mask)[0]


def detections(*found: tuple[str, int, float, Rle]) -> Detections:
    """Detections by (image, category, score, mask)."""
    rows = [
        Detections.row(
            image_id=image_id,
            category_id=category_id,
            score=score,
            predicted_iou=0.9,
            box_xyxy=rle_boxes([mask])[0].tolist(),
            mask_rle=mask,
        )
        for image_id, category_id, score, mask in found
    ]
    return Detections.concatenate(rows)


def labeled_images(*image_ids: str, version: str = "1", side: int = SIDE) -> LabeledImages:
    """What became of images in which something was found."""
    nothing = {"error": None, "num_prompts": None, "max_similarity": None, "seconds": 0.5}
    rows = [
        LabeledImages.row(
            **{"image_id": one, "version": version, "status": "ok", "height": side, "width": side},
            **{"num_proposals": 9, "num_detections": 1, **nothing},
        )
        for one in image_ids
    ]
    return LabeledImages.concatenate(rows)


def decision(verdict: str, mask: Rle, *, image_id: str = "a.png", category: int = 1, **given: Any) -> Decisions:
    """A decision on an instance of a category, made after all that were made before."""
    own: dict[str, Any] = {
        "decision_id": uuid.uuid4().hex,
        "decided_at": f"2026-11-29T05:20:00.{next(_time):06d}Z",
        "reviewer": "Anna",
        "source": "review",
        "verdict": verdict,
        "image_id": image_id,
        "image_version": "1",
        "instance_id": instance_id(image_id, category, mask),
        "mask_rle": mask,
        "found_category_id": category,
        "score": 0.5,
        "predicted_iou": 0.9,
        "category_id": category,
        "new_mask_rle": None,
        "merged_into": None,
        "is_audit": False,
        "labels_key": "0" * 16,
    }
    own |= given
    found = own["found_category_id"]
    names = {"category_name": CATEGORIES.get(own["category_id"], ""), "found_category_name": CATEGORIES.get(found)}
    return Decisions.row(**names | own)
