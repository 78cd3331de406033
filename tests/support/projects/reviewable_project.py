"""A project with labels to review: a pytest plugin. Only fixtures, as in `tiny_project.py`."""

import pytest

from tests.support.projects.reviewable import Reviewable, label_by_hand
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


@pytest.fixture
def reviewable(steps: Steps) -> Reviewable:
    """Five images with seven instances each."""
    return label_by_hand(steps)
