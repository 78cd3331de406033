"""The options of commands that say which labels are kept: --thresholds, --categories, --min-area and --max-area.

Also the check of flags for one value that contradict each other.

Not here: what they mean (`tasks/store/thresholds.py` and `refseg_core/analysis/label_filter.py`).
"""

import functools
from collections.abc import Callable
from typing import Any

import click


class OneOfEach(click.Command):
    """A command that refuses two different flags for one value, of which Click takes the last."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the arguments. Raises UsageError for flags that contradict one another."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        given: dict[str | None, click.Parameter] = {}
        for parameter in order:
            first = given.setdefault(parameter.name, parameter)
            if first is not parameter:
                raise click.UsageError(f"{first.opts[0]} and {parameter.opts[0]} contradict each other; give one.", ctx)
        return super().parse_args(ctx, args)


_NAMES = ("thresholds", "categories", "min_area", "max_area")


def filter_options(default: str, *aliases: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options to a command, which gets them as `kept`, a `FilterOptions`.

    `default` says in the help what is kept without --thresholds; `aliases` are other names of that option.
    """
    options = [
        click.option(
            "--thresholds",
            *aliases,
            "thresholds",
            metavar="auto|FILE|SCORES",
            help="Keep instances of at least this score: auto (as `refseg thresholds` saved them), a json or YAML file "
            f"of names and scores, 0.4 for all, or car=0.39,window=0.26. Categories without a score: 0.5 by auto, "
            f"else as without the option. By default {default}.",
        ),
        click.option("--categories", metavar="NAMES", help="Keep only these categories, as boat,bird."),
        click.option("--min-area", metavar="AREA", help="Keep masks of at least 100 pixels, or 0.5% of the image."),
        click.option("--max-area", metavar="AREA", help="Keep masks of at most so many pixels, or 50% of the image."),
    ]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_filter(**given: Any) -> None:
            from tasks.store.thresholds import FilterOptions

            command(kept=FilterOptions(**{name: given.pop(name) for name in _NAMES}), **given)

        return functools.reduce(lambda inner, option: option(inner), reversed(options), with_filter)

    return add
