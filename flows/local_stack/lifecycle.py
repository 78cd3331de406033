"""Brings a stack up and down: what is started, what is waited for, and what is said of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.errors import RunFailedError
from flows.local_stack import seaweedfs
from flows.local_stack.options import Wishes, check_wishes, own_variables, parts_of
from flows.local_stack.processes import kill_marked
from flows.local_stack.programs import to_json
from flows.local_stack.state_folder import ServiceFolder, StackState
from flows.service.api import answers, ui_address

_SECONDS_TO_START = 180.0
_SECONDS_TO_COME_ONLINE = 90.0
_SECONDS_TO_END = 40.0
_DEATHS_AT_START = 2
_LOG_LINES = 12


@dataclass(frozen=True)
class Stack:
    """A stack that runs: its addresses, and the variables that have a program use it."""

    api_url: str
    ui_url: str
    s3_endpoint: str | None
    bucket: str | None
    env_file: str
    variables: dict[str, str]


@contextmanager
def brought_up(folder: ServiceFolder, wishes: Wishes, say: Callable[[str], None]) -> Iterator[tuple[Stack, int]]:
    """Starts everything and waits until it works; the block is given the stack and its supervisor's process.

    Where starting fails, nothing of it stays.
    """
    store = check_wishes(folder, wishes)
    os.environ.update(own_variables(folder, wishes, store))  # before Prefect is imported, which reads them then
    parts = parts_of(folder, wishes, store)
    folder.pools_made.unlink(missing_ok=True)
    folder.write_private(folder.plan, to_json(parts))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started, as Ctrl-C does
    supervisor = _supervise(folder)
    try:
        stack = _wait_until_it_works(folder, wishes, store, supervisor, say)
    except BaseException:
        say("It does not start; ending what was started.")
        take_down(folder)
        raise
    yield stack, supervisor.pid


# --- starting --------------------------------------------------------------------------------------------------------


def _supervise(folder: ServiceFolder) -> subprocess.Popen[bytes]:
    with Path(folder.log_of("supervisor")).open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.local_stack.supervisor", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _wait_until_it_works(
    folder: ServiceFolder,
    wishes: Wishes,
    store: seaweedfs.ObjectStore | None,
    supervisor: subprocess.Popen[bytes],
    say: Callable[[str], None],
) -> Stack:
    own = own_variables(folder, wishes, store)
    from flows.service.deployments import deploy, make_pools

    say("Starting the Prefect server" + ("" if store is None else " and the S3 server"))
    _wait(folder, supervisor, "server", lambda: answers(f"{own['PREFECT_API_URL']}/health", 2))
    say("Starting the workers")
    make_pools()
    folder.pools_made.touch()
    if store is not None:
        _wait(folder, supervisor, "s3", lambda: answers(own["AWS_ENDPOINT_URL"], 2))
        _wait(folder, supervisor, "s3", lambda: _succeeds(store.make_bucket))
    say("Making deployments and automations")
    deployed = deploy(wishes.notify)
    for reason in deployed.left_out:
        say(f"Left out {reason}")
    say("Waiting for the workers")
    _wait_for_workers(folder, supervisor, say)
    variables = {"PREFECT_API_URL": wishes.api_url} | ({} if store is None else store.environment(wishes.public_host))
    folder.write_exports(variables)
    stack = Stack(
        api_url=wishes.api_url,
        ui_url=ui_address(wishes.api_url),
        s3_endpoint=variables.get("AWS_ENDPOINT_URL"),
        bucket=None if store is None else seaweedfs.BUCKET,
        env_file=str(folder.env_file),
        variables=variables,
    )
    known = {
        "own_api_url": own["PREFECT_API_URL"],
        "api_url": stack.api_url,
        "ui_url": stack.ui_url,
        "s3_endpoint": stack.s3_endpoint,
        "bucket": stack.bucket,
    }
    folder.facts.write_text(json.dumps(known, indent=2))
    return stack


def _succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def _wait(folder: ServiceFolder, supervisor: subprocess.Popen[bytes], name: str, works: Callable[[], bool]) -> None:
    """Raises RunFailedError where the part keeps dying, or does not work in time."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while not works():
        _check_alive(folder, supervisor)
        if _restarts(folder.read_state(), name) >= _DEATHS_AT_START:
            raise RunFailedError(f"The part {name!r} ends as soon as it is started:\n{_tail(folder.log_of(name))}")
        if time.monotonic() > deadline:
            raise RunFailedError(f"The part {name!r} does not answer:\n{_tail(folder.log_of(name))}")
        time.sleep(0.3)


def _check_alive(folder: ServiceFolder, supervisor: subprocess.Popen[bytes]) -> None:
    if supervisor.poll() is not None:
        raise RunFailedError(f"The supervisor has ended:\n{_tail(folder.log_of('supervisor'))}")


def _wait_for_workers(folder: ServiceFolder, supervisor: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    from flows.service.status import workers_online

    state = folder.read_state()
    wanted = 0 if state is None else sum(part.name[:3] in ("cpu", "gpu") for part in state.parts)
    deadline = time.monotonic() + _SECONDS_TO_COME_ONLINE
    while (found := sum(workers_online().values())) < wanted:
        _check_alive(folder, supervisor)
        if time.monotonic() > deadline:
            say(f"Only {found} of {wanted} workers are online so far; their logs are in {folder.logs}.")
            return
        time.sleep(0.5)


def _restarts(state: StackState | None, name: str) -> int:
    return 0 if state is None else sum(part.restarts for part in state.parts if part.name == name)


def _tail(log: str) -> str:
    """The end of a log, without what URLs may hold of passwords."""
    try:
        lines = Path(log).read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except FileNotFoundError:
        return "  (it has no log)"
    hidden = [re.sub(r"://[^@/\s]+@", "://***@", line) for line in lines]
    return "\n".join(f"  {line}" for line in [*hidden, f"The whole log: {log}"])


# --- down ------------------------------------------------------------------------------------------------------------


def take_down(folder: ServiceFolder) -> bool:
    """Ends all of a stack and says whether there was anything. What is stored stays."""
    was_up = folder.is_held()
    if was_up and (state := _state_of_holder(folder)) is not None:
        _signal(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + _SECONDS_TO_END
        while folder.is_held():
            if time.monotonic() > deadline:
                _signal(state.pid, signal.SIGKILL)
            time.sleep(0.1)
    left = kill_marked(str(folder.path))
    for file in (folder.plan, folder.pools_made, folder.path / "state.json"):
        file.unlink(missing_ok=True)
    return was_up or left > 0


def _state_of_holder(folder: ServiceFolder) -> StackState | None:
    """The state that the supervisor writes as soon as it is there."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while (state := folder.read_state()) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return state


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def facts(folder: ServiceFolder) -> dict[str, Any]:
    """The addresses of the stack, without secrets."""
    content: dict[str, Any] = json.loads(folder.facts.read_text()) if folder.facts.exists() else {}
    return content
