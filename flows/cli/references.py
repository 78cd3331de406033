"""`refseg references`: how good the references are, before images are labeled by them.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

from pathlib import Path

import click

from flows.cli.options.config_file import config_flags, load_with_flags
from flows.run import checked_session


@click.command()
@click.option("--out", default="reference-sheets", show_default=True, help="Folder for a sheet of each category.")
@config_flags
def references(config_file: str, out: str, **flags: str | None) -> None:
    """Compare the references with one another, and draw them.

    Each is compared with the mean of the others of its category, and with the nearest other category: one that is
    nearer to the other, or unlike the others of its own, is named with advice. They are sampled, segmented and encoded
    first where the store does not hold them; images are not labeled. The table is saved in the store.
    """
    config = load_with_flags(config_file, flags)
    with checked_session(config):
        from flows.pipeline import make_bank

        prototypes = make_bank(config)
    from flows.reports.reference_report import report_references

    report_references(config.store, prototypes, Path(out))
