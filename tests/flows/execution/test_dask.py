"""The same labels on a Dask cluster: one worker process with the resource GPU, which is a CPU here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import pipeline
from flows.config.loading import load_config
from flows.config.run_config import RunConfig
from flows.demo import write_demo
from tests.support.label_rows import assert_exact, read_label_rows
from tests.support.projects.without_prefect import call_without_prefect
from tests.support.servers.prefect_harness import prefect_harness

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dask"),
    pytest.mark.filterwarnings("default"),  # of Dask's own, as its cluster ends
]


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
            "batches.images_per_shard": 2,
            "execution.engine": engine,
        },
    )


@pytest.mark.usefixtures("prefect")
def test_a_dask_cluster_labels_as_one_process_does(tmp_path: Path) -> None:
    demo = write_demo(tmp_path)
    for image in sorted((tmp_path / "targets").iterdir())[6:]:
        image.unlink()
    with pytest.MonkeyPatch.context() as patch:
        call_without_prefect(patch)
        pipeline.run_pipeline(_config(demo, tmp_path / "process", "process"))
    result = pipeline.run_pipeline(_config(demo, tmp_path / "dask", "dask"))
    assert len(result.plan.pending) == 3
    assert_exact(str(tmp_path / "dask"), read_label_rows(str(tmp_path / "process")))
