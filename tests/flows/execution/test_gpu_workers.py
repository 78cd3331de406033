"""The GPU pool through the Prefect server's API: pages of runs and workers, and outages. The API is simulated; a real
one is in `tests/system/test_service_runs.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import Artifact, FlowRun, Worker, WorkerStatus
from prefect.states import Completed, Crashed, Pending, Running, Scheduled, State

from flows import pipeline
from flows.config.run_config import RunConfig
from flows.execution import cancellation
from flows.execution.gpu_workers import GpuPool
from flows.execution.prefect_api import ServerGoneError
from tasks.store.store import Artifact as StoredArtifact
from tasks.store.store import Store
from tests.support.projects.project import Project
from tests.support.projects.without_prefect import call_without_prefect

pytest_plugins = ["tests.support.projects.tiny_project"]

_MOST = 200  # what Prefect hands out at once


class Api:
    """A server that knows runs, each with an artifact that says how far it is, and workers."""

    def __init__(self, num_runs: int = 0, num_workers: int = 0) -> None:
        self.parent = FlowRun(flow_id=uuid4(), state=Running())
        self.runs = [FlowRun(flow_id=uuid4(), state=Running()) for _ in range(num_runs)]
        self.artifacts = [
            Artifact(type="progress", flow_run_id=run.id, data=index) for index, run in enumerate(self.runs)
        ]
        self.workers = [
            Worker(name=f"w{index}", work_pool_id=uuid4(), status=WorkerStatus.ONLINE) for index in range(num_workers)
        ]
        self.ended: list[UUID] = []
        self.states: list[str] = []

    def read_flow_runs(
        self, flow_run_filter: FlowRunFilter, limit: int | None = None, offset: int = 0
    ) -> list[FlowRun]:
        parents = flow_run_filter.parent_flow_run_id
        below = parents is None or parents.any_ == [self.parent.id]
        return _page([run for run in self.runs if below and run.id not in self.ended], limit, offset)

    def read_artifacts(self, limit: int | None = None, offset: int = 0, **_: Any) -> list[Artifact]:
        return _page(self.artifacts, limit, offset)

    def read_workers_for_work_pool(self, name: str, limit: int | None = None, offset: int = 0) -> list[Worker]:
        return _page(self.workers, limit, offset)

    def set_flow_run_state(self, run: UUID, state: Any) -> None:
        self.ended.append(run)
        self.states.append(state.type.value)


def _page(found: Sequence[Any], limit: int | None, offset: int) -> list[Any]:
    limit = _MOST if limit is None else limit
    assert limit <= _MOST, "Invalid limit: must be less than or equal to 200"
    return list(found[offset : offset + limit])


def _pool(api: Api) -> GpuPool:
    return GpuPool(cast(SyncPrefectClient, api))


@pytest.mark.parametrize("number", [1, _MOST, _MOST + 1, 3 * _MOST])
def test_any_number_of_runs_and_workers_is_seen(number: int) -> None:
    api = Api(num_runs=number, num_workers=number)
    seen = _pool(api).read_statuses([run.id for run in api.runs])
    assert [seen[run.id].share_done for run in api.runs] == [index / 100 for index in range(number)]
    assert _pool(api).online_workers() == [worker.name for worker in api.workers]


def test_a_run_that_was_ended_ends_any_number_of_runs_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(num_runs=2 * _MOST + 1)

    @contextmanager
    def played(**_: Any) -> Iterator[Api]:
        yield api

    monkeypatch.setattr(cancellation, "get_client", played)
    cancellation.cancel_below(pipeline.run_pipeline, api.parent, Crashed())
    assert sorted(api.ended) == sorted(run.id for run in api.runs)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Scheduled(), ["CANCELLED"]),
        (Pending(), ["CANCELLED"]),
        (Running(), ["CANCELLING"]),
        (Completed(), []),
    ],
    ids=["waits", "its process starts", "at work", "has ended"],
)
def test_only_active_runs_have_to_be_stopped(state: State[Any], expected: list[str]) -> None:
    api = Api()
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4(), state=state, state_type=state.type)
    cancellation.end_run(cast(SyncPrefectClient, api), run, "for a test")
    assert api.states == expected


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("connection refused"),
        httpx.ReadTimeout("no answer"),
        httpx.Response(500),
        httpx.Response(429, headers={"Retry-After": "0"}),
    ],
    ids=["refuses", "hangs", "fails", "is overloaded"],
)
def test_an_unreachable_server_raises_at_once(answer: httpx.Response | Exception) -> None:
    without_tokens = httpx.Response(404)
    answers = [without_tokens, httpx.Response(200, json=[]), answer]  # and none for another try

    def handle(request: httpx.Request) -> httpx.Response:
        given = answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    with SyncPrefectClient("http://server/api", httpx_settings={"transport": httpx.MockTransport(handle)}) as client:
        pool = GpuPool(client)
        assert pool.online_workers() == []
        with pytest.raises(ServerGoneError):
            pool.online_workers()
    assert not answers


def test_a_bank_that_a_worker_has_built_causes_no_second_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    call_without_prefect(monkeypatch)
    config, built = project.config_with({"execution.engine": "workers"}), list[StoredArtifact]()

    def build(config: RunConfig) -> None:
        built.append(pipeline.make_prototypes(config, Store(config.store)))

    monkeypatch.setattr(pipeline, "build_bank_with_workers", build)
    monkeypatch.setattr(pipeline, "build_bank", None)  # the flow whose run would be shown beside the worker's
    assert [pipeline.make_bank(config)] == built
