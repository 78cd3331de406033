"""The real server is shared by all who name its folder, and ends with the last of them, however that ends."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.servers.seaweedfs import shared_server

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.support.servers.stores"]

_PROGRAM = """
import sys, time
from pathlib import Path
from tests.support.servers.seaweedfs import shared_server
with shared_server(Path(sys.argv[1]), Path(sys.argv[2])) as endpoint:
    print(endpoint, flush=True)
    time.sleep(600)
"""


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint).close()
    except urllib.error.HTTPError as refused:  # nobody may come without credentials
        refused.close()
        return refused.code == 403
    except OSError:
        return False
    return True


def test_it_ends_with_its_last_user_even_if_that_one_is_killed(seaweedfs_program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    command = [sys.executable, "-c", _PROGRAM, str(seaweedfs_program), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        endpoint = other.stdout.readline().strip()
        with shared_server(seaweedfs_program, folder) as same:
            assert same == endpoint
        assert _answers(endpoint)
        other.kill()
    assert _eventually(lambda: not _answers(endpoint))
    assert _eventually(lambda: not folder.exists())
    with shared_server(seaweedfs_program, folder) as another:
        assert _answers(another)
    assert _eventually(lambda: not folder.exists())


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(RuntimeError, match="the disk is on fire"), shared_server(broken, tmp_path / "server"):
        pass
    assert not (tmp_path / "server").exists()
