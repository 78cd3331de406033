"""A real Prefect server in a process of its own, with its UI."""

import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

from flows.local_stack.processes import free_ports

_ROOT = Path(__file__).resolve().parents[3]
_START_SECONDS = 120
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class PrefectServer:
    """A running server: its address, the login that it asks for, and the environment in which processes use it."""

    url: str
    home: Path
    pid: int
    login: str | None

    @property
    def api_url(self) -> str:
        """The address of its API."""
        return f"{self.url}/api"

    @property
    def environment(self) -> dict[str, str]:
        """All variables for a process that uses it: a Prefect home apart from the user's, this checkout's sources."""
        return {
            **os.environ,
            "PREFECT_API_URL": self.api_url,
            **({} if self.login is None else {"PREFECT_API_AUTH_STRING": self.login}),
            "PREFECT_HOME": str(self.home),
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(_ROOT),
        }

    @property
    def settings(self) -> dict[Any, str | None]:
        """What this process, which has read its settings, needs to use it."""
        return {PREFECT_API_URL: self.api_url, PREFECT_API_AUTH_STRING: self.login}

    def client(self) -> SyncPrefectClient:
        """A client of it."""
        return SyncPrefectClient(self.api_url, auth_string=self.login)


@contextmanager
def prefect_server(
    folder: Path, *, database: str | None = None, asks_for_login: bool = True
) -> Iterator[PrefectServer]:
    """Starts a server that keeps everything in the folder, or in the database, and ends it with the block."""
    login = f"refseg:{secrets.token_urlsafe(16)}" if asks_for_login else None
    port = free_ports(["server"])["server"]
    url, home = f"http://127.0.0.1:{port}", folder / "prefect"
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",  # the UI would look for it at the usual port
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}),
        **({"PREFECT_SERVER_API_AUTH_STRING": login} if login else {}),
    }
    command = [sys.executable, "-m", "flows.local_stack.prefect_server", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
    server = PrefectServer(url, home, process.pid, login)
    try:
        _wait_until_healthy(server, process, folder / "server.log")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=150)


def _wait_until_healthy(server: PrefectServer, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.api_url}/health", timeout=20):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_SECONDS)
    raise AssertionError(f"the Prefect server did not start:\n{log.read_text(errors='replace')[-3000:]}")
