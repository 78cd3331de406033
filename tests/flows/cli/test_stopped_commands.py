"""Every command that a signal stops ends with one line: what is kept, and how to go on. No traceback, no "Aborted!"."""

import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows.cli.main import main
from flows.errors import RunFailedError
from flows.execution import stopping
from refseg_core.errors import StoreError

_GOES_ON = "what is finished is kept; the same command goes on."
_SAME = "nothing is changed; the same command starts again."
_ANEW = "nothing is saved; the same command measures again."
_SAID = {
    "run run.yaml": _GOES_ON,
    "label run.yaml": _GOES_ON,
    "index run.yaml": _GOES_ON,
    "pilot run.yaml": _GOES_ON,
    "study run.yaml": _GOES_ON,
    "references run.yaml": _GOES_ON,
    "bank run.yaml": _GOES_ON,
    "bank run.yaml --drop 7": "changes made so far are kept; `refseg bank run.yaml` lists them and goes on.",
    "evaluate run.yaml": "no metrics are saved; the same command starts again.",
    "thresholds store": "no thresholds are saved; the same command starts again.",
    "export store --out o.json": "the export to o.json is not finished; the same command writes it from the beginning.",
    "show store --out pictures": "pictures drawn so far are in pictures; the same command draws all of them.",
    "status store": _SAME,
    "verify store": _SAME,
    "gc store": _SAME,
    "gc store --yes": "what was removed so far is gone; the same command removes the rest.",
    "review store": "every decision so far is kept; the same command goes on.",
    "review import store file": "nothing is brought back; the same command starts again.",
    "bench": _ANEW,
    "bench scale": _ANEW,
    "bench accuracy --config run.yaml": _GOES_ON,
    "benchmark coco-tiny --data data": _GOES_ON,
    "weights pull sam2_hiera_tiny": "what is downloaded is kept; the same command goes on.",
    "service up": "what was started has ended; the same command starts it again.",
    "service down": "parts may still run; the same command ends them.",
    "service status": _SAME,
}
_FIRST_CALLS = (
    "flows.cli.options.config_file.load_config",
    "flows.cli.bench_accuracy.load_config",
    "flows.cli.bench.made_folder",
    "flows.benchmarks.run.plan_benchmark",
    "flows.reports.run_report.pull_with_bar",
    "flows.local_stack.lifecycle.running_stack",
    "flows.local_stack.lifecycle.take_down",
    "flows.local_stack.state_folder.ServiceFolder.read_state",
    "tasks.store.store.Store.__init__",
)
"""What commands call before they do anything."""


def _stopped(command: str, then: BaseException | None, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A command that SIGTERM stops at its first call, where the interrupt then becomes another error."""

    def stop(*_: Any, **__: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            if then is None:
                raise
            raise then from None

    for place in _FIRST_CALLS:
        monkeypatch.setattr(place, stop)
    return CliRunner().invoke(main, command.split())


@pytest.mark.parametrize("command", _SAID)
def test_a_stopped_command_says_what_is_kept_and_how_to_go_on(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _stopped(command, None, monkeypatch)
    assert (result.output, result.exit_code) == (f"Stopped: {_SAID[command]}\n", 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    "error", [StoreError("half"), RunFailedError("half"), TimeoutError("half"), ValueError("half")]
)
def test_whatever_an_interrupt_becomes_on_its_way_the_command_was_stopped(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _stopped("verify store", error, monkeypatch)
    assert (result.output, result.exit_code) == (f"Stopped: {_SAME}\n", 128 + signal.SIGTERM)


def test_a_second_signal_says_that_it_ends_the_command_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stopping, "_SAME_SECONDS", 0)
    monkeypatch.setattr(stopping.os, "_exit", lambda _: None)
    with pytest.raises(KeyboardInterrupt), stopping.stopped_by_signals():
        stopping.when_stopped("the first half is kept", "the same command makes the second")
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == (
        "Ended at once: what was saved before is kept; the same command makes the second.\n"
    )


def test_a_line_that_nobody_can_read_any_more_does_not_keep_a_second_signal_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(stopping, "_SAME_SECONDS", 0)
    monkeypatch.setattr(stopping.os, "_exit", codes.append)
    monkeypatch.setattr(stopping.sys, "stderr", None)
    with pytest.raises(KeyboardInterrupt), stopping.stopped_by_signals():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert codes == [128 + signal.SIGTERM]
