"""A review under way: makes rows of what people say of instances, and appends them to the store.

They are in the store before anything else happens. Not here: what counts by them (`state.py`).
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from flows.review.state import Done, Key, ReviewState, done_by
from refseg_core.analysis.decisions import NEGATIVE, UNDO, VERDICTS, instance_id
from refseg_core.errors import ConfigurationError, ConflictError, brief
from refseg_core.masks.rle import Rle, union_of
from refseg_core.tables import Decisions

SOURCE = "review"
_LONGEST_NAME = 80
# What the first row of a decision may say by what was decided before: of what was drawn or given another mask.
_STORED_AS = {
    "accept": ("accept", "mask", "add"),
    "category": ("category", "add"),
    "mask": ("mask", "add"),
    "merge": ("mask", "add"),
}


@dataclass(frozen=True)
class Decision:
    """What a person says of an instance, as the page sends it.

    `instance`: its identity; for verdict `add` None, with `image`, its number. `category`: its id, for verdicts that
    need one. `into`: the identity that it is merged with. `mask`: for verdicts `add` and `mask`, with the segmenter's
    predicted IoU of it; it is of the image `image`.
    """

    decision_id: str
    reviewer: str
    verdict: str
    instance: str | None = None
    category: int | None = None
    into: str | None = None
    image: int | None = None
    mask: tuple[Rle, float] | None = None


class ReviewSession(ReviewState):
    """Decides on the instances of one index. Safe to use from several threads."""

    def decide(self, *decisions: Decision, source: str = SOURCE) -> list[str]:
        """Appends decisions of one person to the store, as one thing done; returns the instances that they change.

        The same one twice counts once. Raises ConfigurationError where one does not say what it has to, and
        ConflictError where another is known by its id; none counts.
        """
        with self._lock:
            self.refresh()
            new = [decision for decision in decisions if not self._is_known(decision)]
            rows = [{**row, "decision_id": one.decision_id} for one in new for row in self._rows(one)]
            return self._append(new[0].reviewer, rows, source) if rows else []

    def undo(self, reviewer: str, decision_id: str | None = None) -> list[str]:
        """Takes a person's last action back, as far as nobody decided otherwise since; returns what changes.

        `decision_id`: of the taking back, which sent twice counts once. Raises ConflictError where it is another's.
        """
        with self._lock:
            self.refresh()
            if decision_id in self._known:
                _check_same(self._known[decision_id], reviewer, is_same=self._known[decision_id].source[0] == UNDO)
                return []
            for when in sorted(self._done[_clean(reviewer)], reverse=True):
                done = _clean(reviewer), when
                if rows := [row for key in self._done[done[0]][when] for row in self._undoings(key, done)]:
                    rows[0]["decision_id"] = decision_id or rows[0]["decision_id"]
                    return self._append(reviewer, rows, UNDO)
            return []

    def _is_known(self, decision: Decision) -> bool:
        known = self._known.get(decision.decision_id)
        if known is not None:
            _check_same(known, decision.reviewer, is_same=_says(known, decision))
        return known is not None

    def _undoings(self, key: Key, done: Done) -> Iterator[dict[str, Any]]:
        """Yields what takes back each row that was made so, as far as nothing else counts for the instance since.

        They hold what comes back, for versions that do not find it themselves.
        """
        kept = self._kept[key]
        own = list(takewhile(lambda row: done_by(row) == done, reversed(kept)))
        nothing = {"verdict": "undecided" if key[1] == "label" else "unused"}
        for row in own:
            before = kept[: len(kept) - len(own)]
            back = _columns(before[-1]) if before else _columns(row) | nothing
            yield back | {"decision_id": uuid.uuid4().hex}

    def _rows(self, decision: Decision) -> Iterator[dict[str, Any]]:
        if decision.verdict not in VERDICTS:
            raise ConfigurationError(f"{brief(decision.verdict)} is no verdict: expected one of {', '.join(VERDICTS)}.")
        if decision.verdict == "add":
            yield self._addition(decision)
            return
        if decision.instance is None:
            raise ConfigurationError(f"The verdict {brief(decision.verdict)} needs an instance.")
        own = self._row(decision.instance, decision.verdict)
        if decision.verdict == "category":
            own["category_id"] = self._checked(decision.category)
        if decision.verdict == "mask":
            own |= self._corrected(decision, own)
        if decision.verdict == "merge":
            own["merged_into"] = decision.into
            yield self._grown(decision)
            yield from self._following(str(decision.into), "mask")
        yield own
        yield from self._following(decision.instance, decision.verdict)

    def _following(self, identity: str, verdict: str) -> Iterator[dict[str, Any]]:
        """Yields what a decision says besides: a negative is no label, and what is right no negative."""
        label, bank = (self.decision_on(identity, aspect) for aspect in ("label", "bank"))
        if verdict == NEGATIVE and (label is None or VERDICTS[label.verdict[0]].is_positive):
            yield self._row(identity, "reject")
        if bank is None or bank.verdict[0] != NEGATIVE:
            return
        if verdict in ("accept", "mask"):
            yield self._row(identity, "unused")
        if verdict == "reference" and label is not None and label.verdict[0] == "reject":
            yield self._row(identity, "undecided")

    def _row(self, identity: str, verdict: str) -> dict[str, Any]:
        """Returns the columns of a decision. What was corrected before stays so, whatever is then said of it."""
        shown, before = dict(self.shown(identity)), self.decision_on(identity, "label")
        new_mask = None if before is None else before.new_mask_rle[0]
        is_label = VERDICTS[verdict].aspect == "label"
        if is_label and VERDICTS[verdict].is_positive and shown["score"] is None:
            verdict = "add"
        elif verdict == "accept" and new_mask is not None:
            verdict = "mask"
        if before is not None and (verdict == "mask" or not is_label):
            shown["category_id"] = int(before.category_id[0])
        return {**shown, "verdict": verdict, "new_mask_rle": new_mask, "merged_into": None}

    def _corrected(self, decision: Decision, own: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the columns of another mask, and of another category if there is one."""
        if decision.mask is None:
            raise ConfigurationError("The verdict 'mask' needs a mask.")
        if decision.image != self.index.image_of.get(str(own["image_id"])):
            raise ConfigurationError("This mask is of another image than the instance: draw it on the instance's own.")
        _check_size(decision.mask[0], own["mask_rle"].size)
        category = {} if decision.category is None else {"category_id": self._checked(decision.category)}
        return {"new_mask_rle": decision.mask[0], "predicted_iou": decision.mask[1], **category}

    def _grown(self, decision: Decision) -> dict[str, Any]:
        """Returns the decision that gives the whole the pixels of its part."""
        if decision.into is None or decision.into == decision.instance:
            raise ConfigurationError("The verdict 'merge' needs another instance, to merge with.")
        both = (decision.into, str(decision.instance))
        if len({self.shown(one)["image_id"] for one in both}) > 1:
            raise ConfigurationError("Only instances of one image can be merged.")
        return self._row(decision.into, "mask") | {"new_mask_rle": union_of([self.mask_of(one) for one in both])}

    def _addition(self, decision: Decision) -> dict[str, Any]:
        if decision.mask is None or decision.image is None or not 0 <= decision.image < len(self.index.images):
            raise ConfigurationError("The verdict 'add' needs an image and a mask: draw a box or click on the object.")
        (mask, predicted_iou), category = decision.mask, self._checked(decision.category)
        image = self.index.images[decision.image]
        _check_size(mask, (image.height, image.width))
        return {
            "instance_id": instance_id(image.image_id, category, mask),
            "image_id": image.image_id,
            "image_version": image.version,
            "mask_rle": mask,
            **dict.fromkeys(("found_category_id", "found_category_name", "score", "new_mask_rle", "merged_into")),
            **{"category_id": category, "predicted_iou": predicted_iou, "is_audit": False, "verdict": "add"},
        }

    def _checked(self, category: int | None) -> int:
        if category not in self._names:
            raise ConfigurationError(
                f"There is no category {brief(category)}; there are {', '.join(self._names.values())}."
            )
        return category  # type: ignore[return-value]

    def _append(self, reviewer: str, rows: Sequence[dict[str, Any]], source: str) -> list[str]:
        now = max(datetime.now(UTC), self._last_time + timedelta(microseconds=1))
        common = {
            "decided_at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reviewer": _clean(reviewer),
            "source": source,
            "labels_key": self.index.run.key,
        }
        ids = _unique(str(row.get("decision_id")) for row in rows)
        named = [
            {**row, **common, "decision_id": one, "category_name": self._names[row["category_id"]]}
            for one, row in zip(ids, rows, strict=True)
        ]
        decisions = Decisions.concatenate([Decisions.row(**row) for row in named])
        self._review.append(decisions)
        return self._take(decisions)


def _check_same(known: Decisions, reviewer: str, *, is_same: bool) -> None:
    if not is_same or known.reviewer[0] != _clean(reviewer):
        raise ConflictError(
            f"There is another decision with the id {known.decision_id[0]}: {brief(known.verdict[0])} of "
            f"{brief(known.reviewer[0])} on the instance {known.instance_id[0]}. Nothing was saved: send each decision "
            "with a new random id, and only the same one again with its own."
        )


def _says(row: Decisions, decision: Decision) -> bool:
    """Returns whether a row is the first one of a decision, whatever counted before it was made."""
    verdicts = _STORED_AS.get(decision.verdict, (decision.verdict,))
    instance = decision.into if decision.verdict == "merge" else decision.instance
    return (
        row.source[0] != UNDO
        and row.verdict[0] in verdicts
        and instance in (None, row.instance_id[0])
        and decision.category in (None, row.category_id[0])
        and (decision.mask is None or decision.mask[0] in (row.mask_rle[0], row.new_mask_rle[0]))
    )


def _check_size(mask: Rle, size: tuple[int, int]) -> None:
    if mask.size != size:
        given, expected = (f"{width} x {height}" for height, width in (mask.size, size))
        raise ConfigurationError(f"This mask is of {given} pixels, and the image of {expected}: draw it again.")


def _columns(row: Decisions) -> dict[str, Any]:
    return {name: getattr(row, name)[0] for name in Decisions.schema().names}


def _unique(ids: Iterable[str]) -> list[str]:
    """Returns the ids, other ones in the place of those that came before: several rows may be of one decision."""
    seen: set[str] = set()
    made = []
    for one in ids:
        made.append(uuid.uuid4().hex if one in seen else one)
        seen.add(one)
    return made


def _clean(name: str) -> str:
    """Returns a person's name as it is stored: one line of what can be seen, not too long."""
    seen = "".join(one for one in name if one.isprintable() or one.isspace())
    return " ".join(seen.split())[:_LONGEST_NAME].rstrip() or "someone"
