"""The same labels on a Dask cluster: one worker process with the resource GPU, which is a CPU here."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread, current_thread

import dask
import psutil
import pytest
from distributed import LocalCluster

from flows import pipeline
from flows.config.loading import load_config
from flows.config.run_config import RunConfig
from flows.demo import write_demo
from flows.execution import stopping
from flows.execution.engines import _tell_to_stop
from flows.execution.stopping import stopped_by_signals, stopped_outcome
from tasks.runtime.cancellation import saved_by, working_for
from tests.support.label_rows import assert_exact, read_label_rows
from tests.support.projects.without_prefect import call_without_prefect
from tests.support.servers.prefect_harness import prefect_harness

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dask"),
    pytest.mark.filterwarnings("default"),  # of Dask's own, as its cluster ends
]

_PATIENT_WORKER = "tests.support.crashes.patient_worker"


@pytest.fixture
def prefect() -> Iterator[None]:
    """A Prefect server of the test's own."""
    with prefect_harness():
        yield


def _config(demo: Path, store: Path, engine: str) -> RunConfig:
    return load_config(
        str(demo),
        {
            "store": str(store),
            "targets.annotations": None,
            "labeling.points_per_side": 4,
            "batches.images_per_shard": 6,
            "execution.engine": engine,
        },
    )


def _interrupt_at_first(pictures: Path) -> None:
    """Sends what Ctrl-C sends to this process and to those of its cluster, as soon as an image is labeled."""
    deadline = time.monotonic() + 200
    while not any(pictures.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_what_is_finished_is_saved_beside_an_image_that_takes_long_after_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "IMAGE_SECONDS", 0.0)
    saved, left = list[str](), Event()

    def save_ours() -> None:
        saved.append(current_thread().name)
        left.set()

    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
        saved_by(lambda: saved.append("of another run")),
        working_for("ours"),
        saved_by(save_ours),
    ):
        _tell_to_stop(cluster.scheduler_address, "ours", left)
    assert [name.startswith("asyncio") for name in saved] == [True], "the worker's own thread answers the scheduler"


@pytest.mark.usefixtures("prefect")
def test_a_dask_cluster_labels_as_one_process_does_and_keeps_what_is_finished_when_it_is_stopped(
    tmp_path: Path,
) -> None:
    demo = write_demo(tmp_path)
    for image in sorted((tmp_path / "targets").iterdir())[8:]:
        image.unlink()
    with pytest.MonkeyPatch.context() as patch:
        call_without_prefect(patch)
        pipeline.run_pipeline(_config(demo, tmp_path / "process", "process"))
    pictures = tmp_path / "pictures"
    config = _config(demo, tmp_path / "dask", "dask").model_copy(update={"pictures": str(pictures)})
    interrupting = Thread(target=_interrupt_at_first, args=(pictures,))
    interrupting.start()
    with stopped_by_signals():
        with pytest.raises(KeyboardInterrupt), dask.config.set({"distributed.worker.preload": [_PATIENT_WORKER]}):
            pipeline.run_pipeline(config)
        said = re.fullmatch(r"Stopped: (\d) of 8 images kept; the same command goes on\.", stopped_outcome())
    interrupting.join()
    assert said
    assert 1 <= int(said[1]) < 6, "the rest of the shard and the next are not labeled"
    result = pipeline.run_pipeline(config)
    assert sum(len(shard) for shard in result.plan.pending) == 8 - int(said[1])
    assert_exact(str(tmp_path / "dask"), read_label_rows(str(tmp_path / "process")))
