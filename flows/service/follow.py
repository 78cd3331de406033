"""Starts a labeling run on the service and shows its progress until it ends."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.utilities.urls import url_for
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flows.config.run_config import RunConfig
from flows.errors import RunFailedError
from flows.execution.names import LABEL_NOW
from flows.execution.stopping import when_stopped
from flows.service.api import ui_path
from flows.service.status import workers_online
from flows.terminal import SECONDS_BETWEEN_LINES, messages
from refseg_core.errors import ConfigurationError
from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.progress import progress_key

_POLL_SECONDS = 2.0


def label_now(config: RunConfig) -> str | None:
    """Waits until the images are labeled; returns the labels' key, or None where the run's page does not say it.

    Raises RunFailedError if the run fails.
    """
    run = _start(config.for_service())
    messages.print(f"Run {run.name}: {_page_of(run)}")
    for pool, number in workers_online().items():
        if number == 0:
            messages.print(
                f"No worker of {pool} is online; the run waits for one (refseg service worker).", style="yellow"
            )
    when_stopped(*_continues(run), ended=_continues(run)[0])
    state, message = _follow(run.id, progress_key(config.store))
    if state != "COMPLETED":
        raise RunFailedError(f"The run ended as {state.lower()}: {message or 'see its logs in the UI'}")
    return _labels_key(run.id, config.store)


def _continues(run: FlowRun) -> tuple[str, str]:
    return "the run continues on the service", f"to cancel it: prefect flow-run cancel {run.id}"


def _page_of(run: FlowRun) -> str:
    """Returns the address of a run's page."""
    server, runs, page = str(url_for("flow-run", obj_id=run.id)).partition("/runs/")
    return f"{server}{ui_path(server)}{runs}{page}"


def _labels_key(run_id: UUID, store_uri: str) -> str | None:
    """Returns the key of the labels that the run's summary is of."""
    with get_client(sync_client=True) as client:
        summaries = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[f"{artifact_name(store_uri)}-summary"])),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])),
            sort=ArtifactSort.UPDATED_DESC,
            limit=1,
        )
    found = [re.search(r"labels/([0-9a-f]+)", str(summary.data)) for summary in summaries]
    return next((match[1] for match in found if match), None)


def _start(parameters: dict[str, Any]) -> FlowRun:
    try:
        run = run_deployment(LABEL_NOW, parameters={"config": parameters}, timeout=0, as_subflow=False)
    except ObjectNotFound as error:
        raise ConfigurationError(
            f"The Prefect server has no deployment {LABEL_NOW!r}. Run `refseg service deploy`."
        ) from error
    assert isinstance(run, FlowRun)
    return run


def _follow(run_id: UUID, key: str) -> tuple[str, str]:
    """Shows the progress until the run has ended; returns its state's type and message."""
    with _shown_progress() as show, get_client(sync_client=True) as client:
        while True:
            run = client.read_flow_run(run_id)
            if run.state is not None and run.state.is_final():
                return run.state.type.value, run.state.message or ""
            share, description = _progress(client, run_id, key)
            show(share, description or (run.state_name or "scheduled").lower())
            time.sleep(_POLL_SECONDS)


@contextmanager
def _shown_progress() -> Iterator[Callable[[float | None, str], None]]:
    """Yields what shows a percentage and a text: as a bar, or without a terminal as a line at intervals."""
    if not messages.is_terminal:
        yield _Lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=messages) as bars:
        bar = bars.add_task("scheduled", total=None)

        def show(share: float | None, text: str) -> None:
            bars.update(bar, description=text, total=None if share is None else 100, completed=share or 0)

        yield show


@dataclass
class _Lines:
    """Prints how far a run is now and again; the server's text says images, images a second and the time left."""

    printed_at: float | None = None

    def __call__(self, share: float | None, text: str) -> None:
        now = time.monotonic()
        if self.printed_at is None or now - self.printed_at >= SECONDS_BETWEEN_LINES:
            self.printed_at = now
            messages.print(text if share is None else f"{share:.0f} %: {text}")


def _progress(client: SyncPrefectClient, run_id: UUID, key: str) -> tuple[float | None, str]:
    """Returns the percentage and text of the run's progress artifact, which its child runs update."""
    below = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    )
    ids = {run_id, *(run.id for run in below)}
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.UPDATED_DESC, limit=10
    )
    for artifact in found:
        if artifact.flow_run_id in ids and isinstance(artifact.data, int | float):
            return float(artifact.data), artifact.description or ""
    return None, ""
