"""Slots of the Prefect server's limits on tags, with outages of the server. The server is simulated; a real one is in
`tests/system/test_service_runs.py`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

from flows.execution import concurrency_limits, label_shards, run_monitor
from flows.execution.prefect_api import ServerGoneError
from flows.execution.run_monitor import MAX_OUTAGE_SECONDS
from tasks.specs import LabelJob, ModelSettings

_REFUSED = httpx.ConnectError("connection refused")


class Server:
    """Limits on the tags gpu and bucket-a; what is asked of it is refused as often as `refusals` says."""

    def __init__(self, slot_free_at: float = 0.0, **refusals: int) -> None:
        self.refusals = refusals
        self.slot_free_at = slot_free_at
        self.taken: list[str] = []
        self.now = 0.0

    def read_global_concurrency_limits(self, limit: int) -> list[SimpleNamespace]:
        self._answer("read")
        return [SimpleNamespace(name=name) for name in ("tag:gpu", "tag:bucket-a", "else")][:limit]

    @contextmanager
    def concurrency(self, names: list[str], **_: Any) -> Iterator[None]:
        self.now = max(self.now, self.slot_free_at)
        try:
            self._answer("take")
        except httpx.ConnectError as error:
            raise ConcurrencySlotAcquisitionError("Unable to acquire") from error
        self.taken += names
        try:
            yield
        finally:
            self._answer("give back")
            self.taken.clear()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _answer(self, what: str) -> None:
        if self.refusals.get(what, 0):
            self.refusals[what] -= 1
            raise _REFUSED


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the Prefect client by a simulated server."""

    def played(server: Server, deployment: Any = uuid4()) -> None:  # noqa: B008 - any will do
        monkeypatch.setattr(concurrency_limits, "get_client", lambda sync_client: nullcontext(server))
        monkeypatch.setattr(concurrency_limits, "concurrency", server.concurrency)
        monkeypatch.setattr(
            concurrency_limits, "time", SimpleNamespace(monotonic=lambda: server.now, sleep=server.sleep)
        )
        run = SimpleNamespace(
            deployment=SimpleNamespace(id=deployment), flow_run=SimpleNamespace(tags=["gpu", "mine", "bucket-a"])
        )
        monkeypatch.setattr(concurrency_limits, "runtime", run)

    return played


@pytest.mark.parametrize("refusals", [{}, {"read": 3}, {"take": 3}, {"read": 1, "take": 2}], ids=str)
def test_slots_of_the_runs_tags_are_held_in_the_block_and_released(simulation: Any, refusals: dict[str, int]) -> None:
    simulation(server := Server(**refusals))
    with concurrency_limits.holding_tag_slots():
        assert server.taken == ["tag:gpu", "tag:bucket-a"]
    assert server.taken == []


def test_a_server_that_goes_after_hours_of_waiting_for_a_slot_is_borne_too(simulation: Any) -> None:
    simulation(server := Server(slot_free_at=10 * MAX_OUTAGE_SECONDS, take=1))
    with concurrency_limits.holding_tag_slots():
        assert server.taken == ["tag:gpu", "tag:bucket-a"]


def test_a_run_that_no_worker_has_takes_none(simulation: Any) -> None:
    simulation(server := Server(), deployment=None)
    with concurrency_limits.holding_tag_slots():
        assert server.taken == []


def test_finished_work_does_not_fail_if_its_slots_cannot_be_released(
    simulation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulation(Server(**{"give back": 1}))
    with caplog.at_level(logging.WARNING), concurrency_limits.holding_tag_slots():
        pass
    assert "connection refused" in caplog.text and "90 s" in caplog.text


def test_an_error_in_the_block_is_raised_and_its_slots_are_released(simulation: Any) -> None:
    simulation(server := Server())
    with pytest.raises(ValueError, match="the shard"), concurrency_limits.holding_tag_slots():
        raise ValueError("the shard")
    assert server.taken == []


def test_a_server_that_stays_unreachable_raises(simulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_monitor, "POLL_SECONDS", MAX_OUTAGE_SECONDS / 9)
    simulation(server := Server(take=10_000))
    with pytest.raises(ServerGoneError, match="connection refused"), concurrency_limits.holding_tag_slots():
        pass
    assert server.now > MAX_OUTAGE_SECONDS


def test_a_refused_call_is_not_repeated(simulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation(server := Server())

    @contextmanager
    def refused(names: list[str], **_: Any) -> Iterator[None]:
        raise ConcurrencySlotAcquisitionError("no such limit")
        yield

    monkeypatch.setattr(concurrency_limits, "concurrency", refused)
    with pytest.raises(ConcurrencySlotAcquisitionError, match="no such limit"), concurrency_limits.holding_tag_slots():
        pass
    assert server.now == 0


def test_a_group_that_waits_for_a_slot_gives_signs_of_life(simulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation(server := Server(slot_free_at=MAX_OUTAGE_SECONDS))
    shown_at: list[float] = []

    @contextmanager
    def progress(*_: Any) -> Iterator[None]:
        shown_at.append(server.now)
        yield

    monkeypatch.setattr(label_shards, "_progress", progress)
    model = ModelSettings(model="m")
    label_shards.label_shards.fn(
        LabelJob(store="s", key="k", prototypes="prototypes/p", images="i", segmenter=model, encoder=model), []
    )
    assert server.now == MAX_OUTAGE_SECONDS
    assert shown_at == [0.0]
