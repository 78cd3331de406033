"""Brings corrections back that were made on exported labels in another tool, as decisions of a person.

Not here: which annotation is which instance (`refseg_core/analysis/corrections.py`), and reading annotations
(`tasks/datasets/`).
"""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from flows.review.session import Decision, ReviewSession
from refseg_core.analysis.corrections import Correction, corrections
from refseg_core.analysis.decisions import VERDICTS
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError, listed
from refseg_core.tables import Annotations, Decisions

_BY_HAND = 1.0  # predicted IoU of a mask that a person drew


@dataclass
class ImportedCorrections:
    """What came back. `lines`: each change, by image and instance. `unknown`: images that the labels have not.

    `num_boxes`: annotations without a mask, which say nothing of masks.
    """

    decisions: list[Decision] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    num_images: int = 0
    unknown: list[str] = field(default_factory=list)
    num_boxes: int = 0


def find_corrections(
    session: ReviewSession, dataset: Dataset, reviewer: str, *, accepts_rest: bool
) -> ImportedCorrections:
    """Compares labels, by what was decided on them, with annotations; decides nothing yet.

    Only images that came back are compared. `accepts_rest`: what is unchanged counts as accepted. Raises DatasetError
    where a category is not among those of the labels, or an image has another size.
    """
    found, number_of = ImportedCorrections(), _image_numbers(session)
    annotations = _in_categories_of(session, dataset)
    for row, name in enumerate(dataset.images.file_name):
        number = number_of.get(str(name), number_of.get(PurePosixPath(str(name)).name))
        if number is None:
            found.unknown.append(str(name))
            continue
        found.num_images += 1
        own = annotations[annotations.image_id == dataset.images.image_id[row]]
        found.num_boxes += int((~own.has_mask).sum())
        compared = _Compared(session, number, own[own.has_mask])
        found.counts.update(one.verdict for one in compared.corrections)
        for one in compared.corrections:
            if one.verdict != "accept" or accepts_rest:
                found.decisions.append(compared.decision(one, reviewer))
                found.lines.append(compared.line(one))
    return found


class _Compared:
    """One image's labels and what came back of it."""

    def __init__(self, session: ReviewSession, number: int, annotations: Annotations) -> None:
        self._number, self._annotations = number, annotations
        self._image = session.index.images[number]
        if any(mask.size != (self._image.height, self._image.width) for mask in annotations.mask_rle):
            size = f"{self._image.width} x {self._image.height}"
            raise DatasetError(f"{self._image.image_id}: its annotations are not of its size, {size}.")
        self._identities = list(_labels(session, number))
        self.corrections = corrections(
            [session.mask_of(one) for one in self._identities],
            np.array([_category(session, one) for one in self._identities], dtype=np.int64),
            annotations.mask_rle.tolist(),
            annotations.category_id,
        )

    def _identity(self, one: Correction) -> str | None:
        return None if one.label is None else self._identities[one.label]

    def decision(self, one: Correction, reviewer: str) -> Decision:
        """Returns the decision that makes an instance what came back."""
        given: dict[str, Any] = {}
        if one.annotation is not None and one.verdict != "accept":
            given["category"] = int(self._annotations.category_id[one.annotation])
            given["mask"] = (self._annotations.mask_rle[one.annotation], _BY_HAND)
        return Decision(uuid.uuid4().hex, reviewer, one.verdict, self._identity(one), image=self._number, **given)

    def line(self, one: Correction) -> str:
        """Returns what became of an instance, in words."""
        return f"{self._image.image_id} {self._identity(one) or 'new'}: {VERDICTS[one.verdict].help}"


def _labels(session: ReviewSession, number: int) -> Iterator[str]:
    """Yields the instances that an export of an image holds."""
    instances = session.index.instances
    for row in session.index.images[number].rows:
        decided = session.decision_on(instances.identity[row], "label")
        if (
            instances.score[row] >= instances.thresh[row]
            if decided is None
            else VERDICTS[decided.verdict[0]].is_positive
        ):
            yield instances.identity[row]
    for identity in session.added[number]:
        decided = session.decision_on(identity, "label")
        if decided is not None and _is_positive(decided):
            yield identity


def _is_positive(decided: Decisions) -> bool:
    return VERDICTS[decided.verdict[0]].is_positive


def _category(session: ReviewSession, identity: str) -> int:
    decided = session.decision_on(identity, "label")
    return int(session.shown(identity)["category_id"] if decided is None else decided.category_id[0])


def _in_categories_of(session: ReviewSession, dataset: Dataset) -> Annotations:
    """Returns the annotations with the labels' ids of categories, found by name."""
    own = dict(zip(session.index.categories.name, session.index.categories.category_id.tolist(), strict=True))
    names = dict(zip(dataset.categories.category_id.tolist(), dataset.categories.name, strict=True))
    used = [names[category] for category in dataset.annotations.category_id.tolist()]
    if unknown := sorted(set(used) - own.keys()):
        raise DatasetError(
            f"{listed(map(repr, unknown))}: no such category; the labels have {listed(own)}. Rename or remove it there."
        )
    return dataset.annotations.replace(category_id=np.array([own[name] for name in used], dtype=np.int64))


def _image_numbers(session: ReviewSession) -> dict[str, int]:
    """Returns the numbers of images by file name, and by its last part where only one has it."""
    names = [str(session.index.dataset_images.file_name[image.row]) for image in session.index.images]
    last = [PurePosixPath(name).name for name in names]
    counts = Counter(last)
    numbers = {name: number for number, name in enumerate(last) if counts[name] == 1}
    return numbers | {name: number for number, name in enumerate(names)}
