"""Deployments and automations on a real Prefect server: applied twice they exist once, and they work."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import Event
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import temporary_settings
from prefect.states import Cancelling, Completed, Pending, Running

from flows.execution.gpu_workers import GpuPool
from tests.support.commands import refseg_process
from tests.support.servers.postgresql import postgresql
from tests.support.servers.prefect_server import PrefectServer, prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("automations")]

_SHORT_SECONDS = 10  # Prefect takes no less
_MOST_SECONDS = 250.0  # a slow machine may take long
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


def _deploy(server: PrefectServer, *options: str) -> None:
    done = refseg_process("service", "deploy", *options, environment=server.environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server that knows refseg, on PostgreSQL; on SQLite, as in all other tests, where there is none."""
    folder = tmp_path_factory.mktemp("server")
    with postgresql() as address, prefect_server(folder, database=address) as running:
        _deploy(running)
        yield running


@pytest.fixture
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """The server's API."""
    with server.client() as made:
        yield made


def test_they_are_applied_once_and_a_failed_run_is_notified(server: PrefectServer, client: SyncPrefectClient) -> None:
    with _webhook() as (url, came):
        _deploy(server, "--notify", url)
        assert sorted(_automations(client)) == [
            "refseg-no-gpu-worker",
            "refseg-run-failed",
            "refseg-run-not-cancelled",
            "refseg-run-not-started",
            "refseg-run-stalled",
            "refseg-worker-gone",
            "refseg-worker-lost",
        ]
        subprocess.run([sys.executable, "-c", _FAILING], env=server.environment, check=True, capture_output=True)
        failed = came.get(timeout=_MOST_SECONDS)
        with temporary_settings(server.settings):
            GpuPool(client).announce_lost("host-gpu1")
            gone = came.get(timeout=_MOST_SECONDS)
    assert "refseg boats has ended as Failed" in failed
    assert "the disk is full" in failed
    assert "worker host-gpu1 is offline" in gone


def test_a_form_begins_with_gpu_workers_and_is_refused_while_places_are_missing(client: SyncPrefectClient) -> None:
    for name in ("refseg/label-now", "refseg/label-nightly", "evaluate run/evaluate"):
        deployment = client.read_deployment_by_name(name)
        assert deployment.parameters["config"]["execution"] == {"engine": "workers"}
        with pytest.raises(PrefectHTTPStatusError, match="'store' is a required property"):
            client.create_flow_run_from_deployment(deployment.id)
    deployment = client.read_deployment_by_name("benchmark/benchmark")
    assert deployment.parameters == {"changes": {"execution.engine": "workers"}}
    with pytest.raises(PrefectHTTPStatusError, match="'name' is a required property"):
        client.create_flow_run_from_deployment(deployment.id)


def test_a_silent_run_becomes_crashed_and_one_that_has_ended_does_not(client: SyncPrefectClient) -> None:
    """Not even where its last heartbeat comes after its end, so that nothing is heard of it from then on."""
    _shorten(client, "refseg-run-stalled", "refseg-run-not-started")
    silent, unstarted = _run(client, Running(), "refseg"), _run(client, Pending(), "refseg")
    ended, foreign = _run(client, Completed(), "refseg"), _run(client, Running(), "somebody")
    _beat(client, [silent, ended, foreign])
    deadline = time.monotonic() + _MOST_SECONDS
    while {_state(client, silent), _state(client, unstarted)} != {"Crashed"} and time.monotonic() < deadline:
        time.sleep(1)
    time.sleep(_SHORT_SECONDS)
    assert [_state(client, run) for run in (silent, unstarted)] == ["Crashed", "Crashed"]
    assert [_state(client, run) for run in (ended, foreign)] == ["Completed", "Running"]


def test_a_cancelled_run_that_does_not_end_becomes_cancelled(client: SyncPrefectClient) -> None:
    _shorten(client, "refseg-run-not-cancelled")
    run, foreign = _run(client, Running(), "refseg"), _run(client, Running(), "somebody")
    for each in (run, foreign):
        client.set_flow_run_state(each.id, Cancelling())
    deadline = time.monotonic() + _MOST_SECONDS
    while _state(client, run) != "Cancelled" and time.monotonic() < deadline:
        time.sleep(1)
    assert [_state(client, each) for each in (run, foreign)] == ["Cancelled", "Cancelling"]


def _automations(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    found = client.request("POST", "/automations/filter", json={}).json()
    assert len({automation["name"] for automation in found}) == len(found)
    return {automation["name"]: automation for automation in found}


def _shorten(client: SyncPrefectClient, *names: str) -> None:
    """Has the automations wait seconds and not minutes."""
    for name in names:
        automation = _automations(client)[name]
        automation["trigger"]["within"] = _SHORT_SECONDS
        changed = {key: automation[key] for key in ("name", "description", "enabled", "trigger", "actions")}
        client.request("PUT", "/automations/{id}", path_params={"id": automation["id"]}, json=changed)
    time.sleep(2)  # the part of the server that watches hears of it a little later


def _run(client: SyncPrefectClient, state: State[Any], tag: str) -> FlowRun:
    run = client.create_flow_run(Flow(_nothing, name="refseg"), tags=[tag])
    client.set_flow_run_state(run.id, state, force=True)
    return run


def _nothing() -> None:
    """What these runs would do."""


def _beat(client: SyncPrefectClient, runs: list[FlowRun]) -> None:
    """Tells the server what processes at work tell it every 30 seconds."""
    beats = [
        Event(
            event="prefect.flow-run.heartbeat",
            resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"},
            related=[{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in run.tags],
        )
        for run in runs
    ]
    client.request("POST", "/events", json=[beat.model_dump(mode="json") for beat in beats])


def _state(client: SyncPrefectClient, run: FlowRun) -> str | None:
    return client.read_flow_run(run.id).state_name
