"""Whether the flow run of a worker is still being worked on, judged from what the Prefect server knows of it.

Here: watching a run, running a single one on a worker, and the interface of the workers. Not here: many runs at once
(`scheduler.py`), and the calls to the server (`gpu_workers.py`).

Only this process's clock counts. Prefect's states are not enough: the run of a killed worker stays Running.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from uuid import UUID

from flows.config.run_config import ExecutionConfig
from flows.execution.prefect_api import ServerGoneError
from tasks.specs import LabelJob
from tasks.store.shard_plans import Shard

Result = TypeVar("Result")
log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
MAX_OUTAGE_SECONDS = 900.0  # of the server
_ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class RunStatus:
    """What the server knows of a flow run.

    `message` explains the state; `heartbeat` changes every few seconds while the run is worked on; `share_done` is
    between 0 and 1; `seconds` is the run time so far.
    """

    state: str
    message: str = ""
    heartbeat: str = ""
    share_done: float = 0.0
    seconds: float = 0.0


UNKNOWN = RunStatus("CRASHED", "the server does not know the run")


@dataclass
class RunWatch:
    """Watches one run from its submission; times are seconds of a monotonic clock."""

    settings: ExecutionConfig
    last_sign_at: float
    status: RunStatus = field(default_factory=lambda: RunStatus("SCHEDULED"))

    def update(self, status: RunStatus, now: float) -> None:
        """Records a status. A run that waits for a worker is not lost, however long it waits."""
        before, self.status = self.status, status
        if (status.state, status.heartbeat) != (before.state, before.heartbeat) or status.state == "SCHEDULED":
            self.last_sign_at = now

    def is_lost(self, now: float) -> bool:
        """Whether the last sign of life is too long ago; the run then counts as crashed.

        A run without any heartbeat may have been killed before its first.
        """
        has_begun = self.status.state == "RUNNING" or self.status.heartbeat
        limit = self.settings.lost_after_seconds if has_begun else self.settings.start_within_seconds
        if self.has_ended or now - self.last_sign_at <= limit:
            return False
        self.status = RunStatus("CRASHED", f"no sign of life for {limit:.0f} seconds")
        return True

    @property
    def has_ended(self) -> bool:
        """Whether the run is over."""
        return self.status.state in _ENDS

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        return f"{self.status.state.lower()}: {self.status.message}".rstrip(": ")


class Outage:
    """Tolerates a server that does not answer for a while, during which no run counts as lost."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since: float | None = None  # None: the last call was answered

    @contextmanager
    def tolerated(self, watches: Collection[RunWatch] = ()) -> Iterator[float]:
        """Leaves the block early if a call in it is not answered; yields the time before the calls.

        Raises ServerGoneError if the server has been gone for too long.
        """
        called_at = self._now()
        try:
            yield called_at
        except ServerGoneError as error:
            if self._since is None:  # not since the call: an answer may take long
                self._since = self._now()
                log.warning("The Prefect server does not answer (%s); work goes on without it.", error)
            elif self._now() - self._since > MAX_OUTAGE_SECONDS:
                raise
        else:
            self._since = None
        is_gone = self._since is not None
        for watch in watches:  # a hanging server answers late, with what it knew before
            watch.last_sign_at = self._now() if is_gone else watch.last_sign_at + self._now() - called_at


@contextmanager
def cancelled_on_error(cancel: Callable[[], None]) -> Iterator[None]:
    """Cancels the submitted runs if the block is left by an error, a signal or an interrupt."""
    try:
        yield
    except BaseException:
        try:
            cancel()
        except ServerGoneError as error:
            log.warning("The submitted runs could not be cancelled and continue: %s", error)
        raise


class Workers(Protocol):
    """The workers, as the Prefect server knows them. Every method raises ServerGoneError if it does not answer."""

    def submit(self, name: str, job: LabelJob, shards: Sequence[Shard], token: str) -> UUID:
        """Creates the flow run of a group; the same token gives the same run again."""

    def read_statuses(self, runs: Sequence[UUID]) -> dict[UUID, RunStatus]:
        """Returns the status of each run; unknown runs are left out."""

    def mark_crashed(self, run: UUID) -> None:
        """Marks a lost run as crashed."""

    def cancel(self, runs: Sequence[UUID]) -> None:
        """Cancels the runs."""

    def online_workers(self) -> Sequence[str]:
        """Returns the names of the workers that take runs now."""

    def announce_lost(self, worker: str) -> None:
        """Emits the event that a worker went offline."""


def run_on_worker(
    start: Callable[[], UUID],
    workers: Workers,
    settings: ExecutionConfig,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> RunWatch:
    """Waits until the run that `start` creates has ended or is lost; returns its watch.

    `start` is called again if the server does not answer, and must then not create a second run.
    """
    outage = Outage(now)
    run = until_answered(start, outage, pause)
    watch = RunWatch(settings, now())
    with cancelled_on_error(lambda: workers.cancel([run])):
        while True:
            pause(POLL_SECONDS)
            with outage.tolerated([watch]) as called_at:
                watch.update(workers.read_statuses([run]).get(run, UNKNOWN), called_at)
                if watch.is_lost(called_at):
                    workers.mark_crashed(run)
                if watch.has_ended:
                    return watch


def until_answered(call: Callable[[], Result], outage: Outage, pause: Callable[[float], None]) -> Result:
    """Repeats a call while the server does not answer. Raises ServerGoneError after a quarter of an hour."""
    while True:
        with outage.tolerated():
            return call()
        pause(POLL_SECONDS)
