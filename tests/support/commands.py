"""The command line as a user meets it, in this process or one of its own: commands and what they answer."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli.main import main
from flows.run import PREFECT_SETTINGS
from tests.support.counts import count
from tests.support.projects.without_prefect import call_without_prefect

_PROGRAM = "import sys; sys.argv[0] = 'refseg'; from flows.cli.program import main; main()"


def refseg(*arguments: str | Path) -> Result:
    """Runs a command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refseg_process(*arguments: str | Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, which has just these variables."""
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=300,
    )


def done(result: Result) -> str:
    """What a command said that ended well."""
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(result: Result) -> str:
    """The one message of a command that could not do what it was asked to: exit code 2, and no traceback."""
    assert isinstance(result.exception, SystemExit), (result.output, repr(result.exception))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    message = str(result.stderr)
    assert [line.startswith("Error: ") for line in message.splitlines()].count(True) == 1, message
    count("bad input: cases that one clear message answers")
    return message


def without_prefect(patch: pytest.MonkeyPatch) -> None:
    """Has commands call the pipeline as plain functions, and never start a server of Prefect's."""
    call_without_prefect(patch)
    for name, value in PREFECT_SETTINGS.items():
        patch.setenv(name, value)
    patch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/nobody/is/there")
    patch.setattr("flows.run.check_prefect", lambda: None)
    patch.setattr("flows.execution.temporary_server.start_temporary_server", lambda: None)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
