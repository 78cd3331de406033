"""What people see in a terminal: progress bars, tables and errors. Results go to stdout, everything else to stderr."""

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
from rich.table import Table as TextTable
from rich.text import Text

from refseg_core.tables import Metrics
from tasks import progress

results = Console(highlight=False, soft_wrap=True)
messages = Console(stderr=True, highlight=False, soft_wrap=True)

_SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


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


def print_metrics(metrics: Metrics) -> None:
    """The evaluation: all categories together, then each."""
    value = {
        (iou_type, metric, category): number
        for iou_type, metric, category, number in zip(
            metrics.iou_type, metrics.metric, metrics.category_name, metrics.value.tolist(), strict=True
        )
    }
    iou_types = sorted(set(metrics.iou_type), key=str)
    overall = TextTable("metric", *iou_types, title="All categories")
    for metric in _SUMMARY:
        overall.add_row(metric, *(_percent(value.get((iou_type, metric, None))) for iou_type in iou_types))
    by_category = TextTable("category", "instances", *(f"{kind} AP" for kind in iou_types), title="By category")
    instances = {
        name: number
        for name, number in zip(metrics.category_name, metrics.num_instances.tolist(), strict=True)
        if name is not None
    }
    for name, number in instances.items():
        numbers = (_percent(value.get((iou_type, "AP", name))) for iou_type in iou_types)
        by_category.add_row(name, str(number), *numbers)
    for table in (overall, by_category):
        for column in table.columns[1:]:
            column.justify = "right"
        results.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"
