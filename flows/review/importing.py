"""Brings corrections back that were made on exported labels in another tool, as decisions of a person.

Not here: which annotation is which instance (`refseg_core/analysis/corrections.py`), and reading annotations
(`tasks/datasets/`).
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from flows.review.segmenting import Segmenting
from flows.review.session import Decision, ReviewSession
from refseg_core.analysis.corrections import Correction, corrections
from refseg_core.analysis.decisions import CERTAIN, VERDICTS
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError, RefsegError, UnusableReferenceError, listed
from refseg_core.masks.rle import Rle, rle_boxes
from refseg_core.tables import Annotations, Decisions, Detections
from tasks.outputs.exports.exported import exported_masks, exported_rows
from tasks.outputs.exports.origin import ExportedFilter
from tasks.runtime.progress import ProgressStep, report

_BY_HAND = 1.0  # predicted IoU of a mask that a person drew


@dataclass
class ImportedCorrections:
    """What came back. `lines`: each change, by image and instance. `unknown`: images that the labels have not.

    `num_boxes`: annotations without a mask, which say nothing of masks. `num_drawn`: of these, moved or new ones whose
    mask the segmenter makes. `undrawn`: the images and reasons of those of which it made none, and nothing is decided.
    `num_below`: annotations that are labels which the export should not have held by what is known of it.
    """

    decisions: list[Decision] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    num_images: int = 0
    unknown: list[str] = field(default_factory=list)
    num_boxes: int = 0
    num_drawn: int = 0
    undrawn: list[str] = field(default_factory=list)
    num_below: int = 0


def find_corrections(
    session: ReviewSession,
    dataset: Dataset,
    reviewer: str,
    kept: ExportedFilter,
    *,
    accepts_rest: bool,
    segmenting: Segmenting | None = None,
) -> ImportedCorrections:
    """Compares labels, by what was decided on them, with annotations; decides nothing yet.

    Only images that came back are compared. `kept`: what the export held. `accepts_rest`: what is unchanged counts as
    accepted. `segmenting` makes the masks of boxes that are moved or new; None where these are only counted. Raises
    DatasetError where a category is not among those of the labels, or an image has another size.
    """
    found, number_of = ImportedCorrections(), _image_numbers(session)
    annotations = _in_categories_of(session, dataset)
    report(ProgressStep.COMPARE, total=len(dataset.images))
    for row, name in enumerate(dataset.images.file_name):
        report(ProgressStep.COMPARE, advanced=1)
        number = number_of.get(str(name), number_of.get(PurePosixPath(str(name)).name))
        if number is None:
            found.unknown.append(str(name))
            continue
        found.num_images += 1
        own = annotations[annotations.image_id == dataset.images.image_id[row]]
        size = (int(dataset.images.height[row]), int(dataset.images.width[row]))
        compared = _Compared(session, number, own, kept, size)
        found.num_boxes += int((~own.has_mask).sum())
        found.num_below += compared.num_below
        found.counts.update(one.verdict for one in compared.corrections)
        _decide(found, compared, reviewer, accepts_rest=accepts_rest, segmenting=segmenting)
    return found


def _decide(
    found: ImportedCorrections,
    compared: "_Compared",
    reviewer: str,
    *,
    accepts_rest: bool,
    segmenting: Segmenting | None,
) -> None:
    """Adds the decisions on one image."""
    for one in compared.corrections:
        if one.verdict == "accept" and not accepts_rest:
            continue
        try:
            decisions = compared.decisions(one, reviewer, segmenting)
        except RefsegError as error:
            found.undrawn.append(f"{compared.image_id}: {error}")
            continue
        found.num_drawn += compared.is_drawn(one)
        found.decisions += decisions
        found.lines.append(compared.line(one))


class _Compared:
    """One image's labels and what came back of it; `size`: its height and width there, 0 where not known."""

    def __init__(
        self,
        session: ReviewSession,
        number: int,
        annotations: Annotations,
        kept: ExportedFilter,
        size: tuple[int, int],
    ) -> None:
        self._number, self._annotations = number, annotations
        self._image = session.index.images[number]
        of_boxes = set() if annotations.has_mask.all() else {size} - {(0, 0)}
        self._check_sizes({mask.size for mask in annotations.mask_rle[annotations.has_mask]} | of_boxes)
        self._identities, labels = self._labels_once(session)
        is_exported = exported_rows(kept.filter, labels, session.index.categories)
        if kept.is_known:
            self._identities = [one for one, is_in in zip(self._identities, is_exported, strict=True) if is_in]
            labels, is_exported = labels[is_exported], is_exported[is_exported]
        found = corrections(
            exported_masks(labels.mask_rle.tolist(), kept.min_island),
            labels.category_id,
            annotations.mask_rle.tolist(),
            annotations.box_xyxy,
            annotations.category_id,
        )
        below = [one for one in found if one.label is not None and not is_exported[one.label]]
        self.num_below = sum(one.verdict != "reject" for one in below)
        told = [one for one in found if one.verdict != "reject" or one not in below]
        self.corrections = list(_unrepeated(told, annotations))

    def _labels_once(self, session: ReviewSession) -> tuple[list[str], Detections]:
        """Returns the image's labels, each once, as an export holds them; notes which instances each stands for."""
        identities = list(_labels(session, self._number))
        labels = _detections(session, self._image.image_id, identities)
        shapes = list(zip(labels.category_id.tolist(), labels.mask_rle, strict=True))
        once = labels.unrepeated()
        self._repeated = {
            identities[row]: [identities[other] for other, shape in enumerate(shapes) if shape == shapes[row]]
            for row in once.tolist()
        }
        return [identities[row] for row in once.tolist()], labels[once]

    @property
    def image_id(self) -> str:
        """The image."""
        return self._image.image_id

    def _check_sizes(self, sizes: set[tuple[int, int]]) -> None:
        own = (self._image.height, self._image.width)
        if sizes - {own}:
            raise DatasetError(f"{self.image_id}: its annotations are not of its size, {own[1]} x {own[0]}.")

    def _identity(self, one: Correction) -> str | None:
        return None if one.label is None else self._identities[one.label]

    def is_drawn(self, one: Correction) -> bool:
        """Whether an instance has another mask, and only a box of it came back."""
        return one.verdict in ("mask", "add") and self._annotations.mask_rle[one.annotation] is None

    def decisions(self, one: Correction, reviewer: str, segmenting: Segmenting | None) -> list[Decision]:
        """Returns the decisions that make an instance what came back, and that nothing stands in its old place.

        Raises RefsegError where a mask has to be made of a box, and cannot be.
        """
        own = self._decision(one, reviewer, segmenting)
        repeated = [] if one.verdict in ("accept", "add") else self._repeated[str(own.instance)]
        others = [identity for identity in repeated if identity != own.instance]
        return [own, *(Decision(uuid.uuid4().hex, reviewer, "reject", identity) for identity in others)]

    def _decision(self, one: Correction, reviewer: str, segmenting: Segmenting | None) -> Decision:
        """Returns the decision on the instance itself.

        Raises RefsegError where a mask has to be made of a box, and cannot be.
        """
        given: dict[str, Any] = {}
        if one.annotation is not None and one.verdict != "accept":
            given["category"] = int(self._annotations.category_id[one.annotation])
            given["mask"] = (self._annotations.mask_rle[one.annotation], _BY_HAND)
            if self.is_drawn(one):
                given["mask"] = None if segmenting is None else self._drawn(one.annotation, segmenting)
        return Decision(uuid.uuid4().hex, reviewer, one.verdict, self._identity(one), image=self._number, **given)

    def _drawn(self, annotation: int, segmenting: Segmenting) -> tuple[Rle, float]:
        box = self._annotations.box_xyxy[annotation].tolist()
        asked = segmenting.ask(self._number, box=box)
        if asked.predicted_iou == 0:
            raise UnusableReferenceError(f"the segmenter finds nothing in the box {[round(side, 1) for side in box]}.")
        return asked.mask, asked.predicted_iou

    def line(self, one: Correction) -> str:
        """Returns what became of an instance, in words."""
        return f"{self._image.image_id} {self._identity(one) or 'new'}: {VERDICTS[one.verdict].help}"


def _unrepeated(found: Iterable[Correction], annotations: Annotations) -> Iterator[Correction]:
    """Yields corrections without additions of what another annotation says, too: an export may have held it twice."""
    columns = (annotations.category_id.tolist(), annotations.mask_rle, map(tuple, annotations.box_xyxy.tolist()))
    shapes, known = list(zip(*columns, strict=True)), set()
    for one in found:
        shape = None if one.annotation is None else shapes[one.annotation]
        if one.verdict != "add" or shape not in known:
            yield one
        known.add(shape)


def _labels(session: ReviewSession, number: int) -> Iterator[str]:
    """Yields the instances of an image that nobody rejected, of every score."""
    instances = session.index.instances
    for row in session.index.images[number].rows:
        decided = session.decision_on(instances.identity[row], "label")
        if decided is None or _is_positive(decided):
            yield instances.identity[row]
    for identity in session.added[number]:
        decided = session.decision_on(identity, "label")
        if decided is not None and _is_positive(decided):
            yield identity


def _detections(session: ReviewSession, image_id: str, identities: list[str]) -> Detections:
    """Returns instances of an image as an export reads them."""
    masks = [session.mask_of(one) for one in identities]
    return Detections(
        image_id=np.full(len(identities), image_id, dtype=object),
        category_id=np.array([_category(session, one) for one in identities], dtype=np.int64),
        score=np.array([_score(session, one) for one in identities], dtype=np.float32),
        predicted_iou=np.ones(len(identities), dtype=np.float32),
        box_xyxy=rle_boxes(masks),
        mask_rle=np.fromiter(masks, dtype=object, count=len(masks)),
    )


def _score(session: ReviewSession, identity: str) -> float:
    if session.decision_on(identity, "label") is not None:
        return CERTAIN
    return float(session.index.instances.score[session.index.row_of[identity]])


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
