"""The parts of a stack as a table for people."""

import time
from collections.abc import Sequence

from rich.table import Table

from flows.local_stack.state_folder import PartState
from flows.terminal import results

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def print_parts(parts: Sequence[PartState]) -> None:
    """One line for each part."""
    table = Table("part", "state", "pid", "since", "restarts", "port", "log")
    for part in parts:
        table.add_row(
            part.name,
            part.state,
            _or_dash(part.pid),
            f"{_duration(time.time() - part.since)} ago",
            str(part.restarts),
            _or_dash(part.port),
            _or_dash(part.log),
        )
    results.print(table)


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _duration(seconds: float) -> str:
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
