"""A project in a bucket, and runs in no time: a pytest plugin, named in `pytest_plugins`.

Only fixtures: a test module that also imported it would have pytest complain.
"""

from pathlib import Path

import pytest

from flows import pipeline
from tasks.storage import retry
from tests.support.label_rows import LabelRows, read_label_rows
from tests.support.projects.project import Project, in_bucket, write_project
from tests.support.projects.without_prefect import call_without_prefect
from tests.support.servers.object_stores import ObjectStore

_local: list[LabelRows] = []


@pytest.fixture
def without_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows and tasks are plain functions."""
    call_without_prefect(monkeypatch)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that fails is tried again sooner, as often as ever."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE_SECONDS", 0.02)


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
