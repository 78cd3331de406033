"""The workers of the GPU pool, reached through the Prefect server: `run_monitor.py` says what is needed of them."""

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
from flows.execution.prefect_api import all_pages, asking
from flows.execution.run_monitor import Sighting
from flows.execution.work_pools import GPU_POOL
from refseg_core.errors import ConfigurationError
from tasks.specs import LabelJob
from tasks.store.shard_plans import Shard

LABEL_SHARDS, BUILD_BANK = "label shards/gpu", "build bank/gpu"
_LOST = "refseg.worker.lost"  # automations wait for it


class GpuPool:
    """Hands flow runs to the pool and looks at them."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def hand_out(self, name: str, job: LabelJob, shards: Sequence[Shard], token: str) -> UUID:
        """Makes a flow run of a group; asked again with the same token it is the same run."""
        bucket = urlsplit(job.images).netloc
        tags = [f"bucket-{bucket}"] if bucket else []
        return self.start(LABEL_SHARDS, name, {"job": job, "shards": list(shards)}, token, tags)

    def start(self, deployment: str, name: str, parameters: dict[str, Any], token: str, tags: Sequence[str]) -> UUID:
        """Makes a flow run below the current one. Raises ConfigurationError where the deployment is missing."""
        try:
            with asking():
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
                "have. `refseg service deploy` makes it."
            ) from error
        return cast(FlowRun, run).id  # outside of coroutines it is the run itself

    def look_at(self, runs: Sequence[UUID]) -> dict[UUID, Sighting]:
        """What is known of each run; those that are unknown are left out."""
        with asking():
            shown = {artifact.flow_run_id: artifact for artifact in self._progress_of(runs)}
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(runs)))
            found = list(all_pages(partial(self._client.read_flow_runs, flow_run_filter=wanted)))
        return {run.id: _sighting(run, shown.get(run.id)) for run in found}

    def _progress_of(self, runs: Sequence[UUID]) -> list[Artifact]:
        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=list(runs)), type=ArtifactFilterType(any_=["progress"])
        )
        # Not in the order of their updates, which changes between two pages.
        return list(all_pages(partial(self._client.read_artifacts, artifact_filter=wanted, sort=ArtifactSort.ID_DESC)))

    def give_up(self, run: UUID) -> None:
        """Marks a run as crashed, so that nobody takes it for being at work."""
        with asking():
            self._client.set_flow_run_state(run, Crashed(message="Nothing was heard of it for too long."), force=True)
        emit_event(_LOST, resource={"prefect.resource.id": f"prefect.flow-run.{run}"})

    def cancel(self, runs: Sequence[UUID]) -> None:
        """Has whoever works at these runs stop; those that nobody has yet end at once."""
        with asking():
            for run in runs:
                end_run(self._client, self._client.read_flow_run(run), "What handed it out was ended.")

    def online(self) -> list[str]:
        """The names of the workers that take runs now."""
        with asking():
            workers = list(all_pages(partial(self._client.read_workers_for_work_pool, GPU_POOL)))
        return [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]

    def tell_lost(self, worker: str) -> None:
        """Tells whoever waits for such news that a worker is not there any more."""
        resource = {"prefect.resource.id": f"prefect.worker.{slugify(worker)}", "prefect.resource.name": worker}
        emit_event(_LOST, resource=resource)


def _sighting(run: FlowRun, progress: Artifact | None) -> Sighting:
    share = progress.data if progress else None
    return Sighting(
        state="SCHEDULED" if run.state is None else run.state.type.value,
        message=(run.state.message if run.state else None) or "",
        heartbeat=str(progress.updated) if progress else "",
        share_done=float(share) / 100 if isinstance(share, int | float) else 0.0,
        seconds=run.estimated_run_time.total_seconds(),
    )
