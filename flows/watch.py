"""Whether a flow run that a worker has is still at work: told from what the Prefect server heard of it.

Only this process's clock is asked. Prefect's own states do not tell: the run of a killed worker stays Running.
"""

from dataclasses import dataclass, field

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 900.0  # how long the server may be gone
_START_SECONDS = 300.0  # from when a worker takes a run until it is at work; a cold disk needs minutes
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

    lost_after_seconds: float
    heard_at: float
    sighting: Sighting = field(default_factory=lambda: Sighting("SCHEDULED"))

    def hear(self, seen: Sighting, now: float) -> None:
        """Takes note of what was seen. A run that waits for a worker is not lost, however long it waits."""
        before, self.sighting = self.sighting, seen
        if (seen.state, seen.heartbeat) != (before.state, before.heartbeat) or seen.state == "SCHEDULED":
            self.heard_at = now

    def is_lost(self, now: float) -> bool:
        """Whether nothing was heard for too long; the run then counts as crashed."""
        patience = self.lost_after_seconds if self.sighting.heartbeat else _START_SECONDS
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
