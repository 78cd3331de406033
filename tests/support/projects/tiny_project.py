"""Projects whose models take milliseconds: a pytest plugin, named in `pytest_plugins`.

The demo models' dimensions are exchanged for tinier ones. Only fixtures: a test module that also imported it would
have pytest complain.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Artifact
from tests.support.models import make_demo_tiny
from tests.support.projects.project import Project, save_tiny_weights, write_project
from tests.support.projects.steps import Steps


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parameters of the tiny models."""
    folder = tmp_path_factory.mktemp("weights")
    save_tiny_weights(folder)
    return folder


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo models are tiny."""
    make_demo_tiny(monkeypatch)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, tiny models spend all their time on waiting for one another
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def project(tmp_path: Path, tiny_weights: Path, tiny_models: None) -> Project:
    """A project in a folder of its own."""
    return write_project(tmp_path, tiny_weights)


@pytest.fixture
def steps(project: Project) -> Steps:
    """Its steps, each to be called on its own."""
    return Steps(project)


@pytest.fixture
def labeled(steps: Steps) -> tuple[Artifact, LabelPlan]:
    """The project's prototypes, and the plan of its targets, which are labeled."""
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    return prototypes, plan
