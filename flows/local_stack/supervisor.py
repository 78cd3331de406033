"""Keeps parts running: restarts those that end, after growing delays, and ends all of them at a signal.

As a program it takes a service folder and supervises the parts that the folder lists.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from flows.local_stack.processes import kill_marked, of_part, send, start
from flows.local_stack.programs import Part, from_json
from flows.local_stack.state_folder import PartState, ServiceFolder, StackState

log = logging.getLogger("refseg.service")

_TICK_SECONDS = 0.25
_LOG_BYTES = 64 * 2**20
_SECONDS_PER_TRIMMING = 60.0


class Backoff:
    """The delay before a restart: a second, then twice as long each time; a second again after a long run."""

    def __init__(self, first: float = 1.0, longest: float = 60.0, well_after: float = 60.0) -> None:
        self._first, self._longest, self._well_after = first, longest, well_after
        self._next = first

    def after(self, ran_seconds: float) -> float:
        """Returns the delay in seconds after a run of that length."""
        if ran_seconds >= self._well_after:
            self._next = self._first
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait


class PartRunner:
    """Keeps one part running."""

    def __init__(self, part: Part, owner: str, backoff: Backoff) -> None:
        self.part = part
        self._owner, self._backoff = owner, backoff
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self._was_started = False
        self._started_at = self._starts_at = 0.0
        self._state, self._since = "waiting", time.time()

    def step(self, now: float) -> None:
        """Notices if the part has ended, and starts it when it is due."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self.kill()  # its descendants must not continue unsupervised
            cause = f"signal {-code}" if code < 0 else f"code {code}"
            self._restart_later(now, now - self._started_at, f"ended ({cause})")
        gate = self.part.waits_for
        if self.process is None and now >= self._starts_at and (gate is None or Path(gate).exists()):
            self._start(now)

    def _start(self, now: float) -> None:
        try:
            self.process = start(self.part, self._owner)
        except OSError as error:
            self._restart_later(now, 0.0, f"cannot be started ({error})")
            return
        self.restarts += self._was_started
        self._was_started, self._started_at = True, now
        log.info("%s started, process %d", self.part.name, self.process.pid)
        self._become("running")

    def _restart_later(self, now: float, ran_seconds: float, why: str) -> None:
        wait = self._backoff.after(ran_seconds)
        log.warning("%s %s; the next start is in %.0f s", self.part.name, why, wait)
        self._starts_at = now + wait
        self._become("restarting")

    def terminate(self) -> None:
        """Sends SIGTERM to the part and its descendants."""
        if self.process is not None and self.process.poll() is None:
            send(signal.SIGTERM, sorted({self.process.pid, *of_part(self._owner, self.part.name)}))

    def has_ended(self) -> bool:
        """Whether no process of the part runs."""
        return (self.process is None or self.process.poll() is not None) and not of_part(self._owner, self.part.name)

    def kill(self) -> None:
        """Kills the part and its descendants."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        kill_marked(self._owner, self.part.name)
        self.process = None
        for file in self.part.leaves:
            Path(file).unlink(missing_ok=True)
        self._become("stopped")

    def trim_log(self) -> None:
        """Empties a log that has grown too long; one copy is kept."""
        log_file = self.part.log
        if log_file is not None and Path(log_file).exists() and Path(log_file).stat().st_size > _LOG_BYTES:
            shutil.copyfile(log_file, f"{log_file}.1")
            os.truncate(log_file, 0)

    def _become(self, state: str) -> None:
        self._state, self._since = state, time.time()

    @property
    def state(self) -> PartState:
        """The state of the part."""
        pid = self.process.pid if self.process is not None else None
        return PartState(self.part.name, self._state, pid, self._since, self.restarts, self.part.port, self.part.log)


class Supervisor:
    """Keeps parts running until a signal ends it."""

    def __init__(
        self,
        parts: Sequence[Part],
        owner: str,
        on_change: Callable[[StackState], None] = lambda _: None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.runners = [PartRunner(part, owner, backoff()) for part in parts]
        self._on_change = on_change
        self._last: StackState | None = None
        self.is_ending = False

    def run(self) -> None:
        """Supervises until SIGTERM, SIGINT or SIGHUP, then ends all parts."""

        def end(number: int, frame: FrameType | None) -> None:
            self.is_ending = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, end)
        trimmed_at = time.monotonic()
        try:
            while not self.is_ending:
                self.step(time.monotonic())
                if time.monotonic() - trimmed_at > _SECONDS_PER_TRIMMING:
                    trimmed_at = time.monotonic()
                    for runner in self.runners:
                        runner.trim_log()
                time.sleep(_TICK_SECONDS)
        finally:
            self.stop()

    def step(self, now: float) -> None:
        """Checks every part once."""
        for runner in self.runners:
            runner.step(now)
        self._report()

    def stop(self) -> None:
        """Ends all parts: workers first, so that their runs can still report it to the server."""
        log.info("ending")
        for first in (True, False):
            _end([runner for runner in self.runners if runner.part.ends_first is first])
            self._report()
        log.info("ended")

    def _report(self) -> None:
        state = StackState(os.getpid(), tuple(runner.state for runner in self.runners))
        if state != self._last:
            self._last = state
            self._on_change(state)


def _end(runners: Sequence[PartRunner]) -> None:
    for runner in runners:
        runner.terminate()
    terminated_at = time.monotonic()
    waiting = list(runners)
    while waiting:
        passed = time.monotonic() - terminated_at
        for runner in list(waiting):
            if runner.has_ended() or passed > runner.part.grace_seconds:
                runner.kill()
                waiting.remove(runner)
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
