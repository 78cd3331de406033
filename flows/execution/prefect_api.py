"""Asking the Prefect server: a server that is gone, which may pass, is told from one that says no."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.execution.run_monitor import ServerGoneError


@contextmanager
def asking() -> Iterator[None]:
    """Raises ServerGoneError where the server is gone, or overloaded: at once, the caller's next look is the retry.

    Prefect's client would wait for minutes, in which nobody is watched, and longer than the server is gone.
    """
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            yield
    except httpx.TransportError as error:
        raise ServerGoneError(f"{type(error).__name__}: {error}") from error
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status < httpx.codes.INTERNAL_SERVER_ERROR and status != httpx.codes.TOO_MANY_REQUESTS:
            raise
        raise ServerGoneError(f"status {status}") from error
