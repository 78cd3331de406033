"""Tells whoever listens in this process how far a step is. Tasks report; the command line draws the bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`advanced` more of a step's units are done; `total`, where it is known, says of how many.

    `doing`: what is being done from now on, where the step's name alone does not say it.
    """

    step: str
    advanced: int
    total: int | None = None
    doing: str | None = None


_listeners: list[Callable[[Progress], None]] = []


def report(step: str, *, advanced: int = 0, total: int | None = None, doing: str | None = None) -> None:
    """Tells the listeners."""
    for listener in _listeners:
        listener(Progress(step, advanced, total, doing))


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Within the block `listener` hears every report."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
