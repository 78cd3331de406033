"""Prefect within a test's own process: a temporary server, quiet as for the command line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from flows.execution.temporary_server import without_heartbeats
from flows.run import PREFECT_SETTINGS

_SECONDS_FOR_LATE_EVENTS = 5.0


@contextmanager
def prefect_harness(environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Within the block flows run on a server that ends with it; `environment` has more variables to set."""
    from prefect.events.worker import EventsWorker
    from prefect.testing.utilities import prefect_test_harness  # brings the whole server: seconds where nothing runs

    # An event that was sent while the server before this one ended has left a sender that is connected to nothing. It
    # would get the events of this one too, and try a minute or so for each.
    EventsWorker.drain_all(timeout=_SECONDS_FOR_LATE_EVENTS)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**PREFECT_SETTINGS, **(environment or {})}.items():
            patch.setenv(name, value)
        with prefect_test_harness(server_startup_timeout=600), without_heartbeats():
            yield
