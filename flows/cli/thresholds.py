"""`refseg thresholds`: from which score on the labels of each category are worth keeping.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

from pathlib import Path

import click

from flows.cli.options.numbers import FiniteRange
from flows.cli.store import choose_labels
from flows.execution.stopping import when_stopped


@click.command()
@click.argument("store_uri", metavar="STORE")
@click.option("--labels", "key", metavar="KEY", help="Labels to use; by default the newest of a run.")
@click.option(
    "--precision",
    type=FiniteRange(0, 1, min_open=True),
    help="Propose the lowest score at which so large a share of the labels is right, as 0.9. By default the score of "
    "the best F1, the harmonic mean of precision and recall.",
)
@click.option("--out", default="thresholds", show_default=True, help="Folder for thresholds.png and thresholds.yaml.")
def thresholds(store_uri: str, key: str | None, precision: float | None, out: str) -> None:
    """Propose a score threshold for each category, and save them in the store.

    They come from ground truth where the labeled images have some, for other categories from what people decided in
    `refseg review`, else from the references themselves. `refseg show`, `evaluate` and the Prefect UI then use them;
    `--thresholds auto` makes other commands do so. The last saved ones count; thresholds.yaml is for editing, and
    `--thresholds FILE` reads it.
    """
    when_stopped("no thresholds are saved", "the same command starts again")
    from flows.reports.threshold_report import report_thresholds
    from flows.terminal import progress_bars
    from tasks.outputs.propose_thresholds import propose_thresholds
    from tasks.store.store import Store

    run = choose_labels(Store(store_uri), key)
    with progress_bars():
        artifact = propose_thresholds(run, precision)
    when_stopped("the thresholds are saved", f"the same command writes them to {out}")
    report_thresholds(run, artifact, Path(out), precision)
