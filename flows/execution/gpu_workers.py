"""The workers of the GPU pool, reached through the Prefect server (the `Workers` of `run_monitor.py`)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import Artifact, FlowRun, WorkerStatus
from prefect.client.schemas.sorting import ArtifactSort
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from prefect.utilities.slugify import slugify

from flows.execution.cancellation import end_run
from flows.execution.names import GPU_POOL, LABEL_SHARDS
from flows.execution.prefect_api import all_pages, server_call
from flows.execution.run_monitor import RunStatus
from refseg_core.errors import ConfigurationError
from tasks.specs import LabelJob
from tasks.store.shard_plans import Shard

_LOST = "refseg.worker.lost"  # event that automations react to


class GpuPool:
    """Submits flow runs to the pool and reads their status."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def submit(self, name: str, job: LabelJob, shards: Sequence[Shard], token: str) -> UUID:
        """Creates the flow run of a group; the same token gives the same run again."""
        bucket = urlsplit(job.images).netloc
        tags = [f"bucket-{bucket}"] if bucket else []
        return self.start(LABEL_SHARDS, name, {"job": job, "shards": list(shards)}, token, tags)

    def start(self, deployment: str, name: str, parameters: dict[str, Any], token: str, tags: Sequence[str]) -> UUID:
        """Creates a child run of the current run. Raises ConfigurationError if the deployment is missing."""
        try:
            with server_call():
                run = run_deployment(
                    deployment,
                    parameters=parameters,
                    flow_run_name=name,
                    timeout=0,
                    tags=tags,
                    idempotency_key=f"{runtime.flow_run.id} {token}",
                )
        except ObjectNotFound as error:
            raise ConfigurationError(
                f"execution.engine: 'workers' needs the deployment {deployment!r}, which the Prefect server does not "
                "have. Run `refseg service deploy`."
            ) from error
        return cast(FlowRun, run).id  # outside of coroutines it is no awaitable

    def read_statuses(self, runs: Sequence[UUID]) -> dict[UUID, RunStatus]:
        """Returns the status of each run; unknown runs are left out."""
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(runs)))
        of_runs = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=list(runs)), type=ArtifactFilterType(any_=["progress"])
        )
        # Not by time of update, an order that changes between two pages.
        read_progress = partial(self._client.read_artifacts, artifact_filter=of_runs, sort=ArtifactSort.ID_DESC)
        with server_call():
            shown = {artifact.flow_run_id: artifact for artifact in all_pages(read_progress)}
            found = list(all_pages(partial(self._client.read_flow_runs, flow_run_filter=wanted)))
        return {run.id: _status(run, shown.get(run.id)) for run in found}

    def mark_crashed(self, run: UUID) -> None:
        """Marks a lost run as crashed."""
        with server_call():
            self._client.set_flow_run_state(run, Crashed(message="No sign of life for too long."), force=True)
        emit_event(_LOST, resource={"prefect.resource.id": f"prefect.flow-run.{run}"})

    def cancel(self, runs: Sequence[UUID]) -> None:
        """Cancels the runs; those that no worker has yet end immediately."""
        with server_call():
            for run in runs:
                end_run(self._client, self._client.read_flow_run(run), "Its parent run ended.")

    def online_workers(self) -> list[str]:
        """Returns the names of the workers that take runs now."""
        with server_call():
            workers = list(all_pages(partial(self._client.read_workers_for_work_pool, GPU_POOL)))
        return [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]

    def announce_lost(self, worker: str) -> None:
        """Emits the event that a worker went offline."""
        resource = {"prefect.resource.id": f"prefect.worker.{slugify(worker)}", "prefect.resource.name": worker}
        emit_event(_LOST, resource=resource)


def _status(run: FlowRun, progress: Artifact | None) -> RunStatus:
    share = progress.data if progress else None
    return RunStatus(
        state="SCHEDULED" if run.state is None else run.state.type.value,
        message=(run.state.message if run.state else None) or "",
        heartbeat=str(progress.updated) if progress else "",
        share_done=float(share) / 100 if isinstance(share, int | float) else 0.0,
        seconds=run.estimated_run_time.total_seconds(),
    )
