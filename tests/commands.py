"""The command line as a user meets it, in this process: commands, what they answer, and what lies in a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import cli, pipeline
from flows.cli import main

_TASKS = (
    *("index_dataset", "sample_references", "segment_references", "fill_memory_bank", "postprocess_memory_bank"),
    *("plan_shards", "find_gone_labels", "evaluate"),
)
_FLOWS = ("run_pipeline", "build_bank", "label_targets", "evaluate_labels")


def refseg(*arguments: str | Path) -> Result:
    """Runs a command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


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
    return message


class _State:
    """What Prefect would say of a task that ran."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def is_completed(self) -> bool:
        return self.error is None

    def result(self, *, raise_on_failure: bool) -> Exception | None:
        assert not raise_on_failure
        return self.error


def without_prefect(patch: pytest.MonkeyPatch) -> None:
    """Has the pipeline call its flows and tasks as the functions they are made from: runs take milliseconds.

    Nothing is retried then. What Prefect adds is tested in `tests/test_pipeline.py`.
    """
    for name in (*_FLOWS, *_TASKS):
        patch.setattr(pipeline, name, getattr(pipeline, name).fn)
    patch.setattr(pipeline, "label_shard", _with_state(pipeline.label_shard.fn))
    for name, value in cli._PREFECT_DEFAULTS.items():
        patch.setenv(name, value)
    patch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/nobody/is/there")


def _with_state(task: Callable[..., Any]) -> Callable[..., _State]:
    def run(*arguments: Any, return_state: bool, **named: Any) -> _State:
        assert return_state
        try:
            task(*arguments, **named)
        except Exception as error:
            return _State(error)
        return _State(None)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
