"""What signals do to a run: the first stops it, and what is finished is saved; a second ends the process at once.

The terminal sends SIGINT at Ctrl-C; Kubernetes, spot machines and Prefect's workers send SIGTERM, and SIGKILL when half
a minute has passed.
"""

import contextvars
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from types import FrameType
from typing import NoReturn

from tasks.runtime.cancellation import is_stopping, request_stop, save_finished
from tasks.storage.retry import reason

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_SECONDS = 0.5  # in which a signal that comes again is the same one, sent to a process and to its group
IMAGE_SECONDS = 10.0  # that the images at hand have, before what is finished is saved without them
_LOOK_SECONDS = 0.1

Handler = Callable[[int, FrameType | None], None]


@dataclass(frozen=True)
class Outcome:
    """What a stopped command leaves, and how to go on; `ended`: what it leaves where a second signal ends it."""

    kept: str = "what is finished is kept"
    onward: str = "the same command goes on"
    ended: str = "what was saved before is kept"


@dataclass
class _Session:
    """A command at work, the signal that stopped it, and what is left then."""

    number: int | None = None
    at: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)

    def stops(self, number: int) -> bool:
        """Whether the signal is the first; ends the process at a second one."""
        now = time.monotonic()
        if self.number is None:
            self.number, self.at = number, now
            return True
        if now - self.at > _SAME_SECONDS:
            _end_at_once(128 + number, f"Ended at once: {self.outcome.ended}; {self.outcome.onward}.")
        return False


_session: _Session | None = None


def stopping_signal() -> int | None:
    """Returns the signal that stopped the command of this process, if one did."""
    return None if _session is None else _session.number


def when_stopped(kept: str, onward: str = Outcome.onward, ended: str = Outcome.ended) -> None:
    """Notes what the command of this process says from now on where a signal stops it; parts of sentences."""
    if _session is not None:
        _session.outcome = Outcome(kept, onward, ended)


def stopped_outcome() -> str:
    """Returns what the command of this process says when a signal has stopped it."""
    outcome = Outcome() if _session is None else _session.outcome
    return f"Stopped: {outcome.kept}; {outcome.onward}."


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within the block, a command's, SIGINT and SIGTERM raise KeyboardInterrupt; a second one ends the process."""
    global _session  # noqa: PLW0603

    def stop(number: int, frame: FrameType | None) -> None:
        # Prefect, which raises TerminationSignal within flows, sends the signal again when it has seen to it.
        if session.stops(number) and not _is_prefects(sys.exception()):
            raise KeyboardInterrupt

    session = _session = _Session()
    with _handling(stop):
        try:
            yield
        finally:
            _session = None


def _is_prefects(error: BaseException | None) -> bool:
    """Whether it is what Prefect makes of SIGTERM; Prefect takes a second to import, which quick commands do not."""
    exceptions = sys.modules.get("prefect.exceptions")
    return exceptions is not None and isinstance(error, exceptions.TerminationSignal)


@contextmanager
def finishing_images() -> Iterator[None]:
    """Lets the images at hand end within the block when a signal comes; then the block ends as the signal has it.

    Where they take long, what else is finished is saved in the meantime.
    """
    from prefect.exceptions import TerminationSignal

    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        is_first = not received if _session is None else _session.stops(number)
        if is_first:
            received.append(number)
            request_stop()
        elif number == signal.SIGINT and _session is None:
            raise KeyboardInterrupt  # a worker's SIGTERM may come twice

    with _handling(stop), _saving_when_stopped():
        yield
    if received:
        raise (
            TerminationSignal(signal.SIGTERM)
            if _session is None and received[0] == signal.SIGTERM
            else KeyboardInterrupt
        )


@contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    """Handles signals within the block; in a thread that gets none, nothing."""
    with ExitStack() as handled:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handled.callback(signal.signal, number, signal.signal(number, handler))
        yield


@contextmanager
def handled_by_this_process() -> Iterator[None]:
    """Ctrl-C, which a terminal sends to all processes, reaches none that the threads begun within the block start.

    A signal that comes within the block is handled after it. SIGTERM still ends them, since it is how others end them.
    """
    resource_tracker.ensure_running()  # which unblocks the signal in the thread that starts its first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # threads and processes inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _saving_when_stopped() -> Iterator[None]:
    """Says that the work is stopping, and saves what is finished if that takes long."""

    def save(left: threading.Event) -> None:
        again = "" if _session is None else " Press Ctrl-C again to end at once."
        log.warning("Stopping when the images at hand are finished; what is finished is saved.%s", again)
        if not left.wait(IMAGE_SECONDS):
            _save()

    with once_stopping(save, "stopping"):
        yield


@contextmanager
def once_stopping(act: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Within the block a thread of that name acts once work is stopping; its event is set when the block is left."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(_LOOK_SECONDS):
            if is_stopping():
                act(left)
                return

    work = contextvars.copy_context().run  # has the settings of this run
    watcher = threading.Thread(target=work, args=(watch,), name=name, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def _end_at_once(exit_code: int, message: str) -> NoReturn:
    """Ends the process as it is: what is in the store is whole. Only the cursor was hidden, by progress bars."""
    with suppress(OSError, ValueError, AttributeError):  # nobody may read it any more
        is_terminal = sys.stderr.isatty()
        os.write(sys.stderr.fileno(), ("\x1b[?25h\n" * is_terminal + message + "\n").encode())
    os._exit(exit_code)


def _save() -> None:
    try:
        save_finished()
    except Exception as error:  # the images at hand may still end, and are saved with these then
        log.warning("What is finished cannot be saved yet: %s", reason(error))
