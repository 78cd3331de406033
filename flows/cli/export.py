"""The command that writes labels in the format of another tool."""

from typing import TYPE_CHECKING, Any, get_args

import click

from flows.cli.options.kept_labels import OneOfEach, filter_options
from flows.cli.options.numbers import FiniteRange, WholeRange
from flows.cli.store import choose_labels
from flows.execution.stopping import when_stopped
from refseg_core.errors import brief, counted, shortened
from refseg_core.settings import Conventions
from refseg_core.settings.numbers import to_float
from tasks.outputs.exports.formats import EXPORT_FORMATS, ImageMode
from tasks.storage.uris import redact

if TYPE_CHECKING:
    from tasks.outputs.exports.exported import ExportedLabels
    from tasks.store.thresholds import FilterOptions

_MOST_NAMES = 8
_MOST_IMAGES = 2


class _Shares(click.ParamType[tuple[float, ...]]):
    """Shares of training, validation and test, as '0.8,0.1,0.1'."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            shares = tuple(to_float(part) for part in str(value).split(","))
        except ValueError:
            shares = ()
        if not shares or min(shares) < 0:
            self.fail(f"expected shares such as 0.8,0.1,0.1, got {brief(value)}", param, ctx)
        return shares


@click.command(cls=OneOfEach)
@click.argument("store_uri", metavar="STORE")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(EXPORT_FORMATS)),
    default="coco-results",
    show_default=True,
    help=f"{EXPORT_FORMATS.help}.",
)
@click.option("--out", required=True, help="File, folder or URI to write.")
@click.option("--labels", "key", metavar="KEY", help="Labels to use; by default the newest of a run.")
@filter_options("all", "--min-score")
@click.option("--partial", is_flag=True, help="Export unfinished labels: only the images that are labeled.")
@click.option("--polygons", "shape", flag_value="polygons", help="Instances as polygons, where a format has several.")
@click.option("--masks", "shape", flag_value="masks", help="Instances as masks, exactly.")
@click.option("--boxes", "shape", flag_value="boxes", help="Instances as boxes.")
@click.option(
    "--simplify",
    type=FiniteRange(0, 1000),
    default=1.0,
    show_default=True,
    metavar="PIXELS",
    help="How far the corners that polygons leave out may lie from them; 0 leaves out none.",
)
@click.option(
    "--min-island",
    type=WholeRange(min=0),
    metavar="PIXELS",
    help="Drop islands and holes of fewer pixels; a mask's largest island stays. By default 16 in polygons, else 0.",
)
@click.option("--split", type=_Shares(), default=(), help="Shares of train, val and test: 0.8,0.1,0.1 (yolo, voc, hf).")
@click.option("--seed", type=WholeRange(min=0), default=0, show_default=True, help="Seed of the split.")
@click.option(
    "--images",
    type=click.Choice(get_args(ImageMode)),
    default="auto",
    show_default=True,
    help="Images in the folder: links to local ones, copies, or none; 'auto' links where it can (yolo, voc, labelme, "
    "hf).",
)
@click.option("--label-map", is_flag=True, help="A map of categories for each image, not a mask for each instance.")
@click.option("--keep-ids", is_flag=True, help="The store's category ids, even where tools expect others.")
@click.option(
    "--image-url",
    default="/data/local-files/?d=",
    show_default=True,
    help="What stands before file names where Label Studio is to find images.",
)
@click.option(
    "--conventions",
    type=click.Choice(get_args(Conventions)),
    default="corrected",
    show_default=True,
    help="'original' writes the boxes of coco-results as the published code does, one pixel small.",
)
def export(*, store_uri: str, form: str, out: str, key: str | None, kept: "FilterOptions", **options: Any) -> None:
    """Write the current labels in the format of another tool, by what people decided in reviews.

    Images that could not be read, or are not labeled, are left out and counted; those without instances are written as
    what they are. Labels of images that were removed or changed since are left out. OUT.provenance says where the
    export came from.
    """
    when_stopped(f"the export to {redact(out)} is not finished", "the same command writes it from the beginning")
    from flows.terminal import progress_bars
    from refseg_core.analysis.label_filter import ScoreThresholds
    from tasks.outputs.exports.labels import export_labels
    from tasks.store.store import Store

    run = choose_labels(Store(store_uri), key)
    chosen = kept.filter(run, ScoreThresholds())
    with progress_bars():
        labels = export_labels(run, out, form=form, kept=chosen, **options)
    _tell_renumbered(labels)
    if labels.form.unsplit and not labels.options.split:
        click.echo(f"No --split: {labels.form.unsplit}", err=True)
    if kept.is_given:
        click.echo(f"Kept: {chosen.describe()}", err=True)
    click.echo(f"Wrote {redact(out)}: {_counts(labels)}")


def _tell_renumbered(labels: "ExportedLabels") -> None:
    """Says which categories and images have other ids than in the store."""
    if numbered := labels.numbered_images():
        shown = [f"{image_id} is {shortened(name)}" for image_id, name in numbered[:_MOST_IMAGES]]
        more = f" and {len(numbered) - len(shown):,} more" if len(numbered) > len(shown) else ""
        click.echo(f"Image ids of the export: {', '.join(shown)}{more}; see {labels.form.names_images_in}.", err=True)
    if labels.has_categories and (renumbered := labels.renumbered()):
        shown = [f"{old} {name} -> {new}" for name, (old, new) in list(renumbered.items())[:_MOST_NAMES]]
        more = f" and {len(renumbered) - len(shown)} more" if len(renumbered) > len(shown) else ""
        click.echo(f"Category ids of the export: {', '.join(shown)}{more}; --keep-ids keeps the store's.", err=True)


def _at_thresholds(labels: "ExportedLabels") -> str:
    """Returns how many of the instances reach the usual thresholds, and how to have only these."""
    usual, number = labels.usual.thresholds, labels.written.reaching
    if usual.by_name:
        return f"of every score: {number:,} reach the saved thresholds, which --thresholds auto keeps"
    return f"of every score: {number:,} reach {usual.others:g}, which --thresholds {usual.others:g} keeps"


def _counts(labels: "ExportedLabels") -> str:
    """Returns what was written and what was left out, in one line."""
    written, images = labels.written, labels.counts
    parts = [
        f"{counted(written.instances, 'instance')} in {counted(written.with_instances, 'image')}, "
        f"{counted(written.empty, 'image')} without any",
    ]
    if labels.options.kept.thresholds.is_zero and written.instances:
        parts.append(_at_thresholds(labels))
    left_out = [
        (images.unreadable, "unreadable image", None),
        (images.unlabeled, "image that is not labeled", "images that are not labeled"),
        (written.left_out, "instance", None),
        (written.removed, "instance that a review removed", "instances that a review removed"),
        (written.repeated, "instance that is there twice", "instances that are there twice"),
    ]
    if any(number for number, *_ in left_out):
        parts.append("left out " + ", ".join(counted(*one) for one in left_out if one[0]))
    if written.iou_mean is not None:
        parts.append(f"polygons have an IoU of {written.iou_mean:.3f} with their masks, at least {written.iou_min:.3f}")
    return "; ".join(parts)
