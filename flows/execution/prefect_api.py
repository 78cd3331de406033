"""Asking the Prefect server: a server that is gone, which may pass, is told from one that says no.

Of what there is much it hands out 200 at a time, and refuses to be asked for more.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import httpx
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

T_co = TypeVar("T_co", covariant=True)

MOST_AT_ONCE = 200


class ServerGoneError(Exception):
    """The Prefect server does not answer, which may pass."""


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


class _Read(Protocol[T_co]):
    def __call__(self, *, limit: int, offset: int) -> Sequence[T_co]: ...


def all_pages(read: _Read[T_co]) -> Iterator[T_co]:
    """All that there is, page by page; `read` has to keep an order that stays."""
    offset = 0
    while page := read(limit=MOST_AT_ONCE, offset=offset):
        yield from page
        if len(page) < MOST_AT_ONCE:
            return
        offset += len(page)
