"""How a stack is: its parts, its workers, and the latest runs, as a table for people."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterParentTaskRunId,
)
from prefect.client.schemas.objects import WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from rich.table import Table

from flows.execution.work_pools import CPU_POOL, GPU_POOL
from flows.local_stack.state_folder import PartState
from flows.terminal import results

_RUNS_SHOWN = 8
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Run(NamedTuple):
    """A flow run, as a line tells it."""

    name: str
    state: str
    started: str


def workers_online() -> dict[str, int]:
    """How many workers each pool has that take runs now; pools that are not there have none."""
    online = {}
    with get_client(sync_client=True) as client:
        for pool in (CPU_POOL, GPU_POOL):
            try:
                workers = client.read_workers_for_work_pool(pool)
            except ObjectNotFound:
                workers = []
            online[pool] = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    return online


def latest_runs() -> list[Run]:
    """The newest runs, without those that other runs started and those that are planned for later."""
    wanted = FlowRunFilter(
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=_RUNS_SHOWN
        )
    return [
        Run(
            run.name,
            run.state_name or "unknown",
            f"{run.start_time:%Y-%m-%d %H:%M} UTC" if run.start_time is not None else "not started",
        )
        for run in found
    ]


def print_parts(parts: Sequence[PartState]) -> None:
    """One line for each part."""
    table = Table("part", "state", "pid", "since", "restarts", "port", "log")
    for part in parts:
        table.add_row(
            part.name,
            part.state,
            _or_dash(part.pid),
            f"{_duration(time.time() - part.since)} ago",
            str(part.restarts),
            _or_dash(part.port),
            _or_dash(part.log),
        )
    results.print(table)


def print_server() -> None:
    """What the Prefect server knows of workers and runs."""
    for pool, number in workers_online().items():
        results.print(f"{pool}: {number} worker{'' if number == 1 else 's'} online")
    runs = latest_runs()
    if not runs:
        results.print("No runs yet.")
        return
    table = Table("latest runs", "state", "started")
    for run in runs:
        table.add_row(*run)
    results.print(table)


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _duration(seconds: float) -> str:
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
