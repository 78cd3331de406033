"""The command `refseg review`: a page at which people decide on labels."""

from typing import Any

import click

from flows.cli.filter_options import filter_options
from flows.cli.store import choose_labels

_SUFFIXES = (".yaml", ".yml")


class _ServingByDefault(click.Group):
    """Takes `refseg review STORE` for `refseg review serve STORE`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Puts the command's name before its arguments, unless help or a command is asked for."""
        if args and args[0] not in (*self.commands, *context.help_option_names):
            args = ["serve", *args]
        return super().parse_args(context, args)


@click.group(cls=_ServingByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def review() -> None:
    """Check labels in a browser: `refseg review STORE`, or with a run's file to draw missed objects, too.

    Decisions are kept in the store. Exports and evaluations apply them, and labels made later keep them.
    """


@review.command()
@click.argument("place", metavar="STORE|CONFIG.yaml")
@click.option("--labels", "key", metavar="KEY", help="Labels to review; by default the newest of a run.")
@click.option("--port", default=8100, show_default=True, help="Port on this machine; 0 takes a free one.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
@filter_options("the saved thresholds, or 0.5")
def serve(*, place: str, key: str | None, port: int, browser: bool, kept: Any) -> None:
    """Serve the page on this machine until Ctrl-C, and print its link.

    The most informative instances come first: near their threshold (--thresholds), overlapping, of odd sizes, or found
    by these labels only. Several people may review one store at once, here or each on a machine of their own.
    """
    from flows.review.opening import open_review
    from flows.terminal import progress_bars, results
    from tasks.store.store import Store
    from tasks.store.thresholds import shown_thresholds

    config = _load(place)
    run = choose_labels(Store(place if config is None else config.store), key)
    thresholds = kept.filter(run, shown_thresholds(run)).thresholds
    model = {} if config is None else {"segmenter": config.segmenter, "device": config.device}
    with progress_bars():
        opened = open_review(run, thresholds, port=port, **model)
    results.print(f"Review of the labels {run.key}: {opened.link}")
    results.print("Everything is saved at once. Ctrl-C ends the server.")
    if browser:
        click.launch(opened.link)
    opened.serve()


def _load(place: str) -> Any:
    """Returns the configuration of a run's file, or None for a store."""
    from flows.config.loading import load_config

    return load_config(place) if place.endswith(_SUFFIXES) else None
