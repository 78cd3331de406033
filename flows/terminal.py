"""What people see in a terminal: progress bars, tables and errors. Results go to stdout, everything else to stderr."""

import logging
import sys
from collections.abc import Iterator
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
from rich.text import Text

from flows.errors import RunFailedError
from refseg_core.errors import RefsegError
from tasks.runtime import progress
from tasks.storage.retry import may_pass

# Names come from users: what looks like rich's markup in them is shown as it stands.
results = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160
)
messages = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


class _Speed(ProgressColumn):
    """Units a second since the step began."""

    def render(self, task: Bar) -> Text:
        return Text(f"{task.completed / task.elapsed:.3g}/s" if task.elapsed else "", style="dim")


@contextmanager
def progress_bars() -> Iterator[None]:
    """Within the block every step that reports its progress has a bar."""
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

        def listen(heard: progress.Progress) -> None:
            if heard.step not in bar_of:
                bar_of[heard.step] = bars.add_task(heard.step, total=None)
            bar = bars.tasks[bar_of[heard.step]]
            total = bar.total if heard.total is None else (bar.completed + heard.total)
            bars.update(bar.id, total=total, advance=heard.advanced)

        with progress.listening(listen):
            yield


@contextmanager
def one_line_faults() -> Iterator[None]:
    """Within the block Prefect shows no traceback of what the command line tells in a line; of bugs it does."""
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(_is_news)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    is_told = isinstance(error, RefsegError | RunFailedError) or (error is not None and may_pass(error))
    return not (is_told and record.name.startswith("prefect."))
