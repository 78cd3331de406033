"""A project with labels to review: a pytest plugin. Only fixtures, as in `tiny_project.py`."""

import shutil
from pathlib import Path

import pytest

from tests.support.models import make_demo_tiny
from tests.support.projects.project import Project, write_project
from tests.support.projects.reviewable import Reviewable, label_by_hand
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


@pytest.fixture(scope="session")
def labeled_once(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Reviewable:
    """What `reviewable` is copied from, which no test changes."""
    with pytest.MonkeyPatch.context() as patch:
        make_demo_tiny(patch)
        return label_by_hand(Steps(write_project(tmp_path_factory.mktemp("labeled"), tiny_weights)))


@pytest.fixture
def reviewable(labeled_once: Reviewable, tmp_path: Path, tiny_models: None) -> Reviewable:
    """Five images with seven instances each, in a store of its own. The images are those of all tests."""
    content = labeled_once.steps.project.content
    own = Project(tmp_path, content | {"store": str(tmp_path / "store")})
    shutil.copytree(content["store"], own.content["store"])
    return labeled_once.of(Steps(own))
