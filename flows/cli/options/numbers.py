"""Types of numeric options: bounds as Click's own have, and no text that only Python takes for a number, as 1_0."""

import math
from collections.abc import Callable
from typing import Any

import click

from refseg_core.errors import brief
from refseg_core.settings.numbers import to_float, to_int


class FiniteRange(click.FloatRange):
    """A number within bounds, and no infinite one, nor none at all, which Click itself lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number. Fails as Click's types do."""
        given = _plain(self, value, to_float, what="number", param=param, ctx=ctx)
        number: float = super().convert(given, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{brief(value)} is not a finite number.", param, ctx)
        return number


class WholeRange(click.IntRange):
    """A whole number within bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the number. Fails as Click's types do."""
        given = _plain(self, value, to_int, what="whole number", param=param, ctx=ctx)
        number: int = super().convert(given, param, ctx)
        return number


def _plain(
    kind: click.ParamType[Any],
    value: Any,
    read: Callable[[str], float],
    *,
    what: str,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> Any:
    """Returns a value, text as the number that it is."""
    try:
        return read(value) if isinstance(value, str) else value
    except ValueError:
        kind.fail(f"{brief(value)} is not a {what}.", param, ctx)
