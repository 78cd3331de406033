"""Stops work between two images. Signals reach only the main thread of a process, and work is done in others too."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

_stopping = Event()


class StoppedError(Exception):
    """The work was stopped; what is committed stays."""


@contextmanager
def stopping_with_this() -> Iterator[None]:
    """Stops the work of all threads when an error, a signal or an interrupt leaves the block."""
    _stopping.clear()
    try:
        yield
    except BaseException:
        _stopping.set()
        raise


def check_stopped() -> None:
    """Raises StoppedError if the work was stopped."""
    if _stopping.is_set():
        raise StoppedError("stopped; what is committed stays, and the same run continues from there")
