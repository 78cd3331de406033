"""What tests count is shown at the end of a run, added up over all workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = """
import pytest
from tests.support.counts import count

@pytest.mark.parametrize("number", range(4))
def test(number: int) -> None:
    count("faults", number)
    count("images lost", 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_counts_are_added_up_and_shown_whoever_counts(workers: int, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", str(workers), "--rootdir", str(tmp_path)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert ["6", "faults"] in lines
    assert ["0", "images lost"] in lines
