"""What is decided in a review: what counts for each instance, by whom, and what counted before.

Here: taking decisions into account, those of this process and of others, whichever comes first. Not here: deciding
(`session.py`).
"""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import RLock
from typing import Any

import numpy as np

from refseg_core.analysis.audit import Precision
from refseg_core.analysis.decisions import (
    NEGATIVE,
    UNDO,
    VERDICTS,
    Aspect,
    as_rejections,
    counting,
    fitting,
    in_categories,
    speaks_of,
)
from refseg_core.analysis.review_queue import Ranking, rank
from refseg_core.errors import ConfigurationError, brief
from refseg_core.masks.rle import Rle
from refseg_core.tables import Decisions
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.store.reviews import StoredReview

Key = tuple[str, Aspect]
Done = tuple[str, str]
"""What one person did at once: who, and when."""


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
        self._rows_on: defaultdict[Key, list[Decisions]] = defaultdict(list)  # by time
        self._kept: dict[Key, list[Decisions]] = {}  # of these what is not taken back; the last one counts
        self._known: dict[str, Decisions] = {}
        self._done: defaultdict[str, dict[str, set[Key]]] = defaultdict(dict)  # who, when, and on what
        self._changes: list[str] = []
        self._audited: dict[str, tuple[int, float, bool]] = {}
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
        row = self._last(key)
        return row if row is not None and VERDICTS[row.verdict[0]].stands else None

    def decided_by(self, identity: str) -> str | None:
        """Returns who decided what counts for an instance's label; of what an undo brought back, who decided it."""
        row = self.decision_on(identity, "label")
        return None if row is None else str(row.reviewer[0])

    def verdicts(self) -> Counter[str]:
        """Returns how many instances have each verdict."""
        with self._lock:
            last = [str(rows[-1].verdict[0]) for rows in self._kept.values() if rows]
            return Counter(verdict for verdict in last if VERDICTS[verdict].stands)

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
            rows = self._rows_on.get((identity, "label"))
        if not rows:
            raise ConfigurationError(f"There is no instance {brief(identity)} in the labels {self.index.run.key}.")
        columns = ("image_id", "image_version", "mask_rle", "found_category_id", "found_category_name", "score")
        names = (*columns, "predicted_iou", "category_id")
        return {name: getattr(rows[-1], name)[0] for name in names} | {"instance_id": identity, "is_audit": False}

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
        self._known[row.decision_id[0]] = row
        self._count(row)
        self._last_time = max(self._last_time, _parsed(row.decided_at[0]))
        key = _key(row)
        before, label = self._last(key), self.decision_on(key[0], "label")
        insort(self._rows_on[key], row, key=_order)
        rows = self._rows_on[key]
        self._kept[key] = [rows[one.row] for one in counting([(one.reviewer[0], one.source[0]) for one in rows])]
        return [] if self._last(key) is before else self._mark_changed(key, row, label)

    def _last(self, key: Key) -> Decisions | None:
        """Returns the last row that is not taken back, a table of one row."""
        rows = self._kept.get(key)
        return rows[-1] if rows else None

    def _mark_changed(self, key: Key, row: Decisions, before: Decisions | None) -> list[str]:
        """Marks what a row changes; `before`: what counted for the label. Returns the identities of the instances."""
        now = self.decision_on(key[0], "label")
        if key[1] == "bank" and _verdict(now) == _verdict(before):
            return [key[0]]
        return self._mark(key[0], row if now is None else now, stands=now is not None)

    def _count(self, row: Decisions) -> None:
        """Counts what each person did; several rows at once are one thing, and taking it back is none."""
        reviewer, when = done_by(row)
        if row.source[0] == UNDO:
            return
        if when not in self._done[reviewer]:
            self._done[reviewer][when] = set()
            self.by_reviewer[reviewer] += 1
        self._done[reviewer][when].add(_key(row))

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


def done_by(row: Decisions) -> Done:
    """Returns who made a row, and when."""
    return str(row.reviewer[0]), str(row.decided_at[0])


def _key(row: Decisions) -> Key:
    return str(row.instance_id[0]), VERDICTS[row.verdict[0]].aspect


def _order(row: Decisions) -> tuple[str, str]:
    return str(row.decided_at[0]), str(row.decision_id[0])


def _parsed(time: str) -> datetime:
    try:
        return datetime.fromisoformat(time)
    except ValueError:  # of another writer, which sorts as text all the same
        return datetime.min.replace(tzinfo=UTC)
