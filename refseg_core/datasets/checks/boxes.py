"""Whether boxes are what they are said to be, (x, y, width, height): they should agree with masks and images.

Not here: single boxes that cannot be (`refseg_core/datasets/coco/annotations.py`).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refseg_core.datasets.checks.frames import image_rows
from refseg_core.datasets.coco.segmentations import box_around
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.oddities import EXAMPLES, Oddity
from refseg_core.errors import Problems
from refseg_core.settings import BoxForm
from refseg_core.table_schema import Array
from refseg_core.tables import Annotations

LOOK_LIKE_CORNERS = "boxes that look like x1, y1, x2, y2 and not like x, y, width, height: export them again"
FRACTIONS = "boxes that look like fractions of their image, none over 1: multiply them by its width and height"
APART = "boxes that lie apart from their masks: one of the two is not what the format asks for"
_NOT_CORNERS = "a box is not x1, y1, x2, y2 with x1 < x2 and y1 < y2: correct it, or references.boxes"
_CHECKED = 10_000  # boxes with masks, of more throughout the dataset; half a second
_APART, _ALIKE = 0.5, 0.8  # IoU of a box with that around its mask
_MANY = 0.3  # share of the boxes
_FEW = 3  # boxes that lie outside their images and are refused, without masks to compare them with
_SLACK = 2  # px


class _Checked(NamedTuple):
    """Boxes that were compared with their masks or images: which look like corners, and which lie apart; bool [N]."""

    annotations: Annotations
    are_corners: Array
    are_apart: Array


def odd_boxes(dataset: Dataset) -> Oddity | None:
    """Returns what is wrong with many of a dataset's boxes, or None where they agree with masks and images."""
    annotations = dataset.annotations[~dataset.annotations.is_crowd]
    masked = annotations[annotations.has_mask]
    if not len(masked):
        return _many_outside(dataset, annotations)
    some, are_corners, are_apart = _against_masks(masked)
    if len(some) and are_corners.mean() > _MANY:
        return _oddity(LOOK_LIKE_CORNERS, some[are_corners])
    return _oddity(APART, some[are_apart]) if are_apart.sum() > max(1, _MANY * len(some)) else None


def contradicting_boxes(dataset: Dataset) -> list[Oddity]:
    """Returns the boxes that contradict their masks or images, though it be one; kinds without any are left out."""
    annotations = dataset.annotations[~dataset.annotations.is_crowd]
    has_mask = annotations.has_mask
    some, are_corners, are_apart = _against_masks(annotations[has_mask])
    others, fit_as_corners, is_outside = _against_images(dataset, annotations[~has_mask])
    corners = [some[are_corners], others[fit_as_corners & is_outside]]
    apart = some[are_apart & ~are_corners]
    boxes = annotations.box_xywh
    are_fractions = np.full(len(boxes), bool(len(boxes)) and bool((boxes[:, :2] + boxes[:, 2:] <= 1).all()))
    found = (
        _oddity(FRACTIONS, annotations[are_fractions]),
        _oddity(LOOK_LIKE_CORNERS, Annotations.concatenate(corners)),
        _oddity(APART, apart),
    )
    return [oddity for oddity in found if oddity.count]


def _against_masks(annotations: Annotations) -> _Checked:
    """Compares the boxes of annotations with their masks; of very many, some throughout."""
    some = annotations[:: max(1, len(annotations) // _CHECKED)]
    around = [(row, box) for row, mask in enumerate(some.mask_rle) if (box := box_around(mask)) is not None]
    some = some[np.array([row for row, _ in around], dtype=np.int64)]
    given, masks = some.box_xywh, _corners(np.array([box for _, box in around], dtype=np.float64).reshape(-1, 4))
    as_given, as_corners = _iou(_corners(given), masks), _iou(given, masks)
    is_far = np.asarray(np.abs(_corners(given) - masks).max(axis=1, initial=0) > _SLACK)
    return _Checked(some, (as_corners >= _ALIKE) & (as_given < _ALIKE) & is_far, (as_given < _APART) & is_far)


def _against_images(dataset: Dataset, annotations: Annotations) -> _Checked:
    """Compares boxes with their images, where these have a size: which could be corners, and which end outside."""
    images = dataset.images
    sides = np.stack([images.width, images.height], axis=1)[image_rows(images, annotations)]
    known = np.asarray((sides > 0).all(axis=1))
    annotations, sides = annotations[known], sides[known]
    given = annotations.box_xywh
    is_outside = np.asarray((given[:, :2] + given[:, 2:] > sides + _SLACK).any(axis=1))
    are_corners = (given[:, 2:] > given[:, :2]).all(axis=1) & (given[:, 2:] <= sides + _SLACK).all(axis=1)
    return _Checked(annotations, np.asarray(are_corners), is_outside)


def _many_outside(dataset: Dataset, annotations: Annotations) -> Oddity | None:
    annotations, are_corners, is_outside = _against_images(dataset, annotations)
    if is_outside.sum() < _FEW or is_outside.mean() <= _MANY or not are_corners.all():
        return None
    return _oddity(LOOK_LIKE_CORNERS, annotations[is_outside])


def with_boxes(dataset: Dataset, form: BoxForm, source: str) -> Dataset:
    """Returns the dataset with its boxes taken in that form. Raises DatasetError where they cannot be."""
    annotations = dataset.annotations
    boxes = annotations.box_xywh.copy()
    if form == "xyxy":
        boxes[:, 2:] -= boxes[:, :2]
        problems = Problems()
        is_wrong = (boxes[:, 2:] <= 0).any(axis=1)
        problems.add_all(_NOT_CORNERS, [f"annotation {one}" for one in annotations.annotation_id[is_wrong]])
        problems.raise_if_any(source)
    if form == "mask":
        for row, mask in enumerate(annotations.mask_rle):
            if mask is not None and (box := box_around(mask)) is not None:
                boxes[row] = box
    return replace(dataset, annotations=annotations.replace(box_xywh=boxes))


def _corners(boxes_N4: Array) -> Array:
    return np.concatenate([boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]], axis=1)


def _iou(first_N4: Array, second_N4: Array) -> Array:
    """Returns the IoU of each pair of boxes, given by their corners; 0 for one that has none."""
    low, high = np.maximum(first_N4[:, :2], second_N4[:, :2]), np.minimum(first_N4[:, 2:], second_N4[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first_N4, second_N4)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-9))


def _oddity(what: str, found: Annotations) -> Oddity:
    shown = found[:EXAMPLES]
    examples = [
        f"annotation {own}, bbox {box.tolist()}" + ("" if mask is None else f", its mask lies in {box_around(mask)}")
        for own, box, mask in zip(shown.annotation_id, np.round(shown.box_xywh, 1), shown.mask_rle, strict=True)
    ]
    return Oddity(what, len(found), tuple(examples))
