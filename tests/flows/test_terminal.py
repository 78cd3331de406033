"""The output in the terminal: evaluations of every protocol, errors and progress."""

import logging
import re
import threading

import numpy as np
import pytest

from flows import terminal
from flows.errors import ShardsFailedError
from flows.reports.run_report import print_review
from flows.terminal import progress_lines, without_tracebacks
from refseg_core.errors import StoreError
from refseg_core.evaluation.diagnostics import Review
from refseg_core.settings import ProtocolName
from refseg_core.tables import Metrics
from tasks.runtime.progress import report


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
    log.error("afterwards", exc_info=reported[0])
    assert caplog.messages[-1] == "afterwards"


def test_where_no_terminal_is_the_step_at_work_has_a_line_now_and_again() -> None:
    shown: list[str] = []
    several = threading.Event()

    def show(line: str) -> None:
        shown.append(line)
        if [each[:8] for each in shown].count("label: 1") == 3:
            several.set()

    with progress_lines(show, seconds=0.01):
        report("bank", total=2)
        report("label", total=4, doing="waiting for images")
        report("label", advanced=1)
        assert several.wait(60), "lines come by themselves, though nothing more is reported"
    assert re.fullmatch(r"label: 1 of 4 after \d+ s; .+/s, \d+ s left; waiting for images for \d+ s", shown[-1])
    number = len(shown)
    report("label", advanced=1)
    assert len(shown) == number


def test_a_step_of_unknown_length_says_how_much_is_done() -> None:
    shown: list[str] = []
    seen = threading.Event()

    def show(line: str) -> None:
        shown.append(line)
        if "index" in line:  # the first one may come before the report
            seen.set()

    with progress_lines(show, seconds=0.01):
        report("index", advanced=7)
        assert seen.wait(60)
    assert re.fullmatch(r"index: 7 after \d+ s", shown[-1])


def test_before_the_first_report_a_line_says_that_work_is_going_on() -> None:
    shown: list[str] = []
    seen = threading.Event()

    def show(line: str) -> None:
        shown.append(line)
        seen.set()

    with progress_lines(show, seconds=0.01):
        assert seen.wait(60)
    assert re.fullmatch(r"working for \d+ s", shown[0])
