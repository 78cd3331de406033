"""Scheduling of shards on workers: groups, lost runs, and the shards that they leave.

The workers and the clock are simulated; real ones are in `tests/system/test_service_runs.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.config.run_config import ExecutionConfig
from flows.errors import ShardsFailedError
from flows.execution.prefect_api import ServerGoneError
from flows.execution.run_monitor import MAX_OUTAGE_SECONDS, RunStatus, RunWatch
from flows.execution.scheduler import Scheduler
from tasks.runtime import progress
from tasks.specs import LabelJob, ModelSettings
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import Shard

_IMAGES_PER_SHARD = 10


def _shards(number: int) -> list[Shard]:
    return [
        Shard(0, index, "part", index * _IMAGES_PER_SHARD, (index + 1) * _IMAGES_PER_SHARD) for index in range(number)
    ]


def _job() -> LabelJob:
    model = ModelSettings(model="m")
    return LabelJob(
        store="s", key="k", prototypes="prototypes/p", images="s3://bucket/boats", segmenter=model, encoder=model
    )


@dataclass
class _SimulatedRun:
    """A run in the simulation: what it was given, and when a worker took it."""

    shards: list[Shard]
    name: str
    worker: int | None = None
    done: float = 0.0  # images
    end: RunStatus | None = None


@dataclass
class Simulation:
    """A server, its workers and a clock; the fields say how fast workers are and when they fail."""

    num_workers: int = 2
    seconds_per_image: float = 1.0
    dies_at: Callable[[Shard, int], bool] = lambda shard, attempt: False
    fails_at: Callable[[Shard], bool] = lambda shard: False
    silent_after: Callable[[Shard], bool] = lambda shard: False
    is_offline: Callable[[int, float], bool] = lambda index, time: False
    gone_between: tuple[float, float] = (0.0, 0.0)
    time: float = 0.0
    labeled: list[Shard] = field(default_factory=list)
    runs: dict[UUID, _SimulatedRun] = field(default_factory=dict)
    tokens: dict[str, UUID] = field(default_factory=dict)
    marked_crashed: list[UUID] = field(default_factory=list)
    attempts: dict[Shard, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    announced_lost: list[str] = field(default_factory=list)

    # The interface of the workers.

    def submit(self, name: str, job: LabelJob, shards: Sequence[Shard], token: str) -> UUID:
        self._call()
        run = self.tokens.setdefault(token, uuid4())
        self.runs.setdefault(run, _SimulatedRun(list(shards), name))
        return run

    def read_statuses(self, runs: Sequence[UUID]) -> dict[UUID, RunStatus]:
        self._call()
        return {run: self._status(self.runs[run]) for run in runs}

    def mark_crashed(self, run: UUID) -> None:
        self._call()
        self.marked_crashed.append(run)
        self.runs[run].end = RunStatus("CRASHED")

    def cancel(self, runs: Sequence[UUID]) -> None:
        self._call()
        for run in runs:
            self.runs[run].end = RunStatus("CANCELLED")

    def online_workers(self) -> list[str]:
        self._call()
        return [f"gpu{index}" for index in range(self.num_workers) if not self.is_offline(index, self.time)]

    def announce_lost(self, worker: str) -> None:
        self._call()
        self.announced_lost.append(worker)

    def pending(self, shards: Sequence[Shard]) -> list[Shard]:
        return [shard for shard in shards if shard not in self.labeled]

    def _call(self) -> None:
        if self.gone_between[0] <= self.time < self.gone_between[1]:
            raise ServerGoneError("connection refused")

    def _status(self, run: _SimulatedRun) -> RunStatus:
        if run.end is not None:
            return run.end
        if run.worker is None:
            return RunStatus("SCHEDULED")
        is_dead = run.worker < 0
        share = run.done / (_IMAGES_PER_SHARD * len(run.shards))
        return RunStatus("RUNNING", "", "long ago" if is_dead else str(self.time), share)

    # The clock.

    def pause(self, seconds: float) -> None:
        self.time += seconds
        free = set(range(self.num_workers)) - {run.worker for run in self.runs.values() if run.end is None}
        for run in self.runs.values():
            if run.end is None and run.worker is None and free:
                run.worker = free.pop()
            if run.end is None and run.worker is not None and run.worker >= 0:
                self._work(run, seconds)

    def _work(self, run: _SimulatedRun, seconds: float) -> None:
        if run.name in self.cancelled:
            run.end = RunStatus("CANCELLED", "by somebody")
            return
        run.done += seconds / self.seconds_per_image
        for shard in run.shards[: int(run.done // _IMAGES_PER_SHARD)]:
            if shard in self.labeled:
                continue
            self.attempts[shard] = self.attempts.get(shard, 0) + 1
            if self.dies_at(shard, self.attempts[shard]):
                run.worker = -1
                return
            if not self.fails_at(shard):
                self.labeled.append(shard)
        if run.done >= _IMAGES_PER_SHARD * len(run.shards) and self.silent_after(run.shards[-1]):
            run.worker = -1
        elif run.done >= _IMAGES_PER_SHARD * len(run.shards):
            is_failed = any(shard not in self.labeled for shard in run.shards)
            took = self.seconds_per_image * run.done
            run.end = RunStatus(
                "FAILED" if is_failed else "COMPLETED", "the disk is full" if is_failed else "", seconds=took
            )

    def label(self, number: int, **execution: Any) -> list[Shard]:
        shards = _shards(number)
        settings = ExecutionConfig(**{"minutes_per_group": 1, "lost_after_seconds": 30, **execution})
        labels = cast(StoredLabels, self)
        Scheduler(_job(), labels, self, settings, now=lambda: self.time, pause=self.pause).label(shards)
        return shards


def test_every_shard_is_labeled_once_and_the_groups_grow_with_what_is_known_of_the_speed() -> None:
    simulation = Simulation(num_workers=2, seconds_per_image=0.5)
    simulation.label(60)
    assert sorted(simulation.labeled, key=lambda shard: shard.number) == _shards(60)
    sizes = [len(run.shards) for run in simulation.runs.values()]
    assert sizes[0] == 1
    assert max(sizes) > 5
    assert max(sizes) * _IMAGES_PER_SHARD * simulation.seconds_per_image <= 90  # a minute was asked for


def test_near_the_end_groups_are_smaller_so_that_workers_end_together() -> None:
    simulation = Simulation(num_workers=4, seconds_per_image=0.2)
    simulation.label(200)
    sizes = [len(run.shards) for run in simulation.runs.values()]
    assert sizes[-1] < max(sizes)


def test_what_a_lost_worker_leaves_is_taken_over_after_the_stated_time() -> None:
    simulation = Simulation(dies_at=lambda shard, attempt: shard.number == 3 and attempt == 1)
    shards = simulation.label(8)
    assert sorted(simulation.labeled, key=lambda shard: shard.number) == shards
    assert len(simulation.marked_crashed) == 1
    calm = Simulation()
    calm.label(8)
    assert simulation.time <= calm.time + 30 + 40


@pytest.mark.parametrize(
    ("seen", "lost_after"),
    [(RunStatus("RUNNING", heartbeat="1"), 30), (RunStatus("RUNNING"), 30), (RunStatus("PENDING"), 60)],
    ids=["at work", "killed before its first heartbeat", "its process starts"],
)
def test_a_run_is_lost_without_a_sign_of_life_for_the_configured_time(seen: RunStatus, lost_after: float) -> None:
    watch = RunWatch(ExecutionConfig(lost_after_seconds=30, start_within_seconds=60), last_sign_at=0)
    watch.update(seen, now=1000)
    watch.update(seen, now=1000 + lost_after)
    assert not watch.is_lost(1000 + lost_after)
    assert watch.is_lost(1001 + lost_after)
    assert watch.status.state == "CRASHED"
    assert watch.outcome == f"crashed: no sign of life for {lost_after} seconds"


def test_a_run_that_no_worker_has_is_not_lost_however_long_it_waits() -> None:
    watch = RunWatch(ExecutionConfig(lost_after_seconds=30, start_within_seconds=60), last_sign_at=0)
    watch.update(RunStatus("SCHEDULED"), now=100_000)
    assert not watch.is_lost(100_001)


def test_a_shard_that_kills_every_worker_fails_and_all_others_are_labeled() -> None:
    simulation = Simulation(dies_at=lambda shard, attempt: shard.number == 5)
    with pytest.raises(ShardsFailedError, match=r"of 12 shards could not be labeled: .*0000-00005"):
        simulation.label(12)
    assert len(set(_shards(12)) - set(simulation.labeled)) <= 2  # it, and perhaps the one that was at work beside it
    assert simulation.attempts[_shards(12)[5]] == 3


def test_a_shard_that_fails_is_tried_by_others_and_named_at_the_end() -> None:
    simulation = Simulation(fails_at=lambda shard: shard.number == 2)
    with pytest.raises(ShardsFailedError, match=r"1 of 6 shards .*: 0000-00002\. The first: label boats.*disk is full"):
        simulation.label(6)
    assert set(simulation.labeled) == set(_shards(6)) - {_shards(6)[2]}


def test_no_run_is_lost_while_the_server_is_gone() -> None:
    simulation = Simulation(gone_between=(10, 100))
    shards = simulation.label(20)
    assert sorted(simulation.labeled, key=lambda shard: shard.number) == shards
    assert simulation.marked_crashed == []


def test_no_run_is_lost_while_the_server_hangs() -> None:
    @dataclass
    class Hanging(Simulation):
        hung: float = 0.0

        def read_statuses(self, runs: Sequence[UUID]) -> dict[UUID, RunStatus]:
            if self.time >= 10 and not self.hung:
                self.hung = 100.0
                self.time += self.hung
            heartbeat = str((self.time - self.hung) // 5)  # meanwhile nobody could tell that he lives
            return {run: replace(seen, heartbeat=heartbeat) for run, seen in super().read_statuses(runs).items()}

    simulation = Hanging(seconds_per_image=3)
    shards = simulation.label(20)
    assert sorted(simulation.labeled, key=lambda shard: shard.number) == shards
    assert simulation.marked_crashed == []


def test_a_labeled_group_is_not_lost_though_its_end_is_not_reported() -> None:
    simulation = Simulation(silent_after=lambda shard: shard.number == 1)
    shards = simulation.label(8)
    assert sorted(simulation.labeled, key=lambda shard: shard.number) == shards
    assert simulation.marked_crashed == []


def test_a_server_that_stays_away_ends_the_run() -> None:
    simulation = Simulation(gone_between=(10, 1e9))
    with pytest.raises(ServerGoneError):
        simulation.label(200)
    assert simulation.time > MAX_OUTAGE_SECONDS


def test_a_cancelled_group_is_not_submitted_again() -> None:
    simulation = Simulation(cancelled={"label boats 0000-00001"})
    with pytest.raises(ShardsFailedError, match=r"0000-00001\. The first: label boats 0000-00001 cancelled"):
        simulation.label(6)
    assert len([run for run in simulation.runs.values() if _shards(6)[1] in run.shards]) == 1


def test_interrupting_the_run_ends_its_active_groups() -> None:
    class Ended(Simulation):
        def pause(self, seconds: float) -> None:
            super().pause(seconds)
            if self.time > 10:
                raise KeyboardInterrupt

    simulation = Ended()
    with pytest.raises(KeyboardInterrupt):
        simulation.label(20)
    assert all(run.end is not None for run in simulation.runs.values())


def test_without_workers_runs_wait_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Late(Simulation):
        def online_workers(self) -> list[str]:
            self.num_workers = 2 if self.time > 300 else 0
            return super().online_workers()

    simulation = Late()
    shards = simulation.label(4)
    assert len(simulation.labeled) == len(shards)
    assert [record.message for record in caplog.records if "No worker" in record.message] == [
        "No worker of the GPU pool is online. Start one: refseg service worker"
    ]
    assert simulation.marked_crashed == []


def test_a_worker_that_goes_offline_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    simulation = Simulation(num_workers=3, is_offline=lambda index, time: index == 1 and time > 20)
    simulation.label(60)
    assert simulation.time > 60
    assert simulation.announced_lost == ["gpu1"]
    assert [record.message for record in caplog.records] == ["Worker gpu1 is offline; the others continue."]


def test_a_worker_that_is_offline_for_a_moment_is_not_lost() -> None:
    simulation = Simulation(is_offline=lambda index, time: 20 < time < 45)
    simulation.label(40)
    assert simulation.announced_lost == []


def test_workers_that_come_back_long_after_the_server_are_not_lost() -> None:
    simulation = Simulation(gone_between=(20, 80), is_offline=lambda index, time: 80 <= time < 130)
    simulation.label(60)
    assert simulation.announced_lost == []


def test_progress_only_grows_and_ends_at_all_images() -> None:
    heard: list[int] = []
    simulation = Simulation(dies_at=lambda shard, attempt: shard.number == 4 and attempt == 1)
    with progress.listening(lambda report: heard.append(report.advanced)):
        simulation.label(10)
    assert min(heard) >= 0
    assert sum(heard) <= 10 * _IMAGES_PER_SHARD


@given(
    num_shards=st.integers(1, 60),
    num_workers=st.integers(1, 6),
    speed=st.floats(0.05, 20),
    deaths=st.sets(st.integers(0, 59), max_size=8),
)
@settings(max_examples=40)
def test_all_shards_are_labeled_whichever_workers_die_once(
    num_shards: int, num_workers: int, speed: float, deaths: set[int]
) -> None:
    simulation = Simulation(num_workers=num_workers, seconds_per_image=speed)
    simulation.dies_at = lambda shard, attempt: shard.number in deaths and attempt == 1
    assert sorted(simulation.label(num_shards), key=lambda shard: shard.number) == sorted(
        simulation.labeled, key=lambda shard: shard.number
    )
    assert len(simulation.marked_crashed) <= len(deaths)
