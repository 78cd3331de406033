"""One run in the hands of a worker: who waits for it bears a server that is gone, and takes it along when it ends.

The server, its workers and the clock are played.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID, uuid4

import pytest

from flows.config.run_config import ExecutionConfig
from flows.execution.prefect_api import ServerGoneError
from flows.execution.run_monitor import MAX_OUTAGE_SECONDS, RunStatus, RunWatch, Workers, run_on_worker

_RUN = uuid4()
_TAKES_SECONDS = 100.0
_LOST_AFTER_SECONDS = 30.0


@dataclass
class Play:
    """A server that is gone now and then, and a worker that works and perhaps dies."""

    gone_between: tuple[float, float] = (0.0, 0.0)
    dies_at: float = 1e9
    interrupted_at: float = 1e9
    hangs_at: float = 1e9
    hung: float = 0.0
    time: float = 0.0
    started_at: float | None = None
    asked: list[str] = field(default_factory=list)

    def start(self) -> UUID:
        self._ask("start")
        self.started_at = self.time
        return _RUN

    def read_statuses(self, runs: Sequence[UUID]) -> dict[UUID, RunStatus]:
        assert list(runs) == [_RUN]
        assert self.started_at is not None
        self._ask("look")
        return {_RUN: self._status(self.time - self.started_at)}

    def mark_crashed(self, run: UUID) -> None:
        self._ask("give up")

    def cancel(self, runs: Sequence[UUID]) -> None:
        self._ask(f"cancel {len(runs)}")

    def _status(self, worked: float) -> RunStatus:
        ended = self.time < self.dies_at and worked >= _TAKES_SECONDS
        heartbeat = str((min(self.time, self.dies_at) - self.hung) // 5)  # nobody can tell a server that hangs
        return RunStatus("COMPLETED" if ended else "RUNNING", heartbeat=heartbeat)

    def _ask(self, what: str) -> None:
        if self.time >= self.hangs_at and not self.hung:
            self.hung = 2 * _LOST_AFTER_SECONDS
            self.time += self.hung
        if self.gone_between[0] <= self.time < self.gone_between[1]:
            raise ServerGoneError("connection refused")
        self.asked.append(what)

    def pause(self, seconds: float) -> None:
        self.time += seconds
        if self.time >= self.interrupted_at:
            raise KeyboardInterrupt

    def done(self) -> RunWatch:
        return run_on_worker(
            self.start,
            cast(Workers, self),
            ExecutionConfig(lost_after_seconds=_LOST_AFTER_SECONDS),
            now=lambda: self.time,
            pause=self.pause,
        )


def test_a_run_is_watched_to_its_end() -> None:
    play = Play()
    assert play.done().status.state == "COMPLETED"
    assert play.time == pytest.approx(_TAKES_SECONDS, abs=4)


@pytest.mark.parametrize("gone_between", [(0, 300), (10, 95), (50, 500)])
def test_a_server_that_comes_back_costs_nothing_but_time(gone_between: tuple[float, float]) -> None:
    play = Play(gone_between=gone_between)
    assert play.done().status.state == "COMPLETED"
    assert play.asked[0] == "start"
    assert set(play.asked[1:]) == {"look"}


@pytest.mark.parametrize("gone_from", [0, 10])
def test_a_server_that_stays_away_ends_the_wait(gone_from: float) -> None:
    play = Play(gone_between=(gone_from, 1e9))
    with pytest.raises(ServerGoneError):
        play.done()
    assert play.time == pytest.approx(gone_from + MAX_OUTAGE_SECONDS, abs=4)


def test_a_server_that_hangs_and_then_answers_late_loses_nobody() -> None:
    play = Play(hangs_at=20)
    assert play.done().status.state == "COMPLETED"
    assert "give up" not in play.asked


def test_a_worker_that_dies_is_given_up() -> None:
    play = Play(dies_at=20)
    assert play.done().status.state == "CRASHED"
    assert play.asked[-1] == "give up"
    assert play.time == pytest.approx(20 + _LOST_AFTER_SECONDS, abs=4)


def test_a_run_is_given_up_although_the_server_is_gone_when_that_is_due() -> None:
    class Gone(Play):
        def mark_crashed(self, run: UUID) -> None:
            self.gone_between = (self.time, self.time + 10) if self.gone_between == (0, 0) else self.gone_between
            super().mark_crashed(run)

    play = Gone(dies_at=20)
    assert play.done().status.state == "CRASHED"
    assert play.asked[-1] == "give up"


def test_whoever_ends_the_wait_ends_the_run() -> None:
    play = Play(interrupted_at=30)
    with pytest.raises(KeyboardInterrupt):
        play.done()
    assert play.asked[-1] == "cancel 1"


def test_an_interrupt_comes_through_though_the_run_cannot_be_cancelled() -> None:
    play = Play(interrupted_at=30, gone_between=(20, 40))
    with pytest.raises(KeyboardInterrupt):
        play.done()
