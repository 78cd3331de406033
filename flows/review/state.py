"""What is decided in a review: what counts for each instance, by whom, and what counted before.

Here: taking decisions into account, those of this process and of others. Not here: deciding (`session.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock
from typing import Any, NamedTuple

import numpy as np

from refseg_core.analysis.audit import Precision
from refseg_core.analysis.decisions import NEGATIVE, VERDICTS, Aspect, as_rejections, fitting, in_categories, speaks_of
from refseg_core.analysis.review_queue import Ranking, rank
from refseg_core.errors import ConfigurationError, brief
from refseg_core.masks.rle import Rle
from refseg_core.tables import Decisions
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.store.reviews import StoredReview

UNDO = "undo"  # the source of rows that take something back

Key = tuple[str, Aspect]
Done = tuple[str, str]
"""What one person did at once: who, and when."""


class Before(NamedTuple):
    """What counted for an instance before something was done, and what that was of; None where nothing did."""

    key: Key
    row: Decisions | None
    done: Done | None


@dataclass
class _Action:
    """What one person did at once, and what it changed."""

    done: Done
    before: list[Before] = field(default_factory=list)


class ReviewState:
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
            row, bank = self._standing((identity, aspect)), self._standing((identity, "bank"))
        is_negative = aspect == "label" and bank is not None and bank.verdict[0] == NEGATIVE
        if bank is not None and is_negative and (row is None or _order(bank) > _order(row)):
            return as_rejections(bank)
        return row

    def _standing(self, key: Key) -> Decisions | None:
        row = self._state.get(key)
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
        identity, label = key[0], self.decision_on(key[0], "label")
        self._state[key] = row
        now = self.decision_on(identity, "label")
        if key[1] == "bank" and _verdict(now) == _verdict(label):
            return [identity]
        return self._mark(identity, row if now is None else now, stands=now is not None)

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
        actions[-1].before.append(Before(key, before, self._done_by.get(key)))
        self._done_by[key] = done

    def _mark(self, identity: str, row: Decisions, *, stands: bool) -> list[str]:
        """Marks the instances of these labels that a decision speaks of; returns their identities."""
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


def _verdict(row: Decisions | None) -> str | None:
    return None if row is None else str(row.verdict[0])


def _order(row: Decisions) -> tuple[str, str]:
    return str(row.decided_at[0]), str(row.decision_id[0])


def _parsed(time: str) -> datetime:
    try:
        return datetime.fromisoformat(time)
    except ValueError:  # of another writer, which sorts as text all the same
        return datetime.min.replace(tzinfo=UTC)
