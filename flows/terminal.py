"""Output in the terminal: consoles, progress bars and short errors. Results go to stdout, the rest to stderr."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.table import Column, Table
from rich.text import Text

from flows.errors import RunFailedError
from refseg_core.errors import RefsegError
from tasks.runtime import progress
from tasks.storage.retry import is_transient_error

# Names come from users, so that rich's markup in them is shown literally.
results = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160
)
messages = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

_SECONDS_BETWEEN_LINES = 25.0


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """Returns a table whose first column is aligned to the left and the others to the right."""
    first, *others = header
    table = Table(first, *(Column(name, justify="right") for name in others), title=title)
    for row in rows:
        table.add_row(*row)
    return table


class _Speed(ProgressColumn):
    """Units a second since the step began."""

    def render(self, task: Bar) -> Text:
        return Text(f"{task.completed / task.elapsed:.3g}/s" if task.elapsed else "", style="dim")


@contextmanager
def progress_bars() -> Iterator[None]:
    """Shows a bar for every step that reports progress; without a terminal, a line every 25 seconds."""
    with _bars() if messages.is_terminal else progress_lines(messages.print):
        yield


@contextmanager
def progress_lines(show: Callable[[str], None], *, seconds: float = _SECONDS_BETWEEN_LINES) -> Iterator[None]:
    """Shows a line about the active step at intervals, even if nothing was reported."""
    latest: dict[str, _Line] = {}

    def listen(report: progress.Progress) -> None:
        line = latest.pop(report.step, None) or _Line(report.step)
        line.update(report)
        latest[report.step] = line  # the last one is active

    def show_periodically() -> None:
        while not ended.wait(seconds):
            show(str(list(latest.values())[-1]) if latest else f"working for {time.monotonic() - began:.0f} s")

    began = time.monotonic()
    ended = threading.Event()
    thread = threading.Thread(target=show_periodically, name="progress lines", daemon=True)
    with progress.listening(listen):
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Line:
    """The progress of a step as text."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._began = self._doing_since = time.monotonic()
        self._done, self._total, self._doing = 0, 0, ""

    def update(self, report: progress.Progress) -> None:
        self._done += report.advanced
        self._total += report.total or 0
        if report.doing is not None:
            self._doing, self._doing_since = report.doing, time.monotonic()

    def __str__(self) -> str:
        now = time.monotonic()
        of_total = f" of {self._total}" if self._total else ""
        parts = [f"{self._step}: {self._done}{of_total} after {now - self._began:.0f} s"]
        if 0 < self._done < self._total:
            speed = self._done / (now - self._began)
            parts.append(f"{speed:.3g}/s, {(self._total - self._done) / speed:.0f} s left")
        if self._doing:
            parts.append(f"{self._doing} for {now - self._doing_since:.0f} s")
        return "; ".join(parts)


@contextmanager
def _bars() -> Iterator[None]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages) as bars:
        bar_of: dict[str, int] = {}

        def listen(report: progress.Progress) -> None:
            if report.step not in bar_of:
                bar_of[report.step] = bars.add_task(report.step, total=None)
            bar = bars.tasks[bar_of[report.step]]
            total = bar.total if report.total is None else (bar.completed + report.total)
            doing = bar.description if report.doing is None else f"{report.step}: {report.doing}"
            bars.update(bar.id, total=total, advance=report.advanced, description=doing)

        with progress.listening(listen):
            yield


@contextmanager
def without_tracebacks() -> Iterator[None]:
    """Suppresses Prefect's tracebacks of errors that the command line reports in a line; those of bugs are shown."""
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(_is_unreported)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_unreported)


def _is_unreported(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    is_reported = isinstance(error, RefsegError | RunFailedError) or (error is not None and is_transient_error(error))
    return not (is_reported and record.name.startswith("prefect."))
