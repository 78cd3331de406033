"""Starts a stack, waits until it works, and ends it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.errors import RunFailedError
from flows.local_stack import seaweedfs
from flows.local_stack.options import StackOptions, own_variables, parts_of, prepare
from flows.local_stack.processes import kill_marked, send
from flows.local_stack.programs import to_json
from flows.local_stack.state_folder import FOLDER_VARIABLE, PartState, ServiceFolder, StackState
from flows.service.api import LOGIN_VARIABLE, answers, ui_address
from refseg_core.errors import counted

_SECONDS_TO_START = 180.0
_SECONDS_TO_COME_ONLINE = 90.0
_SECONDS_TO_END = 40.0
_DEATHS_AT_START = 2
_LOG_LINES = 12
_SERVERS = ("server", "s3")  # among the parts


@dataclass(frozen=True)
class Stack:
    """The addresses of a running stack; `own_api_url` is the Prefect server's on this machine.

    `auth`: whether the server asks for a login.
    """

    own_api_url: str
    api_url: str
    ui_url: str
    s3_endpoint: str | None
    bucket: str | None
    auth: bool = False


def read_stack(folder: ServiceFolder) -> Stack | None:
    """Returns the addresses that the last start wrote, None before the first."""
    return Stack(**json.loads(folder.facts.read_text())) if folder.facts.exists() else None


@contextmanager
def running_stack(folder: ServiceFolder, options: StackOptions, say: Callable[[str], None]) -> Iterator[Stack]:
    """Starts everything and enters the block when it works; if that fails, ends everything again."""
    store = prepare(folder, options)
    os.environ.pop(LOGIN_VARIABLE, None)
    os.environ.update(own_variables(folder, options, store))  # before Prefect is imported, which reads them then
    folder.pools_made.unlink(missing_ok=True)
    folder.write_private(folder.plan, to_json(parts_of(folder, options, store)))
    start = _Start(folder, options, store, _supervise(folder), say)
    try:
        stack = start.wait_until_ready()
    except BaseException:
        say("The service does not start; ending its parts.")
        take_down(folder)
        raise
    yield stack


def _supervise(folder: ServiceFolder) -> subprocess.Popen[bytes]:
    with Path(folder.log_of("supervisor")).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.local_stack.supervisor", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


@dataclass(frozen=True)
class _Start:
    """A stack whose supervisor runs and whose parts may not work yet."""

    folder: ServiceFolder
    options: StackOptions
    store: seaweedfs.ObjectStore | None
    supervisor: subprocess.Popen[bytes]
    say: Callable[[str], None]

    def wait_until_ready(self) -> Stack:
        """Waits for the servers, creates what they need, and waits for the workers. Raises RunFailedError."""
        from flows.service.deployments import deploy, make_pools

        own = own_variables(self.folder, self.options, self.store)
        self.say("Starting the Prefect server" + ("" if self.store is None else " and the S3 server"))
        self._wait("server", lambda: answers(f"{own['PREFECT_API_URL']}/health", 2))
        self.say("Starting the workers")
        make_pools()
        self.folder.pools_made.touch()
        if (store := self.store) is not None:
            self._wait("s3", lambda: answers(own["AWS_ENDPOINT_URL"], 2))
            self._wait("s3", store.make_bucket)
        self.say("Creating deployments and automations")
        for reason in deploy(self.options.notify).left_out:
            self.say(f"Left out {reason}")
        self.say("Waiting for the workers")
        self._wait_for_workers()
        return self._write_addresses(own["PREFECT_API_URL"])

    def _write_addresses(self, own_api_url: str) -> Stack:
        """Writes the file that shells source, and the one that other commands read."""
        api_url = self.options.api_url
        variables = {"PREFECT_API_URL": api_url, FOLDER_VARIABLE: str(self.folder.path)}
        if self.options.auth:
            variables[LOGIN_VARIABLE] = self.folder.login()
        if self.store is not None:
            variables |= self.store.environment(self.options.public_host)
        self.folder.write_exports(variables)
        bucket = None if self.store is None else seaweedfs.BUCKET
        stack = Stack(
            own_api_url, api_url, ui_address(api_url), variables.get("AWS_ENDPOINT_URL"), bucket, self.options.auth
        )
        self.folder.facts.write_text(json.dumps(asdict(stack), indent=2))
        return stack

    def _wait(self, name: str, works: Callable[[], bool]) -> None:
        """Waits for a part. Raises RunFailedError if it keeps ending, or does not work in time."""
        deadline = time.monotonic() + _SECONDS_TO_START
        while not works():
            self._check_supervisor()
            if sum(part.restarts for part in self._parts() if part.name == name) >= _DEATHS_AT_START:
                raise RunFailedError(
                    f"The part {name!r} ends right after its start:\n{_tail(self.folder.log_of(name))}"
                )
            if time.monotonic() > deadline:
                raise RunFailedError(
                    f"The part {name!r} runs, but has not answered in {_SECONDS_TO_START:.0f} s. If the machine is "
                    f"busy, run the same command again. The end of its log:\n{_tail(self.folder.log_of(name))}"
                )
            time.sleep(0.3)

    def _parts(self) -> tuple[PartState, ...]:
        state = self.folder.read_state()
        return () if state is None else state.parts

    def _check_supervisor(self) -> None:
        if self.supervisor.poll() is not None:
            raise RunFailedError(f"The supervisor has ended:\n{_tail(self.folder.log_of('supervisor'))}")

    def _wait_for_workers(self) -> None:
        from flows.service.status import workers_online

        expected = sum(part.name not in _SERVERS for part in self._parts())
        deadline = time.monotonic() + _SECONDS_TO_COME_ONLINE
        while (found := sum(workers_online().values())) < expected:
            self._check_supervisor()
            if time.monotonic() > deadline:
                self.say(
                    f"Only {found} of {counted(expected, 'worker is', 'workers are')} online so far; see their logs "
                    f"in {self.folder.logs}."
                )
                return
            time.sleep(0.5)


def _tail(log: str) -> str:
    """Returns the end of a log, without the passwords of URLs."""
    try:
        lines = Path(log).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (it has no log)"
    lines = [line for line in lines if line.strip()][-_LOG_LINES:]
    hidden = [re.sub(r"://[^@/\s]+@", "://***@", line) for line in lines]
    return "\n".join(f"  {line}" for line in [*hidden, f"The whole log: {log}"])


def take_down(folder: ServiceFolder) -> bool:
    """Ends all parts of a stack; stored data stays. Returns whether any were running."""
    was_up = folder.is_held()
    if was_up and (state := _state_of_holder(folder)) is not None:
        send(signal.SIGTERM, [state.pid])
        deadline = time.monotonic() + _SECONDS_TO_END
        while folder.is_held():
            if time.monotonic() > deadline:
                send(signal.SIGKILL, [state.pid])
            time.sleep(0.1)
    num_left = kill_marked(str(folder.path))
    for file in (folder.plan, folder.pools_made, folder.state):
        file.unlink(missing_ok=True)
    return was_up or num_left > 0


def _state_of_holder(folder: ServiceFolder) -> StackState | None:
    """Waits for the state that a supervisor writes at its start."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while (state := folder.read_state()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return state
