"""Ends cancelled runs: the children of a run together with it, and the run of a worker by itself.

Prefect's worker stops the process of a cancelled run, with two exceptions: if the server was away for half a minute
during the run, the worker has stopped listening for the rest of it; and a process that was just starting begins a run
that has ended already.
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

from flows.execution.prefect_api import ServerGoneError, all_pages, server_call

log = logging.getLogger(__name__)

_SECONDS = 10.0  # between two checks
_CHECKS = 2  # that find the run cancelled, so that the worker had time to stop it


@contextmanager
def stopping_when_cancelled() -> Iterator[None]:
    """Stops the block's work, by SIGTERM, if its run was cancelled and nothing else stopped it.

    The run then ends as Cancelled. So does a run that was cancelled before the block, which is not entered, and one
    whose work is done: Prefect lets a Cancelling run end as nothing else, and it would stay that. Applies only to the
    run that a worker started this process for, not to its children.
    """
    started_for = os.environ.get("PREFECT__FLOW_RUN_ID")  # runtime.deployment.id is also set in child runs
    if started_for is None or started_for != runtime.flow_run.id:
        yield
        return
    run, left, noticed = UUID(started_for), Event(), Event()
    _end_if_cancelled(run)
    work = contextvars.copy_context().run  # has the settings of this run, such as its server
    Thread(target=work, args=(_poll, run, left, noticed), name="own cancellation", daemon=True).start()
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


def _poll(run: UUID, left: Event, noticed: Event) -> None:
    """Checks the run's state until the block is left or the run was found cancelled."""
    num_found = 0
    while num_found < _CHECKS:
        if left.wait(_SECONDS):
            return
        num_found = num_found + 1 if _is_cancelled(run) else 0
    noticed.set()
    log.warning("The run was cancelled and its worker did not stop it; it stops itself.")
    os.kill(os.getpid(), signal.SIGTERM)


def _is_cancelled(run: UUID) -> bool:
    """Ignores Running, which a run that was cancelled before its start also becomes; a retried one is Scheduled."""
    try:
        with server_call(), get_client(sync_client=True) as client:
            states = client.read_flow_run_states(run)
    except (ServerGoneError, ObjectNotFound):
        return False
    decisive = [state for state in states if state.type is not StateType.RUNNING]
    last = max(decisive, key=lambda state: state.timestamp, default=None)
    return last is not None and last.type in (StateType.CANCELLING, StateType.CANCELLED)


def _cancelled(run: UUID) -> Abort:
    """Sets the run's state to Cancelled and returns the exception that ends it so."""
    state: State[Any] = Cancelled(message="Stopped after it was cancelled.")
    try:
        with server_call(), get_client(sync_client=True) as client:
            client.set_flow_run_state(run, state)
    except ServerGoneError as error:
        log.warning("The Prefect server does not answer (%s) and does not know yet that the run ended.", error)
    ended = Abort("cancelled")
    ended.state = state  # type: ignore[attr-defined] # Prefect's engine then sets no state of its own
    return ended


_UNENDED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]


def cancel_below(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancels all child runs that have not ended; a hook of flows."""
    with get_client(sync_client=True) as client:
        _cancel_children(client, flow_run)


def _cancel_children(client: SyncPrefectClient, parent: FlowRun) -> None:
    # A submitted group is the child of a subflow, which belongs to no deployment and ended with its process.
    unended = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNENDED)),
    )
    # All are read before the first is ended, which would move the others to other pages.
    for child in list(all_pages(partial(client.read_flow_runs, flow_run_filter=unended))):
        _cancel_children(client, child)
        end_run(client, child, f"Its parent run {parent.name} ended.")


def end_run(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Cancels a run that has not ended: its worker stops it; without a worker it ends immediately.

    A worker that is just starting the process misses the cancellation; the process itself then notices it
    (`stopping_when_cancelled`).
    """
    if run.state is not None and run.state.is_final():
        return
    is_at_work = run.deployment_id is not None and run.state_type not in (StateType.SCHEDULED, StateType.PENDING)
    state: State[Any] = (Cancelling if is_at_work else Cancelled)(message=why)
    client.set_flow_run_state(run.id, state)
