"""What a person changed in an image's labels elsewhere, by comparing them with what came back.

An instance is known by its mask again, since not every tool keeps ids. Small differences come from the way, such as
polygons of few corners, and are no changes. A tool that knows boxes only says nothing of masks: what comes back as a
box is compared with the boxes around the labels' masks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.analysis.decisions import SAME_MASK, SAME_OBJECT
from refseg_core.analysis.review_queue import box_overlaps
from refseg_core.masks.rle import Rle, mask_ious, rle_boxes

UNCHANGED = 0.9  # IoU from which on a mask or a box is as it was


class Correction(NamedTuple):
    """What became of an instance: its row among the labels, and among what came back; None where it is not there.

    `verdict` is one of `decisions.VERDICTS`: 'accept' unchanged, 'mask' another mask or box, and maybe another
    category, 'category' another category only, 'reject' removed, 'add' added.
    """

    verdict: str
    label: int | None
    annotation: int | None


def corrections(
    masks: Sequence[Rle],
    categories: npt.NDArray[np.int64],
    others: Sequence[Rle | None],
    other_xyxy: npt.NDArray[np.float64],
    other_categories: npt.NDArray[np.int64],
) -> list[Correction]:
    """Returns what became of N labels of an image, and which of M annotations that came back are new.

    `others`: the masks of the annotations, None where only the box of `other_xyxy` [M, 4] came back. The annotation of
    a label is the one of its category that overlaps it most, else one of another category on the same mask or box.
    """
    iou = _overlaps(masks, others, other_xyxy)
    is_same = categories[:, None] == other_categories[None]
    pairs = _pairs(np.where(is_same, iou, 0), SAME_OBJECT)
    left = iou.copy()
    left[list(pairs)], left[:, list(pairs.values())] = 0, 0
    pairs |= _pairs(left, SAME_MASK)
    kept = [_kept(row, other, iou[row, other], is_same=bool(is_same[row, other])) for row, other in pairs.items()]
    removed = [Correction("reject", row, None) for row in range(len(masks)) if row not in pairs]
    new = set(range(len(others))) - set(pairs.values())
    return [
        *sorted(kept, key=lambda one: one.label or 0),
        *removed,
        *(Correction("add", None, one) for one in sorted(new)),
    ]


def _overlaps(
    masks: Sequence[Rle], others: Sequence[Rle | None], other_xyxy: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Returns the IoU [N, M] of masks, and of boxes with the boxes around masks where an annotation is one."""
    is_box = np.array([other is None for other in others], dtype=bool)
    iou = np.zeros((len(masks), len(others)))
    iou[:, ~is_box] = mask_ious(list(masks), [other for other in others if other is not None])
    iou[:, is_box], _ = box_overlaps(rle_boxes(masks), other_xyxy[is_box])
    return iou


def _kept(label: int, annotation: int, iou: float, *, is_same: bool) -> Correction:
    if iou < UNCHANGED:
        return Correction("mask", label, annotation)
    return Correction("accept" if is_same else "category", label, annotation)


def _pairs(iou: npt.NDArray[np.float64], least: float) -> dict[int, int]:
    """Returns rows [N] with their columns [M], the largest overlaps first, each at most once."""
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    rows, columns = np.nonzero(iou >= least)
    for place in np.argsort(-iou[rows, columns], kind="stable").tolist():
        row, column = int(rows[place]), int(columns[place])
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs
