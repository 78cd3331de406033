"""A review under way: what is decided on each instance, by whom, and what was decided before.

Decisions are appended to the store before anything else happens. Those of other processes are read now and then.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Any, NamedTuple

import numpy as np

from refseg_core.analysis.audit import Precision
from refseg_core.analysis.decisions import VERDICTS, Aspect, fitting, in_categories, instance_id, speaks_of
from refseg_core.analysis.review_queue import Ranking, rank
from refseg_core.errors import ConfigurationError, brief
from refseg_core.masks.rle import Rle, union_of
from refseg_core.tables import Decisions
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.store.reviews import StoredReview

SOURCE, UNDO = "review", "undo"
_LONGEST_NAME = 80

Key = tuple[str, Aspect]
Done = tuple[str, str]
"""What one person did at once: who, and when."""


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


class _Before(NamedTuple):
    """What counted for an instance before something was done, and what that was of; None where nothing did."""

    key: Key
    row: Decisions | None
    done: Done | None


@dataclass
class _Action:
    """What one person did at once, and what it changed."""

    done: Done
    before: list[_Before] = field(default_factory=list)


class ReviewSession:
    """The decisions on the instances of one index. Safe to use from several threads."""

    def __init__(self, index: InstanceIndex, review: StoredReview) -> None:
        self.index = index
        self.ranking: Ranking = rank(index.instances)
        self.is_decided = np.zeros(len(index), dtype=bool)
        self.added: defaultdict[int, list[str]] = defaultdict(list)
        self.by_reviewer: Counter[str] = Counter()
        self._review = review
        self._names = dict(zip(index.categories.category_id.tolist(), map(str, index.categories.name), strict=True))
        self._state: dict[Key, Decisions] = {}
        self._known: set[str] = set()
        self._done: set[Done] = set()
        self._done_by: dict[Key, Done | None] = {}
        self._actions: defaultdict[str, list[_Action]] = defaultdict(list)
        self._changes: list[str] = []
        self._audited: dict[str, tuple[int, float, bool]] = {}
        self._undone: dict[Done, _Action] = {}
        self._last_time = datetime.min.replace(tzinfo=UTC)
        self._lock = RLock()
        self._take_others(review.read())

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return len(self._changes)

    def changes_since(self, version: int) -> list[str]:
        """Returns the identities of instances that were decided on since that version."""
        return list(dict.fromkeys(self._changes[version:]))

    def decision_on(self, identity: str, aspect: Aspect) -> Decisions | None:
        """Returns what counts for an instance, a table of one row; None where nothing does."""
        with self._lock:
            row = self._state.get((identity, aspect))
            return row if row is not None and VERDICTS[row.verdict[0]].stands else None

    def decided_by(self, identity: str) -> str | None:
        """Returns who decided what counts for an instance's label; of what an undo brought back, who decided it."""
        with self._lock:
            row, done = self.decision_on(identity, "label"), self._done_by.get((identity, "label"))
        if row is None:
            return None
        return str(row.reviewer[0]) if done is None else done[0]

    def verdicts(self) -> Counter[str]:
        """Returns how many instances have each verdict."""
        with self._lock:
            return Counter(str(row.verdict[0]) for row in self._state.values() if VERDICTS[row.verdict[0]].stands)

    def precision(self, category_id: int, thresh: float) -> Precision:
        """Returns the precision of a category at and above a score, by the audit so far."""
        with self._lock:
            audited = list(self._audited.values())
        fit = [is_right for category, score, is_right in audited if category == category_id and score >= thresh]
        return Precision(category_id, thresh, sum(fit), len(fit))

    def mask_of(self, identity: str) -> Rle:
        """Returns the mask of an instance by what is decided."""
        decided = self.decision_on(identity, "label")
        if decided is not None and decided.new_mask_rle[0] is not None:
            return decided.new_mask_rle[0]  # type: ignore[no-any-return]
        return self.shown(identity)["mask_rle"]  # type: ignore[no-any-return]

    def shown(self, identity: str) -> Mapping[str, Any]:
        """Returns the columns of a decision that say what was shown. Raises ConfigurationError if it is unknown."""
        row = self.index.row_of.get(identity)
        if row is not None:
            return self._shown_in_labels(row)
        with self._lock:
            added = self._state.get((identity, "label"))
        if added is None:
            raise ConfigurationError(f"There is no instance {brief(identity)} in the labels {self.index.run.key}.")
        columns = ("image_id", "image_version", "mask_rle", "found_category_id", "found_category_name", "score")
        names = (*columns, "predicted_iou", "category_id")
        return {name: getattr(added, name)[0] for name in names} | {"instance_id": identity, "is_audit": False}

    def _shown_in_labels(self, row: int) -> Mapping[str, Any]:
        detection, image = self.index.detection(row), self.index.images[self.index.image_at(row)]
        category = int(detection.category_id[0])
        return {
            "instance_id": self.index.instances.identity[row],
            "image_id": image.image_id,
            "image_version": image.version,
            "mask_rle": detection.mask_rle[0],
            "found_category_id": category,
            "found_category_name": self._names[category],
            "category_id": category,
            "score": float(detection.score[0]),
            "predicted_iou": float(detection.predicted_iou[0]),
            "is_audit": self.ranking.is_audit(row),
        }

    # Deciding.

    def decide(self, *decisions: Decision, source: str = SOURCE) -> list[str]:
        """Appends decisions of one person to the store, as one thing done; returns the instances that they change.

        The same one twice counts once. Raises ConfigurationError where one does not say what it has to; none counts.
        """
        with self._lock:
            new = [decision for decision in decisions if decision.decision_id not in self._known]
            rows = [{**row, "decision_id": one.decision_id} for one in new for row in self._rows(one)]
            return self._append(new[0].reviewer, rows, source) if rows else []

    def undo(self, reviewer: str, decision_id: str | None = None) -> list[str]:
        """Takes a person's last action back, as far as nobody decided otherwise since; returns what changes.

        `decision_id`: of the taking back, which sent twice counts once.
        """
        with self._lock:
            actions = self._actions[_clean(reviewer)]
            while actions and decision_id not in self._known:
                last = actions[-1]
                rows = [self._undoing(one) for one in last.before if self._done_by[one.key] == last.done]
                if rows:
                    rows[0]["decision_id"] = decision_id or rows[0]["decision_id"]
                    return self._append(reviewer, rows, UNDO)
                actions.pop()
            return []

    def _undoing(self, before: _Before) -> dict[str, Any]:
        now = {"decision_id": uuid.uuid4().hex}
        if before.row is not None:
            return _columns(before.row) | now
        verdict = "undecided" if before.key[1] == "label" else "unused"
        return _columns(self._state[before.key]) | now | {"verdict": verdict}

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
        yield own

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

    # What is decided, here and elsewhere.

    def refresh(self) -> None:
        """Reads what other processes have decided since the last time."""
        with self._lock:
            self._take_others(self._review.read_new())

    def _take_others(self, decisions: Decisions) -> None:
        known = in_categories(decisions[fitting(decisions)], self.index.categories)
        self._take(known[np.lexsort((known.decision_id.astype(str), known.decided_at.astype(str)))])

    def _take(self, decisions: Decisions) -> list[str]:
        """Takes rows into account, which come in the order of time; returns the instances that they change."""
        rows = (decisions[number : number + 1] for number in range(len(decisions)))
        changed = [identity for row in rows for identity in self._take_row(row)]
        self._changes += changed
        return changed

    def _take_row(self, row: Decisions) -> list[str]:
        if row.decision_id[0] in self._known:
            return []
        self._known.add(row.decision_id[0])
        self._count(row)
        self._last_time = max(self._last_time, _parsed(row.decided_at[0]))
        key: Key = (str(row.instance_id[0]), VERDICTS[row.verdict[0]].aspect)
        before = self._state.get(key)
        if before is not None and _order(before) > _order(row):
            return []
        self._note_action(row, key, before)
        self._state[key] = row
        return self._mark(key, row)

    def _count(self, row: Decisions) -> None:
        """Counts what each person did; several rows at once are one thing, and taking it back is none."""
        done = (str(row.reviewer[0]), str(row.decided_at[0]))
        if row.source[0] != UNDO and done not in self._done:
            self._done.add(done)
            self.by_reviewer[done[0]] += 1

    def _note_action(self, row: Decisions, key: Key, before: Decisions | None) -> None:
        done = (str(row.reviewer[0]), str(row.decided_at[0]))
        actions = self._actions[done[0]]
        if row.source[0] == UNDO:
            if done not in self._undone and actions:  # one row of several
                self._undone[done] = actions.pop()
            changed = self._undone[done].before if done in self._undone else []
            self._done_by[key] = next((one.done for one in changed if one.key == key), None)
            return
        if not actions or actions[-1].done != done:
            actions.append(_Action(done))
        actions[-1].before.append(_Before(key, before, self._done_by.get(key)))
        self._done_by[key] = done

    def _mark(self, key: Key, row: Decisions) -> list[str]:
        """Marks the instances of these labels that a decision speaks of; returns their identities."""
        identity, aspect = key
        if aspect == "bank":
            return [identity]
        stands = VERDICTS[row.verdict[0]].stands
        if row.is_audit[0]:
            self._note_audit(identity, row, stands=stands)
        if (number := self.index.row_of.get(identity)) is not None:
            self.is_decided[number] = stands
            return [identity]
        image = self.index.image_of.get(str(row.image_id[0]))
        if image is None:
            return []
        if row.score[0] is None and identity not in self.added[image]:
            self.added[image].append(identity)
        rows = self.index.images[image].rows
        spoken_of = [rows[one] for one in np.flatnonzero(speaks_of(row, self.index.detections(rows))[0])]
        self.is_decided[spoken_of] = stands
        return [identity, *(self.index.instances.identity[number] for number in spoken_of)]

    def _note_audit(self, identity: str, row: Decisions, *, stands: bool) -> None:
        self._audited.pop(identity, None)
        if stands and row.score[0] is not None:
            found = int(row.found_category_id[0]), float(row.score[0])
            self._audited[identity] = (*found, row.verdict[0] == "accept")


def _check_size(mask: Rle, size: tuple[int, int]) -> None:
    if mask.size != size:
        given, expected = (f"{width} x {height}" for height, width in (mask.size, size))
        raise ConfigurationError(f"This mask is of {given} pixels, and the image of {expected}: draw it again.")


def _columns(row: Decisions) -> dict[str, Any]:
    return {name: getattr(row, name)[0] for name in Decisions.schema().names}


def _order(row: Decisions) -> tuple[str, str]:
    return str(row.decided_at[0]), str(row.decision_id[0])


def _unique(ids: Iterable[str]) -> list[str]:
    """Returns the ids, other ones in the place of those that came before: several rows may be of one decision."""
    seen: set[str] = set()
    made = []
    for one in ids:
        made.append(uuid.uuid4().hex if one in seen else one)
        seen.add(one)
    return made


def _parsed(time: str) -> datetime:
    try:
        return datetime.fromisoformat(time)
    except ValueError:  # of another writer, which sorts as text all the same
        return datetime.min.replace(tzinfo=UTC)


def _clean(name: str) -> str:
    """Returns a person's name as it is stored: one line, not too long."""
    return " ".join(name.split())[:_LONGEST_NAME] or "someone"
