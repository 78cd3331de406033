"""Keeps parts alive: starts what has died again, later each time, and ends everything when it is told to end.

Run as a program, with a service folder as its argument, it supervises the parts that the folder names.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from flows.local_stack.processes import end_all, of_part, send, start
from flows.local_stack.programs import Part, from_json
from flows.local_stack.state_folder import PartState, ServiceFolder, StackState

log = logging.getLogger("refseg.service")

_TICK_SECONDS = 0.25
_LOG_BYTES = 64 * 2**20
_SECONDS_PER_TRIMMING = 60.0


class Backoff:
    """How long to wait before a part that died is started again: a second, then twice as long each time.

    One that has run for a while before it died has done well, and waits a second again.
    """

    def __init__(self, first: float = 1.0, longest: float = 60.0, well_after: float = 60.0) -> None:
        self._first, self._longest, self._well_after = first, longest, well_after
        self._next = first

    def after(self, ran_seconds: float) -> float:
        """The wait after a part that ran for so long."""
        if ran_seconds >= self._well_after:
            self._next = self._first
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait


class Keeper:
    """Keeps one part alive."""

    def __init__(self, part: Part, owner: str, backoff: Backoff) -> None:
        self.part = part
        self._owner, self._backoff = owner, backoff
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self._was_started = False
        self._started_at = self._starts_at = 0.0
        self._state, self._since = "waiting", time.time()

    def step(self, now: float) -> None:
        """Starts the part where it is time to, and sees whether it has died."""
        if self.process is not None and (code := self.process.poll()) is not None:
            wait = self._backoff.after(now - self._started_at)
            log.warning("%s ended (%s) and starts again in %.0f s", self.part.name, _how(code), wait)
            self.end_now()  # what it has started shall not work on unsupervised
            self._starts_at = now + wait
            self._become("restarting")
        if self.process is None and now >= self._starts_at and self._may_start():
            self._start(now)

    def _may_start(self) -> bool:
        return self.part.waits_for is None or Path(self.part.waits_for).exists()

    def _start(self, now: float) -> None:
        try:
            self.process = start(self.part, self._owner)
        except OSError as error:
            wait = self._backoff.after(0.0)
            log.warning("%s cannot be started (%s) and is tried again in %.0f s", self.part.name, error, wait)
            self._starts_at = now + wait
            self._become("restarting")
            return
        self.restarts += self._was_started
        self._was_started, self._started_at = True, now
        log.info("%s started, process %d", self.part.name, self.process.pid)
        self._become("running")

    def ask_to_end(self) -> None:
        """Asks the part, and all that it has started, to end."""
        if self.process is not None and self.process.poll() is None:
            send(signal.SIGTERM, sorted({self.process.pid, *of_part(self._owner, self.part.name)}))

    def has_ended(self) -> bool:
        """Whether nothing of the part runs."""
        return (self.process is None or self.process.poll() is not None) and not of_part(self._owner, self.part.name)

    def end_now(self) -> None:
        """Kills whatever there is of the part."""
        end_all(self.process, self._owner, self.part.name)
        self.process = None
        for file in self.part.leaves:
            Path(file).unlink(missing_ok=True)
        self._become("stopped")

    def trim_log(self) -> None:
        """Begins the log anew where it has grown long; one older part of it is kept."""
        if (
            self.part.log is not None
            and Path(self.part.log).exists()
            and Path(self.part.log).stat().st_size > _LOG_BYTES
        ):
            shutil.copyfile(self.part.log, f"{self.part.log}.1")
            os.truncate(self.part.log, 0)

    def _become(self, state: str) -> None:
        self._state, self._since = state, time.time()

    @property
    def state(self) -> PartState:
        """How the part is."""
        pid = self.process.pid if self.process is not None else None
        return PartState(self.part.name, self._state, pid, self._since, self.restarts, self.part.port, self.part.log)


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"


class Supervisor:
    """Keeps parts alive until a signal tells it to end."""

    def __init__(
        self,
        parts: Sequence[Part],
        owner: str,
        told: Callable[[StackState], None] = lambda _: None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.keepers = [Keeper(part, owner, backoff()) for part in parts]
        self._told = told
        self._last: StackState | None = None
        self.is_ending = False

    def run(self) -> None:
        """Returns when everything has ended after SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end_at_signal)
        trimmed_at = time.monotonic()
        try:
            while not self.is_ending:
                self.step(time.monotonic())
                if time.monotonic() - trimmed_at > _SECONDS_PER_TRIMMING:
                    trimmed_at = time.monotonic()
                    for keeper in self.keepers:
                        keeper.trim_log()
                time.sleep(_TICK_SECONDS)
        finally:
            self.stop()

    def _end_at_signal(self, number: int, frame: FrameType | None) -> None:
        self.is_ending = True

    def step(self, now: float) -> None:
        """Looks after every part once."""
        for keeper in self.keepers:
            keeper.step(now)
        self._tell()

    def stop(self) -> None:
        """Ends all parts: workers first, so that their runs can still say that they were ended."""
        log.info("ending")
        for first in (True, False):
            keepers = [keeper for keeper in self.keepers if keeper.part.ends_first is first]
            _end(keepers)
            self._tell()
        log.info("ended")

    def _tell(self) -> None:
        state = StackState(os.getpid(), tuple(keeper.state for keeper in self.keepers))
        if state != self._last:
            self._last = state
            self._told(state)


def _end(keepers: Sequence[Keeper]) -> None:
    for keeper in keepers:
        keeper.ask_to_end()
    asked_at = time.monotonic()
    waiting = list(keepers)
    while waiting:
        passed = time.monotonic() - asked_at
        for keeper in list(waiting):
            if keeper.has_ended() or passed > keeper.part.grace_seconds:
                keeper.end_now()
                waiting.remove(keeper)
        time.sleep(_TICK_SECONDS if waiting else 0)


def main(path: str) -> int:
    """Supervises the parts of a service folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    folder = ServiceFolder(path)
    with folder.held():
        Supervisor(from_json(folder.plan.read_text()), str(folder.path), folder.write_state).run()
        for file in (folder.plan, folder.pools_made):
            file.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
