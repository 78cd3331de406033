"""A pytest plugin (`pytest_plugins = ["tests.bucket_project"]`): a project in a bucket, and runs in no time.

Only fixtures: a test module that also imported it would have pytest complain.
"""

from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed, State

from flows import pipeline
from tasks import faults
from tests.label_rows import LabelRows, read_label_rows
from tests.projects import Project, in_bucket, write_project
from tests.servers import ObjectStore

_TASKS = (
    pipeline.evaluate,
    pipeline.fill_memory_bank,
    pipeline.find_gone_labels,
    pipeline.index_dataset,
    pipeline.plan_shards,
    pipeline.postprocess_memory_bank,
    pipeline.sample_references,
    pipeline.segment_references,
)
_FLOWS = (pipeline.build_bank, pipeline.label_targets, pipeline.evaluate_labels, pipeline.run_pipeline)
_local: list[LabelRows] = []


@pytest.fixture
def without_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows and tasks are plain functions, which nothing retries; their order is that of the flows."""

    def label_shard(*arguments: Any, return_state: bool, **settings: Any) -> State[Any]:
        assert return_state
        try:
            return Completed(data=label(*arguments, **settings))
        except Exception as error:
            return Failed(data=error)

    label = pipeline.label_shard.fn
    monkeypatch.setattr(pipeline, "label_shard", label_shard)
    for step in (*_TASKS, *_FLOWS):
        monkeypatch.setattr(pipeline, step.fn.__name__, step.fn)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that fails is tried again sooner, as often as ever."""
    monkeypatch.setattr(faults, "_FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def bucket_project(project: Project, seaweedfs: ObjectStore) -> Project:
    """The project in a new bucket of a real server: references, targets, weights and store."""
    return in_bucket(project, seaweedfs.filesystem(), seaweedfs.new_bucket())


@pytest.fixture
def local_labels(
    tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, tiny_models: None, without_prefect: None
) -> LabelRows:
    """The labels of the project's run on a local folder."""
    if not _local:
        config = write_project(tmp_path_factory.mktemp("local"), tiny_weights).config
        pipeline.run_pipeline(config)
        _local.append(read_label_rows(config.store))
    return _local[0]
