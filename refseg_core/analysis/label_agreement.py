"""How far two labelings of the same images agree: which instances are in both, and how alike those are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import mask_ious
from refseg_core.tables import Detections

_SAME_INSTANCE = 0.5  # IoU above which two masks of one category may be the same instance
_SAME_MASK = 0.999  # IoU of masks that count as equal (method, section 11)


@dataclass(frozen=True)
class Agreement:
    """Of all images: instances in the one and in the other, pairs of the same, and how alike the pairs are.

    `num_same`: pairs of the same category whose masks have an IoU above 0.999. `mean_iou`, `min_iou`: of all pairs.
    `max_score_difference`: between the scores of a pair. `differences`: the instances without an equal one, as
    (image_id, category_id, score, IoU with the nearest one of its category in the other labeling).
    """

    num_expected: int
    num_found: int
    num_paired: int
    num_same: int
    mean_iou: float
    min_iou: float
    max_score_difference: float
    differences: tuple[tuple[str, int, float, float], ...]

    @property
    def share(self) -> float:
        """Equal decisions among all of both labelings; 1 where both are empty."""
        decisions = self.num_expected + self.num_found - self.num_paired
        return self.num_same / decisions if decisions else 1.0


def compare_labels(expected: Detections, found: Detections) -> Agreement:
    """Pairs instances of one image and category, the most alike first, each with one."""
    theirs_of = _by_group(found)
    groups = [(ours, theirs_of[group]) for group, ours in _by_group(expected).items() if group in theirs_of]
    pairs = [_pair(expected, found, *rows) for rows in groups]
    iou_P = np.concatenate([np.zeros(0), *(iou for _, _, iou in pairs)])
    ours_P = np.concatenate([np.zeros(0, dtype=np.int64), *(ours for ours, _, _ in pairs)])
    theirs_P = np.concatenate([np.zeros(0, dtype=np.int64), *(theirs for _, theirs, _ in pairs)])
    score_P = np.abs(expected.score[ours_P] - found.score[theirs_P])
    is_same = iou_P > _SAME_MASK
    best_of = dict(zip(ours_P.tolist(), iou_P.tolist(), strict=True))
    differing = [row for row in range(len(expected)) if best_of.get(row, 0.0) <= _SAME_MASK]
    return Agreement(
        num_expected=len(expected),
        num_found=len(found),
        num_paired=len(iou_P),
        num_same=int(is_same.sum()),
        mean_iou=float(iou_P.mean()) if len(iou_P) else 1.0,
        min_iou=float(iou_P.min()) if len(iou_P) else 1.0,
        max_score_difference=float(score_P.max()) if len(score_P) else 0.0,
        differences=tuple(
            (
                str(expected.image_id[row]),
                int(expected.category_id[row]),
                float(expected.score[row]),
                best_of.get(row, 0.0),
            )
            for row in differing
        ),
    )


_Rows = npt.NDArray[np.int64]


def _by_group(detections: Detections) -> dict[tuple[str, int], _Rows]:
    """Returns the rows of each image and category."""
    rows: dict[tuple[str, int], list[int]] = {}
    for row, group in enumerate(zip(detections.image_id.tolist(), detections.category_id.tolist(), strict=True)):
        rows.setdefault(group, []).append(row)
    return {group: np.array(members, dtype=np.int64) for group, members in rows.items()}


def _pair(
    expected: Detections, found: Detections, ours_M: _Rows, theirs_N: _Rows
) -> tuple[_Rows, _Rows, npt.NDArray[np.float64]]:
    """Rows of pairs, and their IoU."""
    iou_MN = mask_ious(list(expected.mask_rle[ours_M]), list(found.mask_rle[theirs_N]))
    ours, theirs, ious = [], [], []
    for place in np.argsort(-iou_MN, axis=None, kind="stable").tolist():
        row, column = divmod(place, iou_MN.shape[1])
        if iou_MN[row, column] <= _SAME_INSTANCE:
            break
        if row not in ours and column not in theirs:
            ours.append(row)
            theirs.append(column)
            ious.append(iou_MN[row, column])
    return ours_M[ours], theirs_N[theirs], np.array(ious, dtype=np.float64)
