"""Whether a flow run that a worker has is still at work: told from what the Prefect server heard of it.

Here: watching a run, having a worker do a single one, and what is needed of the workers for that. Not here: many at
once (`scheduler.py`), and asking the server (`gpu_workers.py`).

Only this process's clock is asked. Prefect's own states do not tell: the run of a killed worker stays Running.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from flows.config.run_config import ExecutionConfig
from flows.execution.prefect_api import ServerGoneError
from tasks.specs import LabelJob
from tasks.store.shard_plans import Shard

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 900.0  # how long the server may be gone
_ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Sighting:
    """What the server knows of a flow run: its state, why it is in it, and signs of life.

    `heartbeat` changes every few seconds while the run is at work; `share_done` is between 0 and 1; it has been at
    work for `seconds`.
    """

    state: str
    message: str = ""
    heartbeat: str = ""
    share_done: float = 0.0
    seconds: float = 0.0


UNKNOWN = Sighting("CRASHED", "the server does not know the run any more")


@dataclass
class Watch:
    """Watches one run from when it was handed out; times in seconds of any clock that only goes forward."""

    settings: ExecutionConfig
    heard_at: float
    sighting: Sighting = field(default_factory=lambda: Sighting("SCHEDULED"))

    def hear(self, seen: Sighting, now: float) -> None:
        """Takes note of what was seen. A run that waits for a worker is not lost, however long it waits."""
        before, self.sighting = self.sighting, seen
        if (seen.state, seen.heartbeat) != (before.state, before.heartbeat) or seen.state == "SCHEDULED":
            self.heard_at = now

    def is_lost(self, now: float) -> bool:
        """Whether nothing was heard for too long; the run then counts as crashed.

        One that runs and has given no sign of life yet may have been killed before its first.
        """
        has_begun = self.sighting.state == "RUNNING" or self.sighting.heartbeat
        patience = self.settings.lost_after_seconds if has_begun else self.settings.start_within_seconds
        if self.has_ended or now - self.heard_at <= patience:
            return False
        self.sighting = Sighting("CRASHED", f"nothing was heard of it for {patience:.0f} seconds")
        return True

    @property
    def has_ended(self) -> bool:
        """Whether nobody works on it any more."""
        return self.sighting.state in _ENDS

    @property
    def told(self) -> str:
        """How it ended, for people."""
        return f"{self.sighting.state.lower()}: {self.sighting.message}".rstrip(": ")


class Patience:
    """Bears a server that does not answer, for a while. Nobody can be heard then, so that nobody counts as lost."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._gone_since: float | None = None  # None: it answered when it was last asked

    @contextmanager
    def asking(self, watches: Collection[Watch] = ()) -> Iterator[float]:
        """The block, which asks the server, ends early where that is gone; it is given the time at which it asks.

        Raises ServerGoneError where the server has been gone for too long.
        """
        asked_at = self._now()
        try:
            yield asked_at
        except ServerGoneError as error:
            if self._gone_since is None:  # and not since it was asked: an answer may be long in coming
                self._gone_since = self._now()
                log.warning("The Prefect server does not answer (%s); work goes on without it.", error)
            elif self._now() - self._gone_since > PATIENCE_SECONDS:
                raise
        else:
            self._gone_since = None
        is_gone = self._gone_since is not None
        for watch in watches:  # a server that hangs answers late, and with what it heard before
            watch.heard_at = self._now() if is_gone else watch.heard_at + self._now() - asked_at


@contextmanager
def cancelled_on_error(cancel: Callable[[], None]) -> Iterator[None]:
    """Cancels what was handed out within the block when that is left by an error, a signal or an interrupt."""
    try:
        yield
    except BaseException:
        try:
            cancel()
        except ServerGoneError as error:
            log.warning("what was handed out could not be cancelled, and goes on: %s", error)
        raise


class Workers(Protocol):
    """The workers, as the Prefect server sees them. Every method raises ServerGoneError where it does not answer."""

    def hand_out(self, name: str, job: LabelJob, shards: Sequence[Shard], token: str) -> UUID:
        """Makes a flow run of a group; asked again with the same token it is the same run."""

    def look_at(self, runs: Sequence[UUID]) -> dict[UUID, Sighting]:
        """What is known of each run; those that are unknown are left out."""

    def give_up(self, run: UUID) -> None:
        """Marks a run as crashed, so that nobody takes it for being at work."""

    def cancel(self, runs: Sequence[UUID]) -> None:
        """Has whoever works at these runs stop."""

    def online(self) -> Sequence[str]:
        """The names of the workers that take runs now."""

    def tell_lost(self, worker: str) -> None:
        """Tells whoever waits for such news that a worker is not there any more."""


def done_by_worker(
    start: Callable[[], UUID],
    workers: Workers,
    settings: ExecutionConfig,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Watch:
    """Returns when the run that `start` makes has ended or is lost, which its watch tells.

    A server that is gone is asked again, so called twice `start` has to make one run.
    """
    patience = Patience(now)
    run = _started(start, patience, pause)
    watch = Watch(settings, now())
    with cancelled_on_error(lambda: workers.cancel([run])):
        while True:
            pause(POLL_SECONDS)
            with patience.asking([watch]) as asked_at:
                watch.hear(workers.look_at([run]).get(run, UNKNOWN), asked_at)
                if watch.is_lost(asked_at):
                    workers.give_up(run)
                if watch.has_ended:
                    return watch


def _started(start: Callable[[], UUID], patience: Patience, pause: Callable[[float], None]) -> UUID:
    while True:
        with patience.asking():
            return start()
        pause(POLL_SECONDS)
