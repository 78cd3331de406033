"""Automations on a real Prefect server: applied twice they are there once, and a failed run is told to a webhook."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest
from prefect.client.orchestration import SyncPrefectClient

from tests.postgresql import postgresql
from tests.prefect_server import PrefectServer, prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_ROOT = Path(__file__).resolve().parents[1]
_PROGRAM = "from flows.cli import main; main(prog_name='refseg')"
_FAILING = """
from prefect import flow, tags

@flow(name="refseg", flow_run_name="refseg boats")
def fails():
    raise ValueError("the disk is full")

with tags("refseg", "refseg-run"):
    fails(return_state=True)
"""


@contextmanager
def _webhook() -> Iterator[tuple[str, "Queue[str]"]]:
    """An address that takes POSTs, and what came."""
    came: Queue[str] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.put(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", came
        server.shutdown()


def _python(program: str, *arguments: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrefectServer]:
    """A Prefect server on PostgreSQL; on SQLite, as those of all other tests, where there is no PostgreSQL."""
    with postgresql() as address, prefect_server(tmp_path, database=address) as running:
        yield running


def test_they_are_applied_once_and_a_failed_run_is_told(server: PrefectServer) -> None:
    with _webhook() as (url, came):
        for _ in range(2):
            _python(_PROGRAM, "service", "deploy", "--notify", url, environment=server.environment)
        with SyncPrefectClient(server.api_url) as client:
            found = client.request("POST", "/automations/filter", json={}).json()
        names = ["refseg-no-gpu-worker", "refseg-run-failed", "refseg-run-stalled", "refseg-worker-lost"]
        assert sorted(automation["name"] for automation in found) == names
        _python(_FAILING, environment=server.environment)
        told = came.get(timeout=60)
    assert "refseg boats has ended as Failed" in told
    assert "the disk is full" in told
