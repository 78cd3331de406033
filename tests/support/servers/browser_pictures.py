"""Where tests put pictures of pages: a pytest plugin, named in `pytest_plugins`."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder that REFSEG_PICTURES names, or else one of the test's own."""
    folder = Path(os.environ.get("REFSEG_PICTURES", tmp_path / "pages"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
