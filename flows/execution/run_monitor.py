"""Whether a flow run that a worker has is still at work: told from what the Prefect server heard of it.

Only this process's clock is asked. Prefect's own states do not tell: the run of a killed worker stays Running.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flows.config.run_config import ExecutionConfig

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 900.0  # how long the server may be gone
_ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class ServerGoneError(Exception):
    """The Prefect server does not answer, which may pass."""


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
