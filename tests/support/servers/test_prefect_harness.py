"""A test's Prefect server is not held up by what an earlier one in the same process left behind."""

import time

import pytest

from tests.support.servers.prefect_harness import prefect_harness

pytestmark = pytest.mark.slow


def test_late_events_of_an_earlier_server_do_not_hold_up_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow, task
    from prefect.events.worker import EventsWorker

    @task
    def step() -> int:
        return 1

    @flow
    def steps() -> int:
        return sum(step() for _ in range(5))

    with monkeypatch.context() as patch, prefect_harness():
        assert steps() == 5
        patch.setattr(EventsWorker, "drain_all", classmethod(lambda *_, **__: ()))  # as if an event came after that
    with prefect_harness():
        assert steps() == 5
        ended = time.monotonic()
    assert time.monotonic() - ended < 60  # where events go to the earlier server, a minute for each of them
