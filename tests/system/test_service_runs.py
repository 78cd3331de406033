"""Runs of a real service, with a real Prefect server, real workers in processes of their own, and the demo's models.

Workers are killed, the server is killed, runs are cancelled and begun again, a schedule fires: the labels are those
of a run that nobody disturbed, every image once.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from flows import pipeline
from flows.config.loading import load_config
from flows.config.run_config import RunConfig
from flows.demo import write_demo
from flows.execution.cancellation import end_run
from flows.service.api import answers
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tests.support.counts import count
from tests.support.label_rows import LabelRows, assert_exact, read_label_rows
from tests.support.projects.without_prefect import call_without_prefect
from tests.support.servers.service_stack import RunningStack, running_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("service")]

_NUM_IMAGES, _IMAGES_PER_SHARD = 24, 4
_LOST_AFTER_SECONDS, _START_WITHIN_SECONDS = 30, 60
_GONE_SECONDS = 62
_BEGUN_IN_VAIN = ["Cancelled", "Running", "Cancelled"]  # the states of a run that was cancelled as it was started
_DEAF_SECONDS = 45  # without a server, after which Prefect's workers hear of no cancellation any more
_CHANGES = {
    "targets.annotations": None,
    "labeling.points_per_side": 8,
    "batches.images_per_shard": _IMAGES_PER_SHARD,
    "execution.minutes_per_group": 0.2,
    "execution.lost_after_seconds": _LOST_AFTER_SECONDS,
    "execution.start_within_seconds": _START_WITHIN_SECONDS,
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's file, with fewer images."""
    file = write_demo(tmp_path_factory.mktemp("service-demo"))
    for image in sorted((file.parent / "targets").iterdir())[_NUM_IMAGES:]:
        image.rename(file.parent / image.name)  # for the nights to come
    return file


@pytest.fixture(scope="module")
def undisturbed(demo: Path) -> LabelRows:
    """What a run in one process labels."""
    config = load_config(str(demo), {**_CHANGES, "store": str(demo.parent / "undisturbed")})
    with pytest.MonkeyPatch.context() as patch:
        call_without_prefect(patch)
        pipeline.run_pipeline(config)
    return read_label_rows(config.store)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A service with three GPU workers, which here are CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with running_stack(tmp_path_factory.mktemp("service"), gpu_workers=3) as running:
            yield running


@pytest.fixture(scope="module")
def waiting(stack: RunningStack) -> UUID:
    """A run that waits for a worker as long as the service is up, since none serves its pool."""
    with stack.client() as client:
        client.create_work_pool(WorkPoolCreate(name="nobody", type="process"))
        flow_id = client.read_deployment_by_name("refseg/label-now").flow_id
        deployment = client.create_deployment(flow_id=flow_id, name="waits", work_pool_name="nobody")
        return client.create_flow_run_from_deployment(deployment, parameters={"config": {}}).id


@pytest.fixture
def server(stack: RunningStack, waiting: UUID, request: pytest.FixtureRequest) -> Iterator[SyncPrefectClient]:
    """The service's Prefect server. Of a test that fails its report shows the service's logs, too."""
    with stack.client() as client:
        client.create_concurrency_limit(tag="gpu", concurrency_limit=3)  # so that slots are taken, held and given back
        yield client
    for name in (*stack.parts, "supervisor"):
        request.node.add_report_section("teardown", f"log of {name}", stack.messages(name))


@pytest.fixture
def config(demo: Path, tmp_path: Path) -> RunConfig:
    """A run into a new store."""
    return load_config(str(demo), {**_CHANGES, "store": str(tmp_path / "store")})


def _start(server: SyncPrefectClient, config: RunConfig) -> FlowRun:
    deployment = server.read_deployment_by_name("refseg/label-now")
    return server.create_flow_run_from_deployment(deployment.id, parameters={"config": config.for_service()})


def _await(what: str, is_so: Callable[[], Any], seconds: float) -> Any:
    """What it returns, once that is true; a server that is away for a moment is asked again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := is_so():
                return found
        except (OSError, httpx.TransportError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


def _num_done(config: RunConfig) -> int:
    return len(list(Path(config.store).glob("labels/*/shards/*.json")))


def _ended(server: SyncPrefectClient, run: FlowRun) -> str | None:
    state = server.read_flow_run(run.id).state
    return state.type.value if state is not None and state.is_final() else None


def _groups(server: SyncPrefectClient, run: FlowRun, *states: str) -> list[FlowRun]:
    """The groups that were handed out since the run began and are in one of the states."""
    runs = server.read_flow_runs(limit=200)
    return [
        found
        for found in runs
        if found.name.startswith("label targets")
        and found.created
        and run.created
        and found.created > run.created
        and found.state
        and found.state.type.value in states
    ]


def _kill_with_children(pid: int) -> None:
    for each in (pid, *map(int, _children(pid))):
        os.kill(each, signal.SIGKILL)


def test_a_worker_and_the_server_are_killed_in_a_run_and_the_labels_are_exact(
    stack: RunningStack, server: SyncPrefectClient, config: RunConfig, undisturbed: LabelRows
) -> None:
    run = _start(server, config)
    _await("groups at work", lambda: _num_done(config) >= 1 and _groups(server, run, "RUNNING"), 150)
    _await("a slot is taken", lambda: server.read_global_concurrency_limit_by_name("tag:gpu").active_slots, 150)
    worker = _await("a worker at work", lambda: _at_work(stack, server, run), 150)
    killed = stack.pids[worker]
    _kill_with_children(killed)
    stack.wait_for(worker, "running", other_than=killed)
    killed = stack.pids["server"]
    os.killpg(killed, signal.SIGKILL)
    stack.wait_for("server", "running", other_than=killed, seconds=150)
    assert _await("the run has ended", lambda: _ended(server, run), 240) == "COMPLETED"
    assert_exact(config.store, undisturbed)
    banks = [found.name for found in server.read_flow_runs(limit=200) if "build bank" in found.name]
    assert banks == ["build bank targets"], "the worker's, and none that only finds what it has built"
    count("service: workers and servers killed", 2)


def _at_work(stack: RunningStack, server: SyncPrefectClient, run: FlowRun) -> str | None:
    """A worker whose process labels a group of the run."""
    running = {str(group.infrastructure_pid).rpartition(":")[2] for group in _groups(server, run, "RUNNING")}
    workers = {name: pid for name, pid in stack.pids.items() if name in stack.labelers}
    return next((name for name, pid in workers.items() if not running.isdisjoint(_children(pid))), None)


def _children(pid: int) -> list[str]:
    return subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False, text=True).stdout.split()


def test_the_server_is_gone_for_a_minute_in_a_run_and_nobody_at_work_is_given_up(
    stack: RunningStack, server: SyncPrefectClient, config: RunConfig, undisturbed: LabelRows
) -> None:
    run = _start(server, config)
    _await("groups at work", lambda: _num_done(config) >= 1 and _groups(server, run, "RUNNING"), 150)
    workers = {name: pid for name, pid in stack.pids.items() if name != "server"}
    with stack.without_server():
        assert _num_done(config) < _NUM_IMAGES // _IMAGES_PER_SHARD
        back_at = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < back_at:
            assert not answers(f"{stack.api_url}/health")
            time.sleep(1)
    assert _await("the run has ended", lambda: _ended(server, run), 240) == "COMPLETED"
    assert_exact(config.store, undisturbed)
    others = _groups(server, run, "CRASHED", "FAILED", "CANCELLED")  # without a server Prefect can begin none
    assert [(lost.name, lost.state) for lost in others if lost.run_count] == []
    assert workers == {name: pid for name, pid in stack.pids.items() if name != "server"}
    count("service: minutes without a server", 1)


def test_a_run_that_only_waits_for_a_worker_is_not_shown_as_late(server: SyncPrefectClient, waiting: UUID) -> None:
    """By then it has waited for minutes, where Prefect's own limit is 15 seconds."""
    run = server.read_flow_run(waiting)
    assert run.created is not None
    assert (datetime.now(UTC) - run.created).total_seconds() > _GONE_SECONDS
    assert run.state_name == "Scheduled"


def test_slots_of_what_was_killed_come_back(server: SyncPrefectClient) -> None:
    """At the latest when their lease ends; after the test above it has."""
    _await("no slot is taken", lambda: not server.read_global_concurrency_limit_by_name("tag:gpu").active_slots, 120)


def test_a_run_that_was_without_a_server_can_be_cancelled_yet(
    stack: RunningStack, server: SyncPrefectClient, config: RunConfig
) -> None:
    """Prefect's workers have given up listening by then, so the run and its groups notice by themselves."""
    labeling = config.labeling.model_copy(update={"points_per_side": 100})  # so that the groups outlast it
    run = _start(server, config.model_copy(update={"labeling": labeling}))
    _await("groups at work", lambda: len(_groups(server, run, "RUNNING")) >= 3, 150)
    with stack.without_server():
        time.sleep(_DEAF_SECONDS)
    _await("it is cancelled", lambda: server.set_flow_run_state(run.id, Cancelling()), 150)
    _await_stop(server, run, 300)  # a group that was just starting died with the server: an automation ends it in 180 s
    assert _num_done(config) < _NUM_IMAGES // _IMAGES_PER_SHARD
    count("service: runs cancelled after Prefect stopped listening", 1)


def _await_stop(server: SyncPrefectClient, run: FlowRun, seconds: float) -> None:
    unended = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
    _await("all have stopped", lambda: not _groups(server, run, *unended), seconds)
    assert _await("the run has ended", lambda: _ended(server, run), 120) == "CANCELLED"


def test_a_run_that_is_cancelled_while_its_process_starts_does_nothing(
    server: SyncPrefectClient, config: RunConfig
) -> None:
    """Prefect lets it begin although it has ended."""
    run = _start(server, config)
    _await("its process starts", lambda: "Submitting" in _states(server, run), 150)
    end_run(server, server.read_flow_run(run.id), "for a test")
    _await("it has begun, and ended again", lambda: _states(server, run)[-3:] == _BEGUN_IN_VAIN, 150)
    assert not Path(config.store).exists()


def _states(server: SyncPrefectClient, run: FlowRun) -> list[str | None]:
    states = server.read_flow_run_states(run.id)
    return [state.name for state in sorted(states, key=lambda state: state.timestamp)]


def test_a_cancelled_run_stops_its_workers_within_seconds_and_the_same_run_resumes(
    server: SyncPrefectClient, config: RunConfig, undisturbed: LabelRows
) -> None:
    run = _start(server, config)
    _await("groups at work", lambda: _num_done(config) >= 1 and _groups(server, run, "RUNNING"), 150)
    server.set_flow_run_state(run.id, Cancelling())  # as the UI does
    _await_stop(server, run, 120)
    num_done = _num_done(config)
    assert num_done < _NUM_IMAGES // _IMAGES_PER_SHARD
    time.sleep(3)
    assert _num_done(config) == num_done
    again = _start(server, config)
    assert _await("the run has ended", lambda: _ended(server, again), 240) == "COMPLETED"
    assert_exact(config.store, undisturbed)


def test_a_schedule_fires_and_labels_what_is_new(
    stack: RunningStack, server: SyncPrefectClient, demo: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    spare = sorted(demo.parent.glob("targets_*"))
    shutil.copy(spare[0], images)
    config = load_config(str(demo), {**_CHANGES, "store": str(tmp_path / "store"), "targets.images": str(images)})
    with pytest.MonkeyPatch.context() as patch:  # the day's labels
        call_without_prefect(patch)
        pipeline.run_pipeline(config)
    shutil.copy(spare[1], images)
    file = tmp_path / "nightly.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    result = stack.refseg("service", "schedule", file, "--cron", "* * * * *", "--name", "boats")
    assert result.returncode == 0, result.stderr
    try:
        _await("the night", lambda: _num_labeled(config) == 2, 200)
        _await("its run has ended", lambda: _nights(server, "COMPLETED"), 150)
    finally:
        server.delete_deployment(server.read_deployment_by_name("refseg/boats-nightly").id)


def _nights(server: SyncPrefectClient, state: str) -> list[FlowRun]:
    runs = server.read_flow_runs(limit=200)
    return [run for run in runs if run.auto_scheduled and run.state_type and run.state_type.value == state]


def _num_labeled(config: RunConfig) -> int:
    if _num_done(config) == 0:
        return 0
    run, _ = newest_labels(Store(config.store))
    return sum(len(labeled) for _, labeled in run.read())
