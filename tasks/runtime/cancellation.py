"""Stops work between two images. Signals reach only the main thread of a process, and work is done in others too."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class StoppedError(Exception):
    """The work was stopped; what is committed stays."""


class _Work:
    """The work of this process. A flag and no Event: a signal may come while the main thread holds an Event's lock."""

    is_stopping = False
    stopped_runs: set[str] = set()  # noqa: RUF012
    saves: list[tuple[str | None, Callable[[], None]]] = []  # noqa: RUF012 each with the run that it is for


_run: ContextVar[str | None] = ContextVar("run", default=None)


def request_stop() -> None:
    """Has the work of all threads stop when the images at hand are finished; may be called by a signal's handler."""
    _Work.is_stopping = True


def request_stop_of(run: str) -> None:
    """Has the work in this process stop that belongs to a run of another one, now and whenever more of it comes."""
    _Work.stopped_runs.add(run)


def is_stopping() -> bool:
    """Returns whether the work of this thread was asked to stop."""
    return _Work.is_stopping or _run.get() in _Work.stopped_runs


@contextmanager
def working_for(run: str | None) -> Iterator[None]:
    """Within the block this thread works for a run of another process; None: of this one."""
    before = _run.set(run)
    try:
        yield
    finally:
        _run.reset(before)


@contextmanager
def stopping_with_this() -> Iterator[None]:
    """Stops the work of all threads when an error, a signal or an interrupt leaves the block."""
    _Work.is_stopping = False
    try:
        yield
    except BaseException:
        request_stop()
        raise


@contextmanager
def saved_by(save: Callable[[], None]) -> Iterator[None]:
    """Within the block `save` saves what this thread has finished, if another has no time to wait for the rest."""
    entry = (_run.get(), save)
    _Work.saves.append(entry)
    try:
        yield
    finally:
        _Work.saves.remove(entry)


def save_finished(run: str | None = None) -> None:
    """Saves what every thread has finished, while they work on, for a run of another process; None: of this one."""
    for its_run, save in list(_Work.saves):
        if its_run == run:
            save()


async def save_finished_of(run: str) -> None:
    """Does so in a thread, since what calls this may have to answer others in the meantime, as Dask's workers have."""
    await asyncio.to_thread(save_finished, run)
