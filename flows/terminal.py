"""Output in the terminal: consoles, progress bars and short errors. Results go to stdout, the rest to stderr."""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.table import Column, Table
from rich.text import Text

from flows.errors import RunFailedError
from flows.execution.stopping import stopping_signal
from refseg_core.errors import RefsegError, printable
from tasks.outputs.prefect_ui.throughput import duration
from tasks.runtime import progress
from tasks.runtime.cancellation import StoppedError
from tasks.storage.retry import is_transient_error


class _SafeConsole(Console):
    """Shows what may steer a terminal escaped, since names come from users."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a text as it is shown."""
        return super().render_str(printable(text, kept="\n\t"), **options)


# Names come from users, so that rich's markup in them is shown literally.
results = _SafeConsole(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160
)
messages = _SafeConsole(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

SECONDS_BETWEEN_LINES = 30.0
_ENDED_BY_SIGNAL = "Crash detected! Execution was aborted by"  # said by Prefect once for each flow
_FAILED = re.compile(r"Finished in state \w+\(.(?:Task|Flow) run encountered an exception:? (\w+):")


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
    """Shows a bar for every step that reports progress; without a terminal, a line every 30 seconds."""
    with _bars() if messages.is_terminal else progress_lines(messages.print):
        yield


@contextmanager
def progress_lines(show: Callable[[str], None], *, seconds: float = SECONDS_BETWEEN_LINES) -> Iterator[None]:
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

    def __init__(self, step: progress.ProgressStep) -> None:
        self._step = step
        self._began = self._doing_since = time.monotonic()
        self._done, self._total, self._doing = 0, 0, ""
        self._unsaved = 0

    def update(self, report: progress.Progress) -> None:
        self._done += report.advanced
        self._total += report.total or 0
        self._unsaved += report.unsaved
        if report.doing is not None:
            self._doing, self._doing_since = report.doing, time.monotonic()

    @property
    def unsaved(self) -> str:
        """How much of what is done is not yet saved."""
        number = self._done if self._step.is_saved_at_end and self._done < self._total else self._unsaved
        return f"{number:,} not yet saved" if number else ""

    @property
    def description(self) -> str:
        """The step, and what is being done."""
        return f"{self._step}: {self._doing}" if self._doing else self._step

    def __str__(self) -> str:
        now = time.monotonic()
        of_total = f" of {self._total:,}" if self._total else ""
        parts = [f"{self._step}: {self._done:,}{of_total} {self._step.unit} after {duration(now - self._began)}"]
        if self.unsaved:
            parts[0] += f" ({self.unsaved})"
        if 0 < self._done < self._total:
            speed = self._done / (now - self._began)
            parts.append(f"{speed:.3g} {self._step.unit}/s, {duration((self._total - self._done) / speed)} left")
        if self._doing:
            parts.append(f"{self._doing} for {duration(now - self._doing_since)}")
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
        TextColumn("{task.fields[unsaved]}"),
    )
    with Progress(*columns, console=messages) as bars:
        bar_of: dict[str, tuple[TaskID, _Line]] = {}

        def listen(report: progress.Progress) -> None:
            if report.step not in bar_of:
                bar_of[report.step] = bars.add_task(report.step, total=None, unsaved=""), _Line(report.step)
            number, line = bar_of[report.step]
            line.update(report)
            bar = bars.tasks[number]
            total = bar.total if report.total is None else (bar.completed + report.total)
            bars.update(
                number, total=total, advance=report.advanced, description=line.description, unsaved=line.unsaved
            )

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
    if error is None:
        said = record.getMessage()
        failed = _FAILED.search(said)
        is_ours = failed is not None and failed[1] in set(_names_below(RefsegError, RunFailedError))
        is_reported = is_ours or stopping_signal() is not None or said.startswith(_ENDED_BY_SIGNAL)
    else:
        is_reported = isinstance(error, RefsegError | RunFailedError | StoppedError) or is_transient_error(error)
    return not (is_reported and record.name.startswith("prefect."))


def _names_below(*errors: type[Exception]) -> Iterator[str]:
    """Yields the names of these classes and of all that are derived from them."""
    for error in errors:
        yield error.__name__
        yield from _names_below(*error.__subclasses__())
