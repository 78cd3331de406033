"""What comes next: the instances that fit a filter, in the order of the ranking, without those that others look at."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flows.review.state import ReviewState
from refseg_core.analysis.review_queue import AUDIT, REASONS

_REACH = 0.2  # score below its threshold up to which an instance may matter
_HELD_SECONDS = 20.0
_REASON_ROWS = {reason.name: row for row, reason in enumerate(REASONS)} | {AUDIT.name: -1}

Sorting = Literal["telling", "low", "high"]
State = Literal["open", "decided", "all"]


@dataclass(frozen=True)
class QueueFilter:
    """Which instances are wanted. `categories`: ids, empty for all. `image`: part of a file's name.

    `reason`: name of a reason, '' for any. `is_near`: only those whose score
    reaches their threshold or nearly does. `sorting`: most telling first, or by score.
    """

    categories: tuple[int, ...] = ()
    min_score: float = 0.0
    max_score: float = 1.0
    image: str = ""
    reason: str = ""
    state: State = "open"
    is_near: bool = True
    sorting: Sorting = "telling"


@dataclass(frozen=True)
class QueuePart:
    """Some of the queue: rows of instances with their places in it, and how many there are, and are open, in all."""

    rows: list[tuple[int, int]]
    num_all: int
    num_open: int


class ReviewQueue:
    """The queue of a session, for several people at once."""

    def __init__(self, session: ReviewState, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._held: dict[str, tuple[int, float]] = {}
        score = session.index.instances.score
        self._orders = {"telling": session.ranking.order, "low": np.argsort(score, kind="stable")}
        self._orders["high"] = self._orders["low"][::-1]

    def hold(self, client: str, row: int | None) -> None:
        """Notes what somebody looks at, for as long as nothing else is heard of them within some seconds."""
        self._held.pop(client, None)
        if row is not None:
            self._held[client] = (row, self._clock() + _HELD_SECONDS)

    def held_by_others(self, client: str) -> dict[int, str]:
        """Returns the instances that other people look at, by row, and who; `client` is a name and what a page adds.

        What the same person looks at elsewhere is theirs, too, as where they open the page again.
        """
        now = self._clock()
        self._held = {one: held for one, held in self._held.items() if held[1] > now}
        return {row: one for one, (row, _) in self._held.items() if _name(one) != _name(client)}

    def part(self, wanted: QueueFilter, *, start: int, limit: int, client: str) -> QueuePart:
        """Returns what fits from a place in the order on, at most so many."""
        order = self._orders[wanted.sorting]
        fits = self._fits(wanted)
        is_open = ~self._session.is_decided
        in_state = {"open": is_open, "decided": ~is_open}.get(wanted.state, np.ones(len(is_open), dtype=bool))
        places = np.flatnonzero((fits & in_state)[order[start:]]) + start
        held = self.held_by_others(client)
        rows = [(int(order[place]), int(place)) for place in places[: limit + len(held)]]
        free = [one for one in rows if one[0] not in held] if wanted.state == "open" else rows
        return QueuePart(free[:limit], int(fits.sum()), int((fits & is_open).sum()))

    def _fits(self, wanted: QueueFilter) -> npt.NDArray[np.bool_]:
        instances = self._session.index.instances
        fits = (instances.score >= wanted.min_score) & (instances.score <= wanted.max_score)
        if wanted.is_near:
            fits &= instances.score >= instances.thresh - _REACH
        if wanted.categories:
            fits &= np.isin(instances.category, wanted.categories)
        if wanted.reason:
            fits &= self._session.ranking.reason == _REASON_ROWS[wanted.reason]
        if wanted.image:
            fits &= np.isin(instances.image, self._images_named(wanted.image))
        return fits

    def _images_named(self, part: str) -> list[int]:
        index = self._session.index
        names = index.dataset_images.file_name
        part = part.lower()
        return [number for number, image in enumerate(index.images) if part in str(names[image.row]).lower()]


def _name(client: str) -> str:
    return client.rsplit(" · ", 1)[0]
