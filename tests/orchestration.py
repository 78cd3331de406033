"""Measures the overhead of Prefect with a model that sleeps: `python -m tests.orchestration JOB`.

    overhead    shards of 64 images at 50 images/s: the share of time outside of the model, and requests per shard
    shards      2,000 shards in one run: the memory of the server's process and the size of its database
    workers     1, 2, 4 and 8 workers on one run: images/s compared with one worker

A benchmark, not a test: figures depend on the machine. It starts its own server.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from prefect.settings import PREFECT_HOME, temporary_settings

from tasks.specs import LabelJob, ModelSettings
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import Shard
from tasks.store.store import Recipe, Store
from tests.support.projects.sleeping import SECONDS_VARIABLE, SleepingLabeler, label_shards
from tests.support.samples import images_table
from tests.support.servers.prefect_server import PrefectServer, prefect_server

_ROOT = Path(__file__).resolve().parents[1]
_IMAGES_PER_SHARD = 64
_requests: Counter[str] = Counter()


def overhead(folder: Path) -> None:
    """Measures one process and its server."""
    os.environ[SECONDS_VARIABLE] = "0.02"
    with _server(folder):
        job, all_shards = _work(folder, 75, _IMAGES_PER_SHARD)
        label_shards(job, all_shards[:2])
        costs = [_cost(job, all_shards[2:27]), _cost(job, all_shards[27:])]
        for number, (wall, slept, requests) in zip((25, 48), costs, strict=True):
            _print(
                f"{number} shards of 64 images: {wall:.2f} s from the first image to the last, of which the model "
                f"{slept:.2f} s: {100 * (1 - slept / wall):.2f} % overhead; {requests} requests"
            )
    _print(f"each further shard: {(costs[1][2] - costs[0][2]) / 23:.2f} requests")


def _cost(job: LabelJob, shards: list[Shard]) -> tuple[float, float, int]:
    """Returns the seconds from the first image to the last, those that the model slept, and requests to the server.

    The start and end of a flow are not counted; they take one or two seconds for any number of shards.
    """
    requests, slept = _requests.total(), SleepingLabeler.seconds_slept
    SleepingLabeler.first_at = None
    label_shards(job, shards)
    assert SleepingLabeler.first_at is not None
    wall = SleepingLabeler.last_at - SleepingLabeler.first_at
    return wall, SleepingLabeler.seconds_slept - slept, _requests.total() - requests


def shards(folder: Path) -> None:
    """Measures many small shards."""
    with _server(folder) as server:
        job, all_shards = _work(folder, 2000, 1)
        os.environ[SECONDS_VARIABLE] = "0"
        for number in range(0, len(all_shards) + 1, 500):
            _print(
                f"{number:5} shards: server {_resident_mb(server.pid):.0f} MB, database {_database_mb(folder):.1f} MB"
            )
            if number < len(all_shards):
                label_shards(job, all_shards[number : number + 500])
                time.sleep(5)  # until the events have been written


def workers(folder: Path) -> None:
    """Measures workers on groups that take several times as long as a worker's start, which shares the cores."""
    seconds_per_image, shards_each = 0.05, 20
    rates: dict[int, float] = {}
    for number in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory(dir=folder) as place, _server(Path(place)), ExitStack() as stack:
            job, all_shards = _work(Path(place), number * shards_each, _IMAGES_PER_SHARD)
            _deploy(Path(place))
            for worker in range(number):
                stack.enter_context(_worker(f"gpu{worker}", seconds_per_image))
            runs = [
                _submit(job, all_shards[first : first + shards_each])
                for first in range(0, len(all_shards), shards_each)
            ]
            took = _wait(runs)
            rates[number] = sum(len(shard) for shard in all_shards) / max(took)
            _print(
                f"{number} workers: {rates[number]:6.1f} images/s, {rates[number] / rates[1] / number:.3f} of "
                f"linear; the model alone {number / seconds_per_image:.0f}"
            )


def _deploy(folder: Path) -> None:
    file = folder / "prefect.yaml"
    deployment = "{name: gpu, entrypoint: tests.support.projects.sleeping.label_shards, work_pool: {name: refseg-gpu}}"
    file.write_text(f"pull: []\ndeployments:\n- {deployment}\n")
    for command in (
        ["work-pool", "create", "--type", "process", "refseg-gpu"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
    ):
        subprocess.run([sys.executable, "-m", "prefect", *command], check=True, cwd=_ROOT, stdout=subprocess.DEVNULL)


def _submit(job: LabelJob, shards: list[Shard]) -> Any:
    from prefect.deployments import run_deployment

    run: Any = run_deployment("label shards/gpu", parameters={"job": job, "shards": shards}, timeout=0)
    return run.id


def _wait(runs: list[Any]) -> list[float]:
    """Waits until all runs have ended; returns the seconds of each."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        while True:
            found = [client.read_flow_run(run) for run in runs]
            states = {run.state.type.value for run in found if run.state}
            assert states <= {"SCHEDULED", "PENDING", "RUNNING", "COMPLETED"}, states
            if states == {"COMPLETED"}:
                return [run.total_run_time.total_seconds() for run in found]
            time.sleep(2)


@contextmanager
def _worker(name: str, seconds_per_image: float) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "refseg-gpu", "--limit", "1"]
    environment = {**os.environ, SECONDS_VARIABLE: str(seconds_per_image), "PYTHONPATH": str(_ROOT)}
    with _running([*command, "--name", name], environment, Path(os.environ["PREFECT_HOME"]) / f"{name}.log"):
        yield


@contextmanager
def _server(folder: Path) -> Iterator[PrefectServer]:
    """Yields a server for this process and its children."""
    with prefect_server(folder) as server:
        os.environ |= {**server.environment, "PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_LOGGING_LEVEL": "WARNING"}
        # This process has already read its settings.
        with temporary_settings({**server.settings, PREFECT_HOME: server.home}):
            yield server


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=_ROOT, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _work(folder: Path, num_shards: int, images_per_shard: int) -> tuple[LabelJob, list[Shard]]:
    """Writes small images and plans their shards."""
    (folder / "images").mkdir(exist_ok=True)
    names = [f"{number:06d}.png" for number in range(num_shards * images_per_shard)]
    for name in names:
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / "images" / name)
    images = images_table(*names)
    run = StoredLabels.open(Store(str(folder / "store")), Recipe("label_shard", "labels", version=1))
    model = ModelSettings(model="sleeping")
    job = LabelJob(
        store=str(folder / "store"),
        key=run.key,
        prototypes="prototypes/none",
        images=str(folder / "images"),
        segmenter=model,
        encoder=model,
    )
    return job, run.plan(images, images_per_shard)


def _count_requests() -> None:
    for kind in (httpx.Client, httpx.AsyncClient):
        send = kind.send

        def counted(client: Any, request: httpx.Request, *args: Any, _send: Any = send, **options: Any) -> Any:
            _requests[request.url.path] += 1
            return _send(client, request, *args, **options)

        kind.send = counted  # type: ignore[method-assign, assignment]


def _resident_mb(pid: int) -> float:
    """Returns the memory of the process and its children."""
    pids = [pid, *map(int, subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False).stdout.split())]
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _database_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in (folder / "prefect").glob("prefect.db*")) / 1e6


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    jobs = {"overhead": overhead, "shards": shards, "workers": workers}
    _count_requests()
    with tempfile.TemporaryDirectory() as place:
        jobs[sys.argv[1]](Path(place))
