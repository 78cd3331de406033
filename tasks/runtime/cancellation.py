"""Stops work between two images: signals reach a process's main thread only, and work is done in others, too."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

_stopping = Event()


class StoppedError(Exception):
    """The work was stopped; what is committed stays."""


@contextmanager
def stopping_with_this() -> Iterator[None]:
    """Work below this block stops when the block is left by an error, a signal or an interrupt."""
    _stopping.clear()
    try:
        yield
    except BaseException:
        _stopping.set()
        raise


def check_stopped() -> None:
    """Raises StoppedError where the work shall stop."""
    if _stopping.is_set():
        raise StoppedError("stopped; what is committed stays, and the same run goes on from there")
