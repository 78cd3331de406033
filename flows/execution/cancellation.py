"""Cancelled runs end: those that a run has handed out, with it, and a run that a worker has, by itself.

Prefect's worker tells its run that it is cancelled, with two exceptions: the server was away for half a minute while
the run worked, then the worker has given up listening, for as long as that run lasts; or the run's process was just
starting, and Prefect lets it begin a run that has ended.
"""

import contextvars
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any
from uuid import UUID

from prefect import Flow, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, ObjectNotFound, TerminationSignal
from prefect.states import Cancelled, Cancelling

from flows.execution.prefect_api import ServerGoneError, all_pages, asking

log = logging.getLogger(__name__)

_SECONDS = 10.0  # between two looks
_LOOKS = 2  # that find it cancelled: before, the worker's own way had its time


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Within the block work is stopped, by SIGTERM, some time after its run was cancelled and yet goes on.

    The run then ends as Cancelled. So does one that was cancelled before it began, without entering the block, and one
    whose work is done by then: Prefect lets a run that is Cancelling end as nothing else, and it would stay that. Only
    the run that a worker started this process for, not one below it.
    """
    started_for = os.environ.get("PREFECT__FLOW_RUN_ID")  # runtime.deployment.id asks the server, and is set below it
    if started_for is None or started_for != runtime.flow_run.id:
        yield
        return
    run, left, noticed = UUID(started_for), Event(), Event()
    _end_if_cancelled(run)
    work = contextvars.copy_context().run  # asks the server that this run talks to
    looking = Thread(target=work, args=(_look, run, left, noticed), name="own cancellation", daemon=True)
    looking.start()
    try:
        try:
            yield
        finally:
            left.set()
    except TerminationSignal:
        if not noticed.is_set():
            raise
        raise _cancelled(run) from None
    except Exception:
        _end_if_cancelled(run)
        raise
    else:
        _end_if_cancelled(run)


def _end_if_cancelled(run: UUID) -> None:
    if _is_cancelled(run):
        raise _cancelled(run)


def _look(run: UUID, left: Event, noticed: Event) -> None:
    """Until the block is left, or the run found cancelled."""
    num_looks = 0
    while num_looks < _LOOKS:
        if left.wait(_SECONDS):
            return
        num_looks = num_looks + 1 if _is_cancelled(run) else 0
    noticed.set()
    log.warning("The run was cancelled, and its worker does not stop it; it stops itself.")
    os.kill(os.getpid(), signal.SIGTERM)


def _is_cancelled(run: UUID) -> bool:
    """Running says nothing: a run that was cancelled before it began is that, too. One that is retried is Scheduled."""
    try:
        with asking(), get_client(sync_client=True) as client:
            states = client.read_flow_run_states(run)
    except (ServerGoneError, ObjectNotFound):
        return False
    told = [state for state in states if state.type is not StateType.RUNNING]
    last = max(told, key=lambda state: state.timestamp, default=None)
    return last is not None and last.type in (StateType.CANCELLING, StateType.CANCELLED)


def _cancelled(run: UUID) -> Abort:
    """What ends a run as Cancelled, after the server was told that it has stopped."""
    state: State[Any] = Cancelled(message="It noticed that it was cancelled, and stopped.")
    try:
        with asking(), get_client(sync_client=True) as client:
            client.set_flow_run_state(run, state)
    except ServerGoneError as error:
        log.warning("The Prefect server does not answer (%s); it does not know yet that the run has ended.", error)
    ended = Abort("cancelled")
    ended.state = state  # type: ignore[attr-defined] # Prefect's engine leaves alone what has its last state already
    return ended


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
    run has ended (`heeding_cancellation`).
    """
    if run.state is not None and run.state.is_final():
        return
    is_at_work = run.deployment_id is not None and run.state_type not in (StateType.SCHEDULED, StateType.PENDING)
    state: State[Any] = (Cancelling if is_at_work else Cancelled)(message=why)
    client.set_flow_run_state(run.id, state)
