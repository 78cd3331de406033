"""Text from users, datasets and libraries as Markdown that shows it as it stands."""

import re
from collections.abc import Iterable

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$&:@])")
_BACKTICKS = re.compile("`+")


def escaped(text: str) -> str:
    """Returns the text in one line, nothing of it taken for markup."""
    return _SPECIAL.sub(r"\\\1", _one_line(text))


def code(text: str) -> str:
    """Returns the text in one line of typewriter, nothing of it taken for markup."""
    line = _one_line(text).replace("|", "\\|")  # these stand in tables, where even within code a bar ends a cell
    fence = "`" * (max((len(found) for found in _BACKTICKS.findall(line)), default=0) + 1)
    padding = " " if len(fence) > 1 else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def two_columns(rows: Iterable[tuple[str, str]]) -> str:
    """Returns a table of names and values, both Markdown already, without a header."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _one_line(text: str) -> str:
    return " ".join(text.split())
