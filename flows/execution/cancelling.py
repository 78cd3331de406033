"""Ends the runs that a run has handed out, when it is cancelled or dies itself."""

from functools import partial
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Cancelling

from flows.execution.paging import all_pages

_UNENDED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]


def cancel_below(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of flows: cancels every run below this one that has not ended."""
    with get_client(sync_client=True) as client:
        _cancel_children(client, flow_run)


def _cancel_children(client: SyncPrefectClient, parent: FlowRun) -> None:
    # Each handed out group is the child of a subflow, which is no deployment's and has ended with its process.
    unended = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNENDED)),
    )
    # All are found before the first is ended, which would move the others to other pages.
    for child in list(all_pages(partial(client.read_flow_runs, flow_run_filter=unended))):
        _cancel_children(client, child)
        end_run(client, child, f"{parent.name} was ended.")


def end_run(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Cancels a run that has not ended: the worker that is at it stops it; else it ends at once.

    A worker that just starts its process misses what it would be told meanwhile; the process itself then finds that the
    run has ended (`cancellation.py`).
    """
    if run.state is not None and run.state.is_final():
        return
    is_at_work = run.deployment_id is not None and run.state_type not in (StateType.SCHEDULED, StateType.PENDING)
    state: State[Any] = (Cancelling if is_at_work else Cancelled)(message=why)
    client.set_flow_run_state(run.id, state)
