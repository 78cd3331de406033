"""What is said where the server of a command does not start, or ends before the command does."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.errors import RunFailedError
from flows.execution.temporary_server import TemporaryServer, start_temporary_server
from refseg_core.errors import StoreError

_LOG = "ERROR:  Traceback\n  File x.py\nsqlite3.OperationalError: disk I/O error\n\nERROR:  startup failed. Exiting.\n"


@contextmanager
def _ended(log: str) -> Iterator[TemporaryServer]:
    program = "import sys; sys.stderr.write(sys.argv[1]); sys.exit(3)"
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen([sys.executable, "-S", "-c", program, log], stderr=file)
        process.wait()
        yield TemporaryServer(process, file)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (_LOG, "; the last of its log: sqlite3.OperationalError: disk I/O error"),
        ("a\nKilled\n\n", "; the last of its log: Killed"),
        ("", ""),
    ],
)
def test_a_command_says_that_its_server_has_ended_and_the_last_error_that_it_wrote(log: str, said: str) -> None:
    with _ended(log) as server:
        with pytest.raises(RunFailedError) as raised, server.explaining_its_end():
            raise ConnectionError("All connection attempts failed")
        assert f"ended with exit code 3{said}. Finished work is kept" in str(raised.value)
        with pytest.raises(StoreError), server.explaining_its_end():
            raise StoreError("an error of another cause")


def test_errors_of_a_command_whose_server_is_alive_stay_as_they_are() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    with tempfile.TemporaryFile() as log, process:
        with pytest.raises(ConnectionError), TemporaryServer(process, log).explaining_its_end():
            raise ConnectionError
        process.kill()


@pytest.mark.slow
def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////none/such.db")
    with pytest.raises(RunFailedError, match=r"did not start and ended; the last of its log: .*unable to open"):
        start_temporary_server()
