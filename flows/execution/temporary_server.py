"""The Prefect server of a command, which nothing can leave behind: it ends when the command's process does.

Prefect's own temporary server gets the signals that the terminal sends to the command, so that it is gone when the
command reports how its run ended; and where the command is killed, it stays. As a program this is the server.
"""

import asyncio
import atexit
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple

from flows.errors import RunFailedError
from flows.execution.garbage import collect_seldom
from refseg_core.errors import RefsegError, redact_text

_SECONDS_TO_START = 300.0  # of one that is alive; what ended is noticed at once
_LOG_END = 16_384  # bytes in which the last line is looked for
_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")
_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",  # into the log that only a failure is explained by
}


class TemporaryServer(NamedTuple):
    """The process of a server, and the file that it writes its errors to."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def said(self) -> str:
        """What it said last, as part of a sentence: the last error, else the last line; "" where it said nothing."""
        end = os.pread(self.log.fileno(), _LOG_END, max(0, os.fstat(self.log.fileno()).st_size - _LOG_END))
        lines = [line.strip() for line in end.decode(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if _ERROR.match(line)] or lines  # errors come before "startup failed"
        return f"; the last of its log: {redact_text(said[-1])}" if said else ""

    @contextmanager
    def explaining_its_end(self) -> Iterator[None]:
        """Raises RunFailedError where the block fails with an error that is not ours, and the server has ended."""
        try:
            yield
        except Exception as error:
            if isinstance(error, RefsegError | RunFailedError) or self.process.poll() is None:
                raise
            raise RunFailedError(
                f"The temporary Prefect server ended with exit code {self.process.returncode}{self.said}. Finished "
                "work is kept, and the same command resumes; PREFECT_API_URL sets another server."
            ) from error


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """Within the block flows do not tell the server that they are alive, which no temporary one asks for.

    Prefect ends a flow only when the thread that tells it has slept to the end of its second.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def start_temporary_server() -> TemporaryServer | None:
    """Starts a server for all flows of this process, unless there is one. Raises RunFailedError if that fails."""
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()  # the one that Prefect uses where no server is set
    if server.running:
        return None
    its_end, _ = os.pipe()  # the other end stays open for as long as this process lives
    log = tempfile.TemporaryFile()  # noqa: SIM115 for as long as this process lives
    atexit.register(log.close)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.execution.temporary_server"],
        stdin=its_end,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **_SETTINGS},
        start_new_session=True,
    )
    os.close(its_end)
    started = TemporaryServer(process, log)
    server.port, server.server_process, server.running = _port_of(started), process, True
    return started


def _port_of(server: TemporaryServer) -> int:
    """Waits until the server answers."""
    assert server.process.stdout is not None
    with server.process.stdout as ports:
        is_ready, _, _ = select.select([ports], [], [], _SECONDS_TO_START)
        port = ports.readline() if is_ready else b""
    if port:
        return int(port)
    server.process.kill()
    server.process.wait()
    with server.log:
        said = server.said
    waited = f"within {_SECONDS_TO_START:.0f} seconds" if not is_ready else "and ended"
    raise RunFailedError(
        f"The temporary Prefect server did not start {waited}{said}. Try again, as a busy machine may need "
        "longer; PREFECT_API_URL sets another one."
    )


def _serve() -> None:
    """Serves until the process that started this one ends; writes the port when requests are answered."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    collect_seldom()
    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # those that end the command are not for its server

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            with suppress(BrokenPipeError):  # the command has ended
                os.write(sys.stdout.fileno(), f"{place.getsockname()[1]}\n".encode())

    place = socket.create_server(("127.0.0.1", 0))
    asyncio.run(Server(uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")).serve([place]))


def _end_with_parent() -> None:
    # Nothing is ever written, so that this returns when the other end is gone. A file object's lock would be held until
    # then, and a server that does not start would end with a complaint of Python's about it.
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)  # what it knows is in its database


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _serve()
