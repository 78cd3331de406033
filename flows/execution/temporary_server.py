"""The Prefect server of a command, which nothing can leave behind: it ends when the command's process does.

Prefect's own temporary server gets the signals that the terminal sends to the command, so that it is gone when the
command reports how its run ended; and where the command is killed, it stays. As a program this is the server.
"""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flows.errors import RunFailedError

_SECONDS_TO_START = 300.0  # of one that is alive; what ended is noticed at once
_SETTINGS = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


def start_temporary_server() -> None:
    """Starts a server for all flows of this process, unless there is one. Raises RunFailedError if that fails."""
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()  # the one that Prefect uses where no server is set
    if server.running:
        return
    its_end, _ = os.pipe()  # the other end stays open for as long as this process lives
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.execution.temporary_server"],
        stdin=its_end,
        stdout=subprocess.PIPE,
        env={**os.environ, **_SETTINGS},
        start_new_session=True,
    )
    os.close(its_end)
    assert process.stdout is not None
    with process.stdout as said:
        is_ready, _, _ = select.select([said], [], [], _SECONDS_TO_START)
        port = said.readline() if is_ready else b""
    if not port:
        process.kill()
        waited = f"within {_SECONDS_TO_START:.0f} seconds" if not is_ready else "and ended"
        raise RunFailedError(
            f"The temporary Prefect server did not start {waited}. Try again, as a busy machine may need longer; "
            "PREFECT_API_URL sets another one."
        )
    server.port, server.server_process, server.running = int(port), process, True


def _serve() -> None:
    """Serves until the process that started this one ends; writes the port when requests are answered."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
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
    sys.stdin.buffer.read()  # nothing is ever written, so that it returns when the other end is gone
    os._exit(0)  # what it knows is in its database


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _serve()
