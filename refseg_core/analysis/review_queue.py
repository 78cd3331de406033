"""In which order a person looks at instances: those first whose decision tells most.

What labels themselves say is used, no model: scores near the threshold, rivals of another category on the same place,
overlaps within a category, sizes unlike the references', and instances that other labels of the same images lack. Each
counts less the less an instance's score makes it part of the labels at all. Some instances are drawn by chance and
shown in between: an audit, which tells how good labels are (`audit.py`).

Shapes: N instances.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

AUDIT_SIZE = 60  # instances of a category: a precision of 0.94 is then known to within some 0.06
_AUDIT_EVERY = 6  # every so many in the queue one of the audit
_NEAR = 0.08  # score: how far from a threshold is near
_BELOW, _FADES = 0.15, 0.05  # score below the threshold where instances matter half as much, and how fast they fade
_SAME_PLACE = 0.5  # IoU of boxes from which on two instances rival
_SAME_IMAGE = 0.8  # each further instance of an image counts less than the one before, so that images take turns
_PAIRS_AT_ONCE = 256  # instances of an image compared with all others of it


class Reason(NamedTuple):
    """Why an instance may be wrong, how much that counts, and what a person reads of it."""

    name: str
    weight: float
    help: str


REASONS = (
    Reason("threshold", 1.0, "its score is near the threshold"),
    Reason("rival", 0.9, "another category was found on the same place"),
    Reason("overlap", 0.6, "it overlaps another instance of its category"),
    Reason("size", 0.6, "its size is unlike that of the references"),
    Reason("disagreement", 0.8, "other labels of the same images do not have it"),
)
AUDIT = Reason("audit", 0.0, "drawn by chance, to measure precision")


@dataclass(frozen=True)
class Instances:
    """What is known of N instances without their masks, those of an image in one piece.

    `image` and `category` are rows of tables. `score` and `thresh` in [0, 1]: the threshold of each one's category.
    `box_xyxy` [N, 4] and `area`: px. `reference_side`: smallest and largest side of its category's references, as the
    square root of their area, px [N, 2]; NaN where unknown. `is_lacking`: whether other labels lack it.
    """

    identity: Sequence[str]
    image: Integers
    category: Integers
    score: Floats
    thresh: Floats
    box_xyxy: Floats
    area: Floats
    reference_side: Floats
    is_lacking: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.identity)


@dataclass(frozen=True)
class Ranking:
    """In which order N instances are looked at. `order` [N]: their rows. `reason` [N]: rows of `REASONS`, -1: audit."""

    order: Integers
    reason: Integers

    def is_audit(self, row: int) -> bool:
        """Returns whether an instance was drawn by chance."""
        return bool(self.reason[row] < 0)

    def reason_of(self, row: int) -> Reason:
        """Returns what speaks most for looking at an instance."""
        return AUDIT if self.is_audit(row) else REASONS[int(self.reason[row])]


def rank(instances: Instances) -> Ranking:
    """Returns the order: most telling first, every few one of the audit, images in turns."""
    signals = np.stack(
        [
            np.exp(-(((instances.score - instances.thresh) / _NEAR) ** 2) / 2),
            *_overlaps(instances),
            _oddness_of_size(instances),
            instances.is_lacking.astype(np.float64),
        ]
    )
    weighted = signals * np.array([reason.weight for reason in REASONS])[:, None]
    matters = 1 / (1 + np.exp(-(instances.score - instances.thresh + _BELOW) / _FADES))
    in_turns = _in_turns(weighted.sum(axis=0) * matters, instances.image)
    audit = audit_sample(instances)
    reason = weighted.argmax(axis=0)
    reason[audit] = -1
    telling = np.argsort(-in_turns, kind="stable")
    return Ranking(_interleaved(telling[reason[telling] >= 0], audit), reason)


def audit_sample(instances: Instances) -> Integers:
    """Returns the rows of the audit, categories in turns: of each some at or above its threshold, drawn by chance.

    The chance is a hash of the identities, so that the sample is the same each time, also of more instances.
    """
    chance = np.array([_chance(one) for one in instances.identity], dtype=np.uint64)
    fit = np.flatnonzero(instances.score >= instances.thresh)
    drawn = fit[np.argsort(chance[fit], kind="stable")]
    turn = _number_within(instances.category[drawn])
    kept = turn < AUDIT_SIZE
    rows: Integers = drawn[kept][np.argsort(turn[kept], kind="stable")]
    return rows


def _chance(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")


def _number_within(groups: Integers) -> Integers:
    """Returns for each element its number within its group, from 0, in the given order."""
    order = np.argsort(groups, kind="stable")
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=sorted_groups[:1] - 1))
    sizes = np.diff(np.append(starts, len(groups)))
    numbers = np.empty(len(groups), dtype=np.int64)
    numbers[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return numbers


def _in_turns(value: Floats, image: Integers) -> Floats:
    """Returns the values, lowered by how many of the same image have larger ones."""
    order = np.argsort(-value, kind="stable")
    lowered = np.empty_like(value)
    lowered[order] = value[order] * _SAME_IMAGE ** _number_within(image[order]).astype(np.float64)
    return lowered


def _interleaved(telling: Integers, audit: Integers) -> Integers:
    """Returns both, one of the audit after every few of the others."""
    place_of_audit = (np.arange(len(audit)) + 1) * (_AUDIT_EVERY - 1) - 0.5
    places = np.concatenate([np.arange(len(telling)), place_of_audit])
    merged: Integers = np.concatenate([telling, audit])[np.argsort(places, kind="stable")]
    return merged


def _overlaps(instances: Instances) -> tuple[Floats, Floats]:
    """Returns how strong a rival of another category each instance has, and how much lies in one of its own, [0, 1]."""
    rival, overlap = np.zeros(len(instances)), np.zeros(len(instances))
    bounds = np.flatnonzero(np.diff(instances.image, prepend=-1, append=-1))
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for first in range(start, stop, _PAIRS_AT_ONCE):
            some, all_rows = slice(first, min(first + _PAIRS_AT_ONCE, stop)), slice(start, stop)
            rival[some], overlap[some] = _overlaps_of(instances, some, all_rows)
    return rival, overlap


def _overlaps_of(instances: Instances, some: slice, others: slice) -> tuple[Floats, Floats]:
    iou, within = box_overlaps(instances.box_xyxy[some], instances.box_xyxy[others])
    is_other = np.arange(some.start, some.stop)[:, None] != np.arange(others.start, others.stop)[None]
    is_same = instances.category[some][:, None] == instances.category[others][None]
    margin = np.abs(instances.score[some][:, None] - instances.score[others][None])
    rivalry = np.where((iou >= _SAME_PLACE) & ~is_same, iou * np.exp(-margin / _NEAR), 0)
    matters = instances.score[others] >= instances.thresh[others]
    contained = np.where(is_same & is_other & matters[None], within, 0)
    return rivalry.max(axis=1, initial=0), contained.max(axis=1, initial=0)


def box_overlaps(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Returns the IoU of all pairs of boxes, and the share of the first of each that lies within the second."""
    sides = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    shared = sides.clip(0).prod(axis=2)
    of_first, of_second = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second))
    union = of_first[:, None] + of_second[None] - shared
    return shared / np.maximum(union, 1e-9), shared / np.maximum(of_first, 1e-9)[:, None]


def same_place(
    box_xyxy: Floats, category: Integers, other_xyxy: Floats, other_category: Integers
) -> npt.NDArray[np.bool_]:
    """Returns whether instances [N] and others [M] are of one category on one place, boolean [N, M]."""
    iou, _ = box_overlaps(box_xyxy, other_xyxy)
    is_same: npt.NDArray[np.bool_] = (iou >= _SAME_PLACE) & (category[:, None] == other_category[None])
    return is_same


def _oddness_of_size(instances: Instances) -> Floats:
    """Returns 0 for sizes within those of the references, 1 for four times as large or small, in between by ratio."""
    side = np.log2(np.sqrt(np.maximum(instances.area, 1)))
    smallest, largest = np.log2(np.maximum(instances.reference_side, 1)).T
    beyond = np.maximum(smallest - side, side - largest)
    oddness: Floats = np.nan_to_num(beyond.clip(0, 2) / 2)
    return oddness


def reference_sides(category_of: Integers, areas: Mapping[int, Sequence[float]]) -> Floats:
    """Returns the smallest and largest side of the references of each category [N, 2], px; NaN where there are none."""
    range_of = {category: (min(some) ** 0.5, max(some) ** 0.5) for category, some in areas.items() if some}
    unknown = (float("nan"), float("nan"))
    return np.array([range_of.get(one, unknown) for one in category_of.tolist()], dtype=np.float64).reshape(-1, 2)
