"""Processes of parts: how they are started, found and ended, together with all that they have started.

A worker runs each flow in a session of its own, out of reach of a signal to the worker's process group. Every process
of a part therefore carries a variable in its environment, which all below inherit. Where processes cannot be looked
at in /proc (macOS), only groups are found.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from flows.local_stack.programs import Part

_MARK = "REFSEG_SERVICE_PART"
_PROCESSES = Path("/proc")


def start(part: Part, owner: str) -> subprocess.Popen[bytes]:
    """Starts the part, in a process group of its own."""
    for file in part.leaves:
        Path(file).unlink(missing_ok=True)
    environment = {**os.environ, **part.environment, _MARK: f"{owner}#{part.name}#"}
    output = None if part.log is None else Path(part.log).open("ab")  # noqa: SIM115
    try:
        return subprocess.Popen(
            part.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=part.folder,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()


def of_part(owner: str, name: str | None = None) -> list[int]:
    """The processes of a part, or of all parts: those that were started, and all that these have started."""
    begin = f"{_MARK}={owner}#" if name is None else f"{_MARK}={owner}#{name}#"
    return [pid for pid in _pids() if _carries(pid, begin.encode())]


def _pids() -> list[int]:
    if not _PROCESSES.is_dir():
        return []
    return [int(entry.name) for entry in _PROCESSES.iterdir() if entry.name.isdigit()]


def _carries(pid: int, begin: bytes) -> bool:
    try:
        variables = (_PROCESSES / str(pid) / "environ").read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return False
    return any(variable.startswith(begin) for variable in variables.split(b"\0"))


def send(number: signal.Signals, pids: list[int]) -> None:
    """Signals processes, those that have ended excepted."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_all(leader: subprocess.Popen[bytes] | None, owner: str, name: str) -> None:
    """Kills whatever there is of a part."""
    if leader is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()
    kill_marked(owner, name)


def kill_marked(owner: str, name: str | None = None, seconds: float = 5.0) -> int:
    """Kills the processes of a part, or of all parts, and says how many there were."""
    killed: set[int] = set()
    deadline = time.monotonic() + seconds
    while (pids := of_part(owner, name)) and time.monotonic() < deadline:
        send(signal.SIGKILL, pids)
        killed.update(pids)
        time.sleep(0.05)
    return len(killed)


def is_port_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return True
    except OSError:
        return False


def free_ports(names: list[str]) -> dict[str, int]:
    """A port of this machine for each name."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    try:
        return {name: opened.getsockname()[1] for name, opened in zip(names, sockets, strict=True)}
    finally:
        for opened in sockets:
            opened.close()
