"""Waiting for the run of one worker: outages of the server are tolerated, and an interrupt cancels the run.

The server, its workers and the clock are simulated.
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
class Simulation:
    """A server with outages, and a worker that may die."""

    gone_between: tuple[float, float] = (0.0, 0.0)
    dies_at: float = 1e9
    interrupted_at: float = 1e9
    hangs_at: float = 1e9
    hung: float = 0.0
    time: float = 0.0
    started_at: float | None = None
    calls: list[str] = field(default_factory=list)

    def start(self) -> UUID:
        self._call("start")
        self.started_at = self.time
        return _RUN

    def read_statuses(self, runs: Sequence[UUID]) -> dict[UUID, RunStatus]:
        assert list(runs) == [_RUN]
        assert self.started_at is not None
        self._call("look")
        return {_RUN: self._status(self.time - self.started_at)}

    def mark_crashed(self, run: UUID) -> None:
        self._call("mark crashed")

    def cancel(self, runs: Sequence[UUID]) -> None:
        self._call(f"cancel {len(runs)}")

    def _status(self, worked: float) -> RunStatus:
        ended = self.time < self.dies_at and worked >= _TAKES_SECONDS
        heartbeat = str((min(self.time, self.dies_at) - self.hung) // 5)  # nobody can tell a server that hangs
        return RunStatus("COMPLETED" if ended else "RUNNING", heartbeat=heartbeat)

    def _call(self, what: str) -> None:
        if self.time >= self.hangs_at and not self.hung:
            self.hung = 2 * _LOST_AFTER_SECONDS
            self.time += self.hung
        if self.gone_between[0] <= self.time < self.gone_between[1]:
            raise ServerGoneError("connection refused")
        self.calls.append(what)

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
    simulation = Simulation()
    assert simulation.done().status.state == "COMPLETED"
    assert simulation.time == pytest.approx(_TAKES_SECONDS, abs=4)


@pytest.mark.parametrize("gone_between", [(0, 300), (10, 95), (50, 500)])
def test_a_server_that_comes_back_costs_only_time(gone_between: tuple[float, float]) -> None:
    simulation = Simulation(gone_between=gone_between)
    assert simulation.done().status.state == "COMPLETED"
    assert simulation.calls[0] == "start"
    assert set(simulation.calls[1:]) == {"look"}


@pytest.mark.parametrize("gone_from", [0, 10])
def test_a_server_that_stays_unreachable_ends_the_wait(gone_from: float) -> None:
    simulation = Simulation(gone_between=(gone_from, 1e9))
    with pytest.raises(ServerGoneError):
        simulation.done()
    assert simulation.time == pytest.approx(gone_from + MAX_OUTAGE_SECONDS, abs=4)


def test_a_late_answer_of_a_hanging_server_loses_no_run() -> None:
    simulation = Simulation(hangs_at=20)
    assert simulation.done().status.state == "COMPLETED"
    assert "mark crashed" not in simulation.calls


def test_the_run_of_a_dead_worker_is_marked_as_crashed() -> None:
    simulation = Simulation(dies_at=20)
    assert simulation.done().status.state == "CRASHED"
    assert simulation.calls[-1] == "mark crashed"
    assert simulation.time == pytest.approx(20 + _LOST_AFTER_SECONDS, abs=4)


def test_a_run_is_marked_as_crashed_even_if_the_server_is_gone_at_that_time() -> None:
    class Gone(Simulation):
        def mark_crashed(self, run: UUID) -> None:
            self.gone_between = (self.time, self.time + 10) if self.gone_between == (0, 0) else self.gone_between
            super().mark_crashed(run)

    simulation = Gone(dies_at=20)
    assert simulation.done().status.state == "CRASHED"
    assert simulation.calls[-1] == "mark crashed"


def test_interrupting_the_wait_ends_the_run() -> None:
    simulation = Simulation(interrupted_at=30)
    with pytest.raises(KeyboardInterrupt):
        simulation.done()
    assert simulation.calls[-1] == "cancel 1"


def test_an_interrupt_comes_through_though_the_run_cannot_be_cancelled() -> None:
    simulation = Simulation(interrupted_at=30, gone_between=(20, 40))
    with pytest.raises(KeyboardInterrupt):
        simulation.done()
