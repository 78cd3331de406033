"""`refseg pilot`: labels some images that tell most, and shows them on one page.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

from typing import TYPE_CHECKING

import click

from flows.cli.options.config_file import config_flags, load_with_flags, typed_with_flags
from flows.cli.options.kept_labels import filter_options
from flows.cli.options.numbers import WholeRange
from flows.run import checked_session
from tasks.storage.uris import redact

if TYPE_CHECKING:
    from tasks.store.thresholds import FilterOptions


@click.command()
@click.option(
    "--images",
    "number",
    type=WholeRange(1),
    help="Images to label. By default those of the last pilot, whatever their number; 50 in the first one.",
)
@click.option(
    "--candidates",
    type=WholeRange(1),
    help="Images to choose them from, drawn by seed; each costs a pass of the encoder. By default as in the last "
    "pilot of as many images, else four for each.",
)
@click.option(
    "--seed",
    type=WholeRange(0),
    help="Seed of candidates and choice. By default the last pilot's; 33 in the first.",
)
@click.option("--new", "is_new", is_flag=True, help="Choose the images again. Else those of the last pilot are taken.")
@click.option("--out", default="pilot", show_default=True, help="Folder or prefix for pilot.html.")
@filter_options("those that `refseg thresholds` saved, else 0.5")
@config_flags
def pilot(
    *,
    config_file: str,
    number: int | None,
    candidates: int | None,
    seed: int | None,
    is_new: bool,
    out: str,
    kept: "FilterOptions",
    **flags: str | None,
) -> None:
    """Label some images that tell most about the references, and show them on one page.

    The images are chosen once: spread over groups that look alike, and over those that probably show each category and
    those that probably do not. While references and settings change they stay the same, also without --images; another
    number, other --candidates or another --seed choose others. Labels of a pilot are kept apart from those of a run,
    which takes them over.
    """
    config = load_with_flags(config_file, flags)
    with checked_session(config):
        from flows.terminal import messages
        from flows.trials.pilot import run_pilot
        from tasks.models.pilot_images import PilotWish
        from tasks.outputs.pilot_page import write_pilot_page
        from tasks.store.label_store import StoredLabels
        from tasks.store.store import Store
        from tasks.store.thresholds import shown_thresholds

        made = run_pilot(config, PilotWish(number, candidates, seed, is_new), messages.print)
        store, plan = Store(config.store), made.result.plan
        run = StoredLabels(store, plan.key)
        shown = kept.filter(run, shown_thresholds(run))
        page = write_pilot_page(store, plan.key, out, chosen=made.chosen.images, dataset=plan.dataset, kept=shown)
    from flows.reports.run_report import report_pilot

    given = typed_with_flags(config_file, flags)
    again = f"refseg pilot {given} --images {made.chosen.number}"
    report_pilot(config.store, given, plan, made.result.metrics, redact(page), again=again)
