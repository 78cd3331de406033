"""The command `refseg review`: a page at which people decide on labels."""

import getpass
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options.kept_labels import filter_options
from flows.cli.options.numbers import WholeRange
from flows.cli.store import choose_labels
from flows.execution.stopping import when_stopped
from refseg_core.errors import counted
from refseg_core.settings.choices import ANNOTATION_FORMATS
from tasks.outputs.review import REVIEW_PORT
from tasks.storage.uris import redact

if TYPE_CHECKING:
    from refseg_core.datasets.dataset import Dataset

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
@click.option(
    "--port",
    type=WholeRange(0, 65535),
    default=REVIEW_PORT,
    show_default=True,
    help="Port on this machine; 0 takes a free one.",
)
@click.option(
    "--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser, if there is one."
)
@filter_options("the saved thresholds, or 0.5")
def serve(*, place: str, key: str | None, port: int, browser: bool, kept: Any) -> None:
    """Serve the page on this machine until Ctrl-C, and print its link.

    The most informative instances come first: near their threshold (--thresholds), overlapping, of odd sizes, or found
    by these labels only. Several people may review one store at once, here or each on a machine of their own.
    """
    when_stopped("every decision so far is kept")
    from flows.reports.review_report import report_review
    from flows.review.browser import open_in_browser
    from flows.review.opening import open_review
    from flows.terminal import progress_bars, results
    from tasks.store.store import Store
    from tasks.store.thresholds import shown_thresholds, threshold_note

    config = _load(place)
    run = choose_labels(Store(place if config is None else config.store), key)
    thresholds = kept.filter(run, shown_thresholds(run)).thresholds
    models = None if config is None else config.models
    with progress_bars():
        opened = open_review(run, thresholds, port=port, models=models)
    if kept.thresholds is None and (note := threshold_note(run)):
        results.print(note)
    index = opened.session.index
    if index.num_labeled < (total := len(index.dataset_images)):
        results.print(
            f"Labeled so far: {index.num_labeled:,} of {counted(total, 'image')}; a review after the run has them all."
        )
    results.print(f"Review of the labels {run.key}: {opened.link}")
    results.print("Everything is saved at once. Ctrl-C ends the server.")
    if browser and not open_in_browser(opened.link):
        results.print("No browser was found here: open the link in one on this machine, or through a tunnel to it.")
    with suppress(KeyboardInterrupt):
        opened.serve()
    report_review(opened.session)


def _load(place: str) -> Any:
    """Returns the configuration of a run's file, or None for a store."""
    from flows.config.loading import load_config

    return load_config(place) if place.endswith(_SUFFIXES) else None


@review.command("import")
@click.argument("place", metavar="STORE|CONFIG.yaml")
@click.argument("file", metavar="FILE")
@click.option(
    "--labels",
    "key",
    metavar="KEY",
    help="Labels that were exported; by default those that FILE names, else the newest.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", *ANNOTATION_FORMATS, "label-studio"]),
    default="auto",
    show_default=True,
    help="The file's format; 'label-studio' is Label Studio's JSON export, which has to be named.",
)
@click.option("--reviewer", metavar="NAME", help="Who corrected them; by default your user name.")
@click.option("--accept-rest", is_flag=True, help="What is unchanged in these images counts as accepted.")
@click.option("--dry-run", is_flag=True, help="Only show the changes.")
@filter_options("those of FILE.provenance, else the saved ones, else 0.5")
def import_corrections(
    *,
    place: str,
    file: str,
    key: str | None,
    form: str,
    reviewer: str | None,
    accept_rest: bool,
    dry_run: bool,
    kept: Any,
) -> None:
    """Bring corrections back that were made on an export in CVAT, Label Studio, labelme or another tool.

    FILE is a file or folder of any format that refseg reads. Its images are compared with the labels that the export
    held: what is missing was removed, what is new was added. FILE.provenance says which these are; where it is not
    there, give the export's --thresholds, or removed labels below these are not noticed. Of an export of boxes a mask
    stays where its box is unchanged; where it was moved or drawn, the segmenter makes another. Images that are not in
    FILE stay as they are. Everything comes back at once, and can be undone in the page.
    """
    when_stopped("nothing is brought back", "the same command starts again")
    from flows.reports.review_report import report_corrections
    from flows.review.importing import find_corrections
    from flows.review.opening import open_segmenting
    from flows.review.session import ReviewSession
    from flows.terminal import progress_bars
    from tasks.outputs.exports.origin import origin_of
    from tasks.outputs.review.instance_index import InstanceIndex
    from tasks.store.reviews import StoredReview
    from tasks.store.store import Store
    from tasks.store.thresholds import shown_thresholds

    config = _load(place)
    store, origin = Store(place if config is None else config.store), origin_of(file)
    run = choose_labels(store, key) if key is not None else origin.labels(store) or choose_labels(store, None)
    _tell_labels(run.key, file, origin.keys)
    images = run.recipe_or_error()["settings"]["images"]
    dataset, form = _read(images, file, form)
    exported = origin.filter(run, kept.filter(run, shown_thresholds(run)))
    with progress_bars():
        index = InstanceIndex(run, exported.filter.thresholds)
        session = ReviewSession(index, StoredReview.open(run))
        models = None if config is None else config.models
        segmenting = None if dry_run else open_segmenting(index, models)
        name = reviewer or getpass.getuser()
        found = find_corrections(session, dataset, name, exported, accepts_rest=accept_rest, segmenting=segmenting)
    if not dry_run:
        session.decide(*found.decisions, source=form)
        when_stopped("the corrections are kept", "`refseg review` shows them")
    report_corrections(found, is_kept=not dry_run)


def _tell_labels(key: str, file: str, named: frozenset[str]) -> None:
    """Says which labels a file is compared with, if it names any."""
    if named == {key}:
        click.echo(f"Labels {key}: those that {redact(file)} was exported from.", err=True)
    elif named:
        exported = " or ".join(sorted(named))
        click.echo(
            f"{redact(file)} was exported from the labels {exported}, and is compared with {key}, as --labels says: "
            "what its export left out is not known of these.",
            err=True,
        )


def _read(images: str, file: str, form: str) -> tuple["Dataset", str]:
    """Returns the annotations of a file or folder, and their format; `images`: the folder that was labeled."""
    from tasks.datasets.annotation_files import read_annotations
    from tasks.datasets.label_studio import FORMAT, read_label_studio
    from tasks.specs import DatasetSource
    from tasks.storage.whole_folders import holds_anything

    if form == FORMAT:
        return read_label_studio(file), FORMAT
    own, labels = (f"{file.rstrip('/')}/{name}" for name in ("images", "labels"))
    if holds_anything(own) and holds_anything(labels):  # YOLO's layout, where splits are folders
        images, file = own, labels
    read = read_annotations(DatasetSource.model_validate({"images": images, "annotations": file, "format": form}), None)
    return read.dataset, str(read.kind)
