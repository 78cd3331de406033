"""The output in the terminal: evaluations of every protocol, errors and progress."""

import io
import logging
import re
import threading
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from flows import terminal
from flows.errors import ShardsFailedError
from flows.reports.run_report import print_review
from flows.terminal import progress_lines, without_tracebacks
from refseg_core.errors import StoreError
from refseg_core.evaluation.diagnostics import Review
from refseg_core.settings import ProtocolName
from refseg_core.tables import Metrics
from tasks.runtime.progress import ProgressStep, report


def metrics_of(num_categories: int, iou_type: str, metric: str) -> Metrics:
    ids = [None, *range(num_categories)]
    return Metrics(
        iou_type=np.array([iou_type] * len(ids), dtype=object),
        metric=np.array([metric] * len(ids), dtype=object),
        category_id=np.array(ids, dtype=object),
        category_name=np.array([None if one is None else f"name {one}" for one in ids], dtype=object),
        num_instances=np.ones(len(ids)),
        value=np.full(len(ids), 0.25),
    )


@pytest.mark.parametrize(
    ("protocol", "iou_type", "metric", "shown"),
    [
        ("coco", "bbox", "AP", ["COCO's protocol", "bbox", "AP"]),
        ("lvis", "segm", "APr", ["LVIS's protocol", "segm", "APr"]),
        ("semantic", "semantic", "mIoU", ["pixel by pixel", "semantic", "mIoU"]),
    ],
)
def test_the_protocol_and_its_numbers_are_shown(
    protocol: ProtocolName, iou_type: str, metric: str, shown: list[str]
) -> None:
    with terminal.results.capture() as captured:
        print_review(Review(metrics_of(2, iou_type, metric)), protocol)
    assert all(part in captured.get() for part in (*shown, "0.250", "By category", "name 1"))


def test_more_categories_than_one_reads_are_left_to_the_file() -> None:
    with terminal.results.capture() as captured:
        print_review(Review(metrics_of(1203, "segm", "AP")), "lvis")
    assert "By category: 1203, in the file below" in captured.get()
    assert "name 1" not in captured.get()


def test_errors_that_the_command_line_reports_have_no_traceback_of_prefect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reported = [StoreError("denied"), ShardsFailedError("three"), ConnectionResetError("reset")]
    log = logging.getLogger("prefect.task_runs")
    with without_tracebacks():
        for error in (*reported, ZeroDivisionError("a bug")):
            log.error("%r", error, exc_info=error)
        log.error("finished as failed")
        logging.getLogger("elsewhere").error("our own", exc_info=reported[0])
    assert caplog.messages == ["ZeroDivisionError('a bug')", "finished as failed", "our own"]
    with without_tracebacks():
        log.error("Task run 'evaluate' - Finished in state Failed('Task run encountered an exception StoreError: no')")
        log.error('Finished in state Failed("Flow run encountered an exception: ShardsFailedError: three")')
        log.error("Crash detected! Execution was aborted by a termination signal.")
        log.error("Finished in state Failed('Task run encountered an exception ZeroDivisionError: a bug')")
        log.error("Crash detected! The disk is full.")
    assert [message[-8:] for message in caplog.messages[-2:]] == [" a bug')", "is full."]
    log.error("afterwards", exc_info=reported[0])
    assert caplog.messages[-1] == "afterwards"


def _lines_until(expected: str, reports: Callable[[], None]) -> list[str]:
    """The lines up to the third that begins so, while nothing more is reported."""
    shown: list[str] = []
    several = threading.Event()

    def show(line: str) -> None:
        shown.append(line)
        if [each.startswith(expected) for each in shown].count(True) == 3:
            several.set()

    with progress_lines(show, seconds=0.01):
        reports()
        assert several.wait(60), shown
    return shown


def test_where_no_terminal_is_the_step_at_work_has_a_line_now_and_again() -> None:
    def reports() -> None:
        report(ProgressStep.FILL_MEMORY_BANK, total=2)
        report(ProgressStep.LABEL, total=4000, doing="waiting for images")
        report(ProgressStep.LABEL, advanced=1000)

    shown = _lines_until("label: 1,000", reports)
    assert re.fullmatch(
        r"label: 1,000 of 4,000 images after \d+ s; .+ images/s, \d+ s left; waiting for images for \d+ s", shown[-1]
    )
    number = len(shown)
    report(ProgressStep.LABEL, advanced=1)
    assert len(shown) == number


def test_images_that_would_be_lost_with_the_process_are_said_not_to_be_saved() -> None:
    def label(unsaved: int) -> Callable[[], None]:
        def reports() -> None:
            report(ProgressStep.LABEL, advanced=3, unsaved=3)
            report(ProgressStep.LABEL, advanced=3, unsaved=unsaved)

        return reports

    assert re.match(r"label: 6 images after \d+ s \(1 not yet saved\)$", _lines_until("label: 6", label(-2))[-1])
    assert re.match(r"label: 6 images after \d+ s$", _lines_until("label: 6", label(-3))[-1])


def test_steps_that_are_saved_as_a_whole_say_so_until_they_are_done() -> None:
    def encode(number: int) -> Callable[[], None]:
        return lambda: report(ProgressStep.FILL_MEMORY_BANK, total=4, advanced=number)

    begun, ended = "fill memory bank: 3 of 4 references", "fill memory bank: 4 of 4 references"
    assert "(3 not yet saved)" in _lines_until(begun, encode(3))[-1]
    assert "saved" not in _lines_until(ended, encode(4))[-1]


def test_bars_say_what_is_not_saved_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    monkeypatch.setattr(terminal, "messages", console)
    with terminal.progress_bars():
        report(ProgressStep.LABEL, total=4)
        report(ProgressStep.LABEL, advanced=3, unsaved=3)
        report(ProgressStep.LABEL, unsaved=-1)
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().rpartition("label")[2]
    assert "3/4" in last
    assert "2 not yet saved" in last


def test_a_step_of_unknown_length_says_how_much_is_done() -> None:
    shown = _lines_until("look at shards", lambda: report(ProgressStep.READ_STATUS, advanced=7))
    assert re.fullmatch(r"look at shards: 7 images after \d+ s", shown[-1])


def test_before_the_first_report_a_line_says_that_work_is_going_on() -> None:
    shown: list[str] = []
    seen = threading.Event()

    def show(line: str) -> None:
        shown.append(line)
        seen.set()

    with progress_lines(show, seconds=0.01):
        assert seen.wait(60)
    assert re.fullmatch(r"working for \d+ s", shown[0])


def test_what_would_steer_a_terminal_is_shown_escaped() -> None:
    with terminal.results.capture() as captured:
        terminal.results.print("a\x1b[2Jb\nc\udcff")
        terminal.results.print(terminal.text_table(["name"], [["d\x9b1m"]]))
    assert "a\\x1b[2Jb\nc\\udcff\n" in captured.get()
    assert "d\\x9b1m" in captured.get()
