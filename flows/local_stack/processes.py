"""Starts, finds and ends the processes of parts, with all their descendants.

A worker runs each flow in a session of its own, out of reach of signals to the worker's process group. Every process
of a part is therefore marked by an environment variable, which descendants inherit. Without /proc (macOS) only process
groups are found.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from flows.local_stack.programs import Part

_MARK = "REFSEG_SERVICE_PART"
_PROCESSES = Path("/proc")


def start(part: Part, owner: str) -> subprocess.Popen[bytes]:
    """Starts the part in a process group of its own."""
    for file in part.leaves:
        Path(file).unlink(missing_ok=True)
    environment = {**os.environ, **part.environment, _MARK: f"{owner}#{part.name}#"}
    with nullcontext() if part.log is None else Path(part.log).open("ab") as output:
        return subprocess.Popen(
            part.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=part.folder,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True,
        )


def of_part(owner: str, name: str | None = None) -> list[int]:
    """Returns the processes of a part, or of all parts, and their descendants."""
    begin = f"{_MARK}={owner}#" if name is None else f"{_MARK}={owner}#{name}#"
    return [int(process.name) for process in _PROCESSES.glob("[0-9]*") if _carries(process, begin.encode())]


def _carries(process: Path, begin: bytes) -> bool:
    try:
        variables = (process / "environ").read_bytes()
    except OSError:  # it has ended, or belongs to another user
        return False
    return any(variable.startswith(begin) for variable in variables.split(b"\0"))


def send(number: signal.Signals, pids: list[int]) -> None:
    """Signals those of the processes that have not ended."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_marked(owner: str, name: str | None = None, seconds: float = 5.0) -> int:
    """Kills the processes of a part, or of all parts; returns their number."""
    killed: set[int] = set()
    deadline = time.monotonic() + seconds
    while (pids := of_part(owner, name)) and time.monotonic() < deadline:
        send(signal.SIGKILL, pids)
        killed.update(pids)
        time.sleep(0.05)
    return len(killed)


def is_port_free(host: str, port: int) -> bool:
    """Whether a server could listen on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return True
    except OSError:
        return False


def free_ports(names: list[str]) -> dict[str, int]:
    """Returns a free port of this machine for each name."""
    with ExitStack() as opened:
        sockets = {name: opened.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names}
        return {name: one.getsockname()[1] for name, one in sockets.items()}
