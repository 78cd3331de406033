"""Prints the workers and the latest runs that a Prefect server knows."""

from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterParentTaskRunId,
)
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from rich.table import Table

from flows.execution.names import CPU_POOL, GPU_POOL
from flows.terminal import results
from refseg_core.errors import counted

_RUNS_SHOWN = 8


def workers_online() -> dict[str, int]:
    """Returns the number of online workers of each pool; a missing pool has none."""
    online = {}
    with get_client(sync_client=True) as client:
        for pool in (CPU_POOL, GPU_POOL):
            try:
                workers = client.read_workers_for_work_pool(pool)
            except ObjectNotFound:
                workers = []
            online[pool] = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    return online


def print_server() -> None:
    """Prints the workers and the latest runs."""
    for pool, number in workers_online().items():
        results.print(f"{pool}: {counted(number, 'worker')} online")
    if not (runs := _latest_runs()):
        results.print("No runs yet.")
        return
    table = Table("latest runs", "state", "started")
    for run in runs:
        started = "not started" if run.start_time is None else f"{run.start_time:%Y-%m-%d %H:%M} UTC"
        table.add_row(run.name, run.state_name or "unknown", started)
    results.print(table)


def _latest_runs() -> list[FlowRun]:
    """Returns the newest runs, without child runs and runs scheduled for later."""
    wanted = FlowRunFilter(
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(
            flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=_RUNS_SHOWN
        )
