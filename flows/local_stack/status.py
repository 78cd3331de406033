"""Prints the parts of a stack as a table."""

import time
from collections.abc import Sequence

from rich.table import Table

from flows.local_stack.state_folder import PartState
from flows.terminal import results
from tasks.outputs.prefect_ui.throughput import duration


def print_parts(parts: Sequence[PartState]) -> None:
    """Prints one line per part."""
    table = Table("part", "state", "pid", "since", "restarts", "port", "log")
    for part in parts:
        table.add_row(
            part.name,
            part.state,
            _or_dash(part.pid),
            f"{duration(max(time.time() - part.since, 0))} ago",
            str(part.restarts),
            _or_dash(part.port),
            _or_dash(part.log),
        )
    results.print(table)


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
