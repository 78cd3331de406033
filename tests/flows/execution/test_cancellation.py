"""A run that notices by itself that it was cancelled. The server and the signal are simulated; real ones are in
`tests/system/test_service_runs.py`.
"""

import signal
from contextlib import nullcontext
from threading import Event
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Abort, ObjectNotFound, TerminationSignal
from prefect.states import Cancelled, Cancelling, Pending, Running, Scheduled, State

from flows.execution import cancellation

_SECONDS = 30.0  # in which a thread has to get its turn
_GONE = httpx.ConnectError("connection refused")
_DELETED = ObjectNotFound(_GONE)


class Server:
    """Knows one run, which has just begun, and is in these states when it is looked at, the last one from then on."""

    def __init__(self, *seen: State[Any] | Exception) -> None:
        self._seen = [Running(), *seen]
        self.num_looks = 0
        self.states: list[tuple[UUID, State[Any]]] = []
        self.is_gone = False
        self.was_asked_to_the_end = Event()

    def read_flow_run_states(self, run: UUID) -> list[State[Any]]:
        self.num_looks += 1
        if len(self._seen) == 1:
            self.was_asked_to_the_end.set()
        seen = self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]
        if isinstance(seen, Exception):
            raise seen
        return [seen]

    def set_flow_run_state(self, run: UUID, state: State[Any]) -> None:
        if self.is_gone:
            raise _GONE
        self.states.append((run, state))


_RUN = uuid4()


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Is set when this process is asked to end."""
    asked = Event()

    def kill(_: int, number: int) -> None:
        assert number == signal.SIGTERM
        asked.set()

    monkeypatch.setattr(cancellation.os, "kill", kill)
    return asked


def _play(monkeypatch: pytest.MonkeyPatch, server: Server, started_for: UUID | None = _RUN) -> None:
    """`started_for`: the run that a worker has started this process for."""
    if started_for is None:
        monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    else:
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(started_for))
    monkeypatch.setattr(cancellation, "_SECONDS", 0.01)
    monkeypatch.setattr(cancellation, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id=str(_RUN))))
    monkeypatch.setattr(cancellation, "get_client", lambda sync_client: nullcontext(server))


def _work_until(signalled: Event) -> None:
    """As Prefect's engine has it end."""
    assert signalled.wait(_SECONDS)
    raise TerminationSignal(signal.SIGTERM)


@pytest.mark.parametrize(
    "seen",
    [
        [Cancelling()],
        [Running(), Cancelling()],
        [_GONE, Cancelled()],
        [Cancelling(), _GONE, Running(), Cancelling()],
        [_DELETED, Cancelling()],
    ],
    ids=["at once", "later", "after the server was away", "and it was away between", "and unknown before"],
)
@pytest.mark.slow
def test_work_of_a_cancelled_run_is_stopped_and_the_run_ends_as_cancelled(
    seen: list[State[Any] | Exception], signalled: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(monkeypatch, server := Server(*seen))
    with pytest.raises(Abort) as ended, cancellation.stopping_when_cancelled():
        _work_until(signalled)
    assert server.num_looks > 1 + len(seen), "one look that finds it cancelled is not enough"
    ((run, state),) = server.states
    assert run == _RUN
    assert state.type is StateType.CANCELLED
    assert ended.value.state is state  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("states", "begins"),
    [
        ([Pending(), Cancelled(), Running()], False),
        ([Pending(), Cancelling(), Cancelled(), Running()], False),
        ([Pending(), Cancelled(), Scheduled(), Pending(), Running()], True),
        ([Scheduled(), Pending(), Running()], True),
    ],
    ids=["cancelled", "cancelled in two steps", "cancelled and retried", "never cancelled"],
)
def test_what_was_cancelled_while_its_process_started_does_not_begin(
    states: list[State[Any]], begins: bool, signalled: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(monkeypatch, server := Server())
    monkeypatch.setattr(server, "read_flow_run_states", lambda run: states[::-1])
    work = []
    with nullcontext() if begins else pytest.raises(Abort), cancellation.stopping_when_cancelled():
        work.append("begun")
    assert bool(work) == begins
    assert [state.type for _, state in server.states] == ([] if begins else [StateType.CANCELLED])
    assert not signalled.is_set()


@pytest.mark.parametrize("failure", [None, ValueError("the disk is full")], ids=["done", "failed"])
def test_what_ends_by_itself_though_it_is_cancelled_ends_as_cancelled(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect would refuse any other end, and it would stay Cancelling."""
    _play(monkeypatch, server := Server(Cancelling()))
    monkeypatch.setattr(cancellation, "_SECONDS", 60)
    with pytest.raises(Abort), cancellation.stopping_when_cancelled():
        if failure is not None:
            raise failure
    assert [state.type for _, state in server.states] == [StateType.CANCELLED]


def test_what_ends_by_itself_and_is_not_cancelled_ends_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, server := Server())
    with pytest.raises(ValueError, match="the disk is full"), cancellation.stopping_when_cancelled():
        raise ValueError("the disk is full")
    assert server.states == []


def test_a_server_that_is_gone_again_does_not_change_the_end(signalled: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, server := Server(Cancelling()))
    server.is_gone = True
    with pytest.raises(Abort), cancellation.stopping_when_cancelled():
        _work_until(signalled)
    assert server.states == []


def test_a_signal_from_elsewhere_is_what_it_was(signalled: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, server := Server(Running()))
    with pytest.raises(TerminationSignal), cancellation.stopping_when_cancelled():
        assert server.was_asked_to_the_end.wait(_SECONDS)
        raise TerminationSignal(signal.SIGTERM)
    assert server.states == []
    assert not signalled.is_set()


def test_a_run_that_goes_on_is_left_alone_and_not_looked_at_afterwards(
    signalled: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(monkeypatch, server := Server(Running()))
    with cancellation.stopping_when_cancelled():
        assert server.was_asked_to_the_end.wait(_SECONDS)
    server._seen = [Cancelling()]
    assert not signalled.wait(0.1)


@pytest.mark.parametrize("started_for", [None, uuid4()], ids=["no worker has it", "it is below the worker's"])
def test_another_run_is_not_looked_at(
    started_for: UUID | None, signalled: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(monkeypatch, server := Server(Cancelling()), started_for)
    with cancellation.stopping_when_cancelled():
        assert not signalled.wait(0.1)
    assert server.num_looks == 0
