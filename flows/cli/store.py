"""The commands that read or clean a store; they need only its location.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from flows.cli.options.kept_labels import filter_options
from flows.cli.options.numbers import FiniteRange, WholeRange
from flows.execution.stopping import when_stopped
from refseg_core.errors import counted
from tasks.storage.uris import redact

if TYPE_CHECKING:
    from tasks.store.label_store import StoredLabels
    from tasks.store.store import Artifact, Store
    from tasks.store.thresholds import FilterOptions

_FAILURE = 1
_ONLY_READ = ("nothing is changed", "the same command starts again")  # what is said of it when it is stopped


def choose_labels(store: "Store", key: str | None) -> "StoredLabels":
    """Returns the labels of the given key, else the newest of a run. Raises StoreError if there are none."""
    from tasks.store.label_choice import other_labels
    from tasks.store.label_store import newest_labels, open_labels

    if key is not None:
        return open_labels(store, key)
    run, others = newest_labels(store)
    if others or run.purpose() != "run":
        of_what = f"of a {run.purpose()}, since there are none of a run" if run.purpose() != "run" else "of a run"
        chosen = f"the newest {of_what}" + (f", of {others + 1} in all" if others else "")
        choice = " --labels KEY takes others:" if others else ""
        click.echo(f"Labels {run.key}: {chosen}.{choice}", err=True)
        for other in other_labels(store, run.key):
            click.echo(f"  {other}", err=True)
    return run


@click.command()
@click.argument("store_uri", metavar="STORE")
@click.option("--out", required=True, help="Folder or prefix to write the pictures to.")
@click.option("--labels", "key", metavar="KEY", help="Labels to use; by default the newest of a run.")
@filter_options("those that `refseg thresholds` saved, else 0.5", "--score")
@click.option("--limit", type=WholeRange(1), help="Draw at most so many images; references are drawn all.")
def show(store_uri: str, out: str, key: str | None, kept: "FilterOptions", limit: int | None) -> None:
    """Draw the references, and ground truth next to predictions for every labeled image.

    References are drawn on a sheet for each category, each as the encoder sees it, too. After `refseg bank`, before
    images are labeled, they are all that is drawn.
    """
    when_stopped(f"pictures drawn so far are in {redact(out)}", "the same command draws all of them")
    from flows.terminal import progress_bars
    from tasks.outputs.reference_sheets import newest_prototypes
    from tasks.outputs.show_labels import show_labels, show_references
    from tasks.store.label_store import holds_labels
    from tasks.store.store import Store
    from tasks.store.thresholds import shown_thresholds, unused_thresholds

    store = Store(store_uri)
    if key is None and not holds_labels(store):
        prototypes = newest_prototypes(store)
        with progress_bars():
            number = show_references(store, prototypes, out)
        click.echo(f"No images are labeled yet. Wrote {counted(number, 'sheet')} of references to {redact(out)}")
        _echo_negatives(store, prototypes)
        return
    run = choose_labels(store, key)
    chosen = kept.filter(run, shown_thresholds(run))
    with progress_bars():
        shown = show_labels(store_uri, run.key, out, kept=chosen, limit=limit)
    click.echo(
        f"Wrote {counted(shown.images, 'picture')} of images to {redact(out)}/images, and references.jpg with "
        f"{counted(shown.sheets, 'sheet')} of references, of all categories; predictions: {chosen.describe()}"
    )
    if kept.thresholds is None and (note := unused_thresholds(run)):
        click.echo(note)
    _echo_negatives(store, run.prototypes())


def _echo_negatives(store: "Store", prototypes: "Artifact") -> None:
    from tasks.outputs.reference_sheets import describe_negatives

    if negatives := describe_negatives(store, prototypes):
        click.echo(f"Not to be labeled: {negatives}")


@click.command()
@click.argument("store_uri", metavar="STORE")
@click.option("--failed", is_flag=True, help="List every image that failed, not only the first few.")
@click.option("--full", is_flag=True, help="Whole keys and hashes, as in paths; commands take the short ones, too.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as json, for programs.")
def status(*, store_uri: str, failed: bool, full: bool, as_json: bool) -> None:
    """Show a store's artifacts, who made them from what, and the labeled, missing and failed images."""
    when_stopped(*_ONLY_READ)
    from flows.reports.store_report import report_status
    from flows.terminal import progress_bars
    from tasks.store.status import store_status
    from tasks.store.store import Store

    store = Store(store_uri)
    store.folder.check_readable()
    with progress_bars():
        found = store_status(store)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        report_status(store_uri, found, all_failed=failed, full=full)


@click.command()
@click.argument("store_uri", metavar="STORE")
def verify(store_uri: str) -> None:
    """Check every size, hash and row count of a store, and that every image is labeled once.

    Lists all problems; exit code 1 if there are any.
    """
    when_stopped(*_ONLY_READ)
    from flows.reports.store_report import report_verified
    from flows.terminal import progress_bars
    from tasks.store.garbage import check_is_store
    from tasks.store.store import Store
    from tasks.store.verify import verify_store

    store = Store(store_uri)
    store.folder.check_readable()
    with progress_bars():
        verified = verify_store(store)
    if not (verified.num_manifests or verified.problems):
        check_is_store(store)
    report_verified(verified)
    if verified.problems:
        click.get_current_context().exit(_FAILURE)


@click.command()
@click.argument("store_uri", metavar="STORE")
@click.option("--gone", is_flag=True, help="Also shards whose images were all removed or changed.")
@click.option("--labels", "keys", multiple=True, metavar="KEY", help="Also the whole labels of this key.")
@click.option("--proposals", is_flag=True, help="Also what labeling.keep_proposals has kept.")
@click.option(
    "--min-age",
    type=FiniteRange(0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Keep leftovers and unused artifacts that are younger: a run may be using them.",
)
@click.option("--yes", is_flag=True, help="Remove the listed objects. Without it nothing is removed.")
def gc(*, store_uri: str, gone: bool, keys: tuple[str, ...], proposals: bool, min_age: float, yes: bool) -> None:
    """List the unused objects of a store, and remove them with --yes.

    These are leftovers of killed processes, and artifacts that no labels or metrics were made from.
    """
    when_stopped(*(("what was removed so far is gone", "the same command removes the rest") if yes else _ONLY_READ))
    from flows.reports.store_report import report_garbage
    from flows.terminal import progress_bars
    from tasks.store.garbage import check_is_store, find_garbage, remove
    from tasks.store.store import Store

    store = Store(store_uri)
    store.folder.check_readable()
    garbage = find_garbage(store, min_age_hours=min_age, gone=gone, labels=keys, proposals=proposals)
    if not garbage:
        check_is_store(store)
    report_garbage(garbage, removing=yes)
    if yes and garbage:
        with progress_bars():
            remove(store, garbage)
        click.echo(f"Removed {counted(len(garbage), 'object')}.")


STORE_COMMANDS: tuple[click.Command, ...] = (show, status, verify, gc)
