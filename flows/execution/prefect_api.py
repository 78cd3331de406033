"""Calls to the Prefect server: an outage is distinguished from a refusal, and long lists are read page by page."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import httpx
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

T_co = TypeVar("T_co", covariant=True)

PAGE_SIZE = 200  # the server refuses a larger one


class ServerGoneError(Exception):
    """The Prefect server does not answer, which may be temporary."""


@contextmanager
def server_call() -> Iterator[None]:
    """Raises ServerGoneError if the server is unreachable or overloaded: immediately, since callers poll again.

    Prefect's client would retry for minutes, during which no run is watched.
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


class _Read(Protocol[T_co]):
    def __call__(self, *, limit: int, offset: int) -> Sequence[T_co]: ...


def all_pages(read: _Read[T_co]) -> Iterator[T_co]:
    """Yields all objects, page by page; `read` has to use a stable order."""
    offset = 0
    while page := read(limit=PAGE_SIZE, offset=offset):
        yield from page
        if len(page) < PAGE_SIZE:
            return
        offset += len(page)
