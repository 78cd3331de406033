"""What people's decisions on instances mean, and what becomes of labels by them.

An instance is known by a hash of its image, category and mask. When images are labeled again its mask may differ by
some pixels: then it is known by how much the masks overlap. Decisions carry the mask that was shown, so they need no
labels to stand on, and what was accepted, corrected or added is in whatever labels are made later.

Not here: storing and reading decisions (`tasks/store/reviews.py`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from refseg_core.masks.rle import Rle, mask_ious, rle_boxes
from refseg_core.table_schema import Array
from refseg_core.tables import Categories, Decisions, Detections, LabeledImages

UNDO = "undo"  # the source of rows that take something back
CERTAIN = 1.0  # the score of what a person decided on: it passes every threshold
SAME_OBJECT = 0.5  # IoU from which on masks of one category are of one object, as evaluation has it
SAME_MASK = 0.8  # IoU from which on masks are the same but for some pixels
NEGATIVE = "negative"
_ID_LENGTH = 16

Aspect = Literal["label", "bank"]


class Verdict(NamedTuple):
    """What a verdict speaks of, whether there is an instance by it, and what it means. `stands`: not an undo."""

    aspect: Aspect
    is_positive: bool
    help: str
    stands: bool = True


VERDICTS: Mapping[str, Verdict] = {
    "accept": Verdict("label", True, "mask and category are right"),
    "category": Verdict("label", True, "the mask is right, and of another category"),
    "mask": Verdict("label", True, "the category is right, and the mask another"),
    "add": Verdict("label", True, "an object that was missed"),
    "reject": Verdict("label", False, "no object of this category"),
    "part": Verdict("label", False, "only a part of an object, or several objects"),
    "merge": Verdict("label", False, "belongs to an object that another mask stands for"),
    "undecided": Verdict("label", False, "nothing is decided any more", stands=False),
    "reference": Verdict("bank", True, "an example of its category for the next bank"),
    NEGATIVE: Verdict("bank", False, "an example of what its category is not, for the next bank"),
    "unused": Verdict("bank", False, "no example any more", stands=False),
}


def instance_id(image_id: str, category_id: int, mask: Rle) -> str:
    """Returns what identifies an instance: the same for equal masks of a category in an image, in whatever labels."""
    height, width = mask.size
    content = f"{image_id}\0{category_id}\0{height}x{width}\0{mask.counts}"
    return hashlib.sha256(content.encode()).hexdigest()[:_ID_LENGTH]


def instance_ids(detections: Detections) -> list[str]:
    """Returns what identifies each detection [N]."""
    rows = zip(detections.image_id, detections.category_id.tolist(), detections.mask_rle, strict=True)
    return [instance_id(*row) for row in rows]


def fitting(decisions: Decisions) -> Array:
    """Returns which decisions [N], boolean, have no other mask than one of the size of the mask that was shown."""
    masks = zip(decisions.mask_rle, decisions.new_mask_rle, strict=True)
    return np.array([new is None or new.size == shown.size for shown, new in masks], dtype=bool)


def standing(decisions: Decisions) -> Decisions:
    """Returns the decisions that count: the last on each instance's label and on its use in the bank, no undone ones.

    By time, and by id where times are equal; rows that are there twice count once. The result is in that order. Those
    whose mask is of another image's size count for nothing. What an undo brings back has the id of the undo, as
    another decision than the one that was there before.
    """
    decisions = decisions[fitting(decisions)]
    ordered = decisions[np.lexsort((decisions.decision_id.astype(str), decisions.decided_at.astype(str)))]
    first = np.unique(ordered.decision_id.astype(str), return_index=True)[1]
    ordered = ordered[np.sort(first)]
    last = sorted(one for one in _last_of_each(ordered) if VERDICTS[ordered.verdict[one.row]].stands)
    rows, since = (_int_array([one[place] for one in last]) for place in range(2))
    return ordered[rows].replace(decision_id=ordered.decision_id[since])


def _last_of_each(ordered: Decisions) -> Iterator["Counting"]:
    """Yields the row that counts for each instance's label, and for its use in the bank, if one does."""
    rows_of: defaultdict[tuple[str, str, Aspect], list[int]] = defaultdict(list)
    aspects = [VERDICTS[verdict].aspect for verdict in ordered.verdict]
    for row, key in enumerate(zip(ordered.image_id, ordered.instance_id, aspects, strict=True)):
        rows_of[key].append(row)
    for rows in rows_of.values():
        for last in counting([(ordered.reviewer[row], ordered.source[row]) for row in rows])[-1:]:
            yield Counting(rows[last.row], rows[last.since])


class Counting(NamedTuple):
    """A row that is not taken back, and the one since which it counts: itself, or the undo that brought it back."""

    row: int
    since: int


def counting(made_by: Sequence[tuple[str, str]]) -> list[Counting]:
    """Returns which of the rows on an instance, by time, are not taken back. `made_by`: reviewer and source of each.

    The last of them counts. An undo takes back the last row of its own reviewer, whatever the one who wrote it knew of
    the others' rows; what it holds itself is what was known.
    """
    kept: list[Counting] = []
    for number, (reviewer, source) in enumerate(made_by):
        if source != UNDO:
            kept.append(Counting(number, number))
        elif own := [one for one in kept if made_by[one.row][0] == reviewer]:
            is_last = own[-1] == kept[-1]
            kept.remove(own[-1])
            kept[-1:] = [one._replace(since=number) if is_last else one for one in kept[-1:]]
    return kept


def of_aspect(decisions: Decisions, aspect: Aspect) -> Decisions:
    """Returns the decisions on labels, or those on what the bank is made from."""
    return decisions[np.array([VERDICTS[verdict].aspect == aspect for verdict in decisions.verdict], dtype=bool)]


def label_decisions(decisions: Decisions) -> Decisions:
    """Returns the decisions that count for labels, by time: those on them, and negatives, each of which is a rejection.

    A negative is no instance of its category, so that it rejects what was shown, unless the label was decided on later.
    """
    counting = standing(decisions)
    is_of_label = [one == NEGATIVE or VERDICTS[one].aspect == "label" for one in counting.verdict]
    labels = counting[np.array(is_of_label, dtype=bool)]
    last = {key: row for row, key in enumerate(zip(labels.image_id, labels.instance_id, strict=True))}
    return as_rejections(labels[np.array(sorted(last.values()), dtype=np.int64)])


def as_rejections(decisions: Decisions) -> Decisions:
    """Returns decisions with rejections in the place of negatives."""
    return decisions.replace(
        verdict=np.where(decisions.verdict == NEGATIVE, "reject", decisions.verdict).astype(object)
    )


def in_categories(decisions: Decisions, categories: Categories) -> Decisions:
    """Returns the decisions by the ids of these categories, found by name; without those of other categories."""
    id_of = dict(zip(categories.name, categories.category_id.tolist(), strict=True))
    found = [None if name is None else id_of.get(name, -1) for name in decisions.found_category_name]
    decided = np.array([id_of.get(name, -1) for name in decisions.category_name], dtype=np.int64)
    is_known = np.array([name in id_of for name in decisions.category_name], dtype=bool)
    renumbered = decisions.replace(found_category_id=np.array(found, dtype=object), category_id=decided)
    return renumbered[is_known]


class DecidedInstances:
    """The standing decisions on labels, to be applied to the labels of any of their images."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = label_decisions(decisions)
        self._rows = _rows_by_image(self._decisions)

    def __len__(self) -> int:
        """How many instances are decided on."""
        return len(self._decisions)

    def apply(self, detections: Detections, labeled: LabeledImages) -> Detections:
        """Returns the labels of these images by what was decided on them.

        Rejected instances are gone, accepted ones have the score 1, corrected and added ones are as decided, with that
        score; the rest is as it was. Of an image whose content or size has changed since, nothing is decided.
        """
        if not any(image_id in self._rows for image_id in labeled.image_id):
            return detections
        rows = _rows_by_image(detections)
        parts = [detections[_int_array(rows.get(image_id, []))] for image_id in labeled.image_id]
        return Detections.concatenate(
            [_applied(part, self._decisions_on(labeled, row)) for row, part in enumerate(parts)]
        )

    def num_removed(self, detections: Detections, labeled: LabeledImages) -> int:
        """Returns how many of the labels of these images are gone because people rejected or merged them."""
        rows, number = _rows_by_image(detections), 0
        for row, image_id in enumerate(labeled.image_id):
            if image_id in self._rows and image_id in rows:
                decisions = self._decisions_on(labeled, row)
                negative = decisions[~_is_positive(decisions)]
                number += int(_is_decided(detections[_int_array(rows[image_id])], negative).sum())
        return number

    def _decisions_on(self, labeled: LabeledImages, row: int) -> Decisions:
        """Returns the decisions on an image that were made of what it now is."""
        of_image = self._decisions[_int_array(self._rows.get(labeled.image_id[row], []))]
        size, version = (int(labeled.height[row]), int(labeled.width[row])), labeled.version[row]
        has_size = [mask.size == size for mask in of_image.mask_rle]
        has_version = [not version or other in ("", version) for other in of_image.image_version]
        return of_image[np.array(has_size, dtype=bool) & np.array(has_version, dtype=bool)]


def _rows_by_image(table: Detections | Decisions) -> dict[str, list[int]]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, image_id in enumerate(table.image_id):
        rows[image_id].append(row)
    return dict(rows)


def _int_array(rows: Sequence[int]) -> Array:
    return np.array(rows, dtype=np.int64)


def _applied(detections: Detections, decisions: Decisions) -> Detections:
    """Returns one image's labels by the decisions on it, which come first: their score is the highest there is."""
    if not len(decisions):
        return detections
    return Detections.concatenate([_decided(decisions), detections[~_is_decided(detections, decisions)]])


def _decided(decisions: Decisions) -> Detections:
    """Returns the instances that there are by the decisions."""
    kept = decisions[_is_positive(decisions)]
    masks = [shown if new is None else new for shown, new in zip(kept.mask_rle, kept.new_mask_rle, strict=True)]
    return Detections(
        image_id=kept.image_id,
        category_id=kept.category_id,
        score=np.full(len(kept), CERTAIN, dtype=np.float32),
        predicted_iou=kept.predicted_iou,
        box_xyxy=rle_boxes(masks),
        mask_rle=np.fromiter(masks, dtype=object, count=len(masks)),
    )


def _is_positive(decisions: Decisions) -> Array:
    return np.array([VERDICTS[verdict].is_positive for verdict in decisions.verdict], dtype=bool)


def _is_decided(detections: Detections, decisions: Decisions) -> Array:
    """Returns for each detection [N] of an image whether a decision speaks of it.

    A decision speaks of the very instance that was shown. Where these labels have it no more, it speaks of the same
    object: masks of its category that are alike enough for that, and masks of any category that are the same but for
    some pixels. One that rejects speaks of the same mask of the same category only, since a better mask of that place
    may be right.
    """
    known = np.array(instance_ids(detections), dtype=object)
    is_decided = np.isin(known, decisions.instance_id)
    lost = decisions[~np.isin(decisions.instance_id, known)]
    open_rows = np.flatnonzero(~is_decided)
    if len(lost) and len(open_rows):
        is_decided[open_rows] = speaks_of(lost, detections[open_rows]).any(axis=0)
    return is_decided


def speaks_of(decisions: Decisions, detections: Detections) -> Array:
    """Returns whether each of D decisions speaks of each of N detections, boolean [D, N], by masks and categories."""
    new = [shown if new is None else new for shown, new in zip(decisions.mask_rle, decisions.new_mask_rle, strict=True)]
    masks = list(detections.mask_rle)
    iou = np.maximum(mask_ious(list(decisions.mask_rle), masks), mask_ious(new, masks))
    is_found = decisions.found_category_id[:, None] == detections.category_id[None]
    is_of_either = is_found | (decisions.category_id[:, None] == detections.category_id[None])
    by_yes = (iou >= SAME_MASK) | ((iou >= SAME_OBJECT) & is_of_either)
    speaks: Array = np.where(_is_positive(decisions)[:, None], by_yes, (iou >= SAME_MASK) & is_found)
    return speaks.astype(bool)
