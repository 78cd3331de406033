"""Prefect within a test's own process: a temporary server, quiet as for the command line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from flows.prefect_session import PREFECT_SETTINGS


@contextmanager
def prefect_harness(environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Within the block flows run on a server that ends with it; `environment` has more variables to set."""
    from prefect.testing.utilities import prefect_test_harness  # brings the whole server: seconds where nothing runs

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**PREFECT_SETTINGS, **(environment or {})}.items():
            patch.setenv(name, value)
        with prefect_test_harness(server_startup_timeout=600):
            yield
