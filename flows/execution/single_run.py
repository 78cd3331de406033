"""Has a worker do one run: makes it, watches it to its end, and ends it with whoever waits for it."""

import time
from collections.abc import Callable
from uuid import UUID

from flows.config.run_config import ExecutionConfig
from flows.execution.run_monitor import POLL_SECONDS, UNKNOWN, Patience, Watch, cancelled_on_error
from flows.execution.scheduler import Workers


def done_by_worker(
    start: Callable[[], UUID],
    workers: Workers,
    settings: ExecutionConfig,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Watch:
    """Returns when the run that `start` makes has ended or is lost, which its watch tells.

    A server that is gone is asked again, so called twice `start` has to make one run.
    """
    patience = Patience(now)
    run = _started(start, patience, pause)
    watch = Watch(settings, now())
    with cancelled_on_error(lambda: workers.cancel([run])):
        while True:
            pause(POLL_SECONDS)
            with patience.asking([watch]) as asked_at:
                watch.hear(workers.look_at([run]).get(run, UNKNOWN), asked_at)
                if watch.is_lost(asked_at):
                    workers.give_up(run)
                if watch.has_ended:
                    return watch


def _started(start: Callable[[], UUID], patience: Patience, pause: Callable[[float], None]) -> UUID:
    while True:
        with patience.asking():
            return start()
        pause(POLL_SECONDS)
