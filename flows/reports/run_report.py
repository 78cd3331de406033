"""The output of the commands of a run: what was made, how good it is, where it lies and the next commands."""

from collections import Counter
from itertools import islice

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table as TextTable

from flows.oddities import find_missing, print_oddities
from flows.terminal import messages, results, text_table
from refseg_core.analysis.dataset_summary import Overview, overview
from refseg_core.analysis.label_statistics import PromptShare
from refseg_core.errors import StoreError, counted, shortened
from refseg_core.evaluation.diagnostics import Review
from refseg_core.evaluation.report import (
    category_table,
    confusion_table,
    findings,
    metrics_table,
    score_table,
)
from refseg_core.references.validation import MIN_MARGIN, MIN_SIDE
from refseg_core.settings import ProtocolName
from refseg_core.settings.choices import PROTOCOLS
from refseg_core.tables import Images
from tasks.datasets.indexed import load_dataset
from tasks.models.download import pull_weights
from tasks.models.weights import list_weights
from tasks.outputs.dataset_overview import draw_overview
from tasks.outputs.opened_images import Opened
from tasks.specs import DatasetSource
from tasks.storage.uris import redact, typed
from tasks.store.evaluations import load_review, protocol_of
from tasks.store.label_store import StoredLabels, newest_labels, open_labels, points_per_image
from tasks.store.shard_plans import LabelPlan
from tasks.store.steps import EVALUATE
from tasks.store.store import Artifact, Store
from tasks.store.thresholds import threshold_note

_FAILURES_SHOWN = 10
_CATEGORIES_SHOWN = 100  # LVIS has 1203


def report_run(store_uri: str, plan: LabelPlan, metrics: Artifact | None) -> None:
    """Prints the results of a whole run."""
    report_labels(store_uri, plan)
    if metrics is not None:
        report_metrics(store_uri, metrics)
    labels = StoredLabels(Store(store_uri), plan.key).as_argument()
    results.print("Next:")
    results.print(f"  refseg show {labels} --out pictures      # look at the labels")
    results.print(f"  refseg review {labels}                   # check the doubtful ones in a browser")
    results.print(f"  refseg thresholds {labels}               # a score threshold for each category")
    results.print(f"  refseg export {labels} --format coco --out labels.json")


def report_pilot(
    store_uri: str, given: str, plan: LabelPlan, metrics: Artifact | None, page: str, *, again: str
) -> None:
    """Prints the results of a pilot, and what can be done next.

    `given`: its file and flags, as they are typed; `again`: the command that takes the same images.
    """
    report_labels(store_uri, plan)
    if metrics is not None:
        report_metrics(store_uri, metrics)
    results.print(f"Page:       {page}")
    results.print("Next:")
    results.print(f"  refseg bank {given} --drop ID            # leave a reference out, or --add one")
    results.print(f"  refseg thresholds {typed(store_uri)} --labels {plan.key}")
    results.print(f"  {again}         # the same images with what was changed")
    results.print(f"  refseg run {given}                       # all images")


def report_stored(store_uri: str, key: str | None) -> None:
    """Prints the results of a run that another machine made: the labels of a key, by default the newest ones.

    Where the store cannot be read from here, it says where they are.
    """
    try:
        store = Store(store_uri)
        run = newest_labels(store)[0] if key is None else open_labels(store, key)
        dataset = run.requested()
        metrics = [one for one in store.manifests(EVALUATE.folder) if one["inputs"]["labels"] == run.root]
    except StoreError as error:
        results.print(f"Done. The results are in {redact(store_uri)}, which cannot be read from here: {error}")
        return
    if dataset is not None:
        evaluated = store.named(f"{EVALUATE.folder}/{metrics[-1]['key']}") if metrics else None
        report_run(store_uri, LabelPlan(dataset, run.key, ()), evaluated)


def report_labels(store_uri: str, plan: LabelPlan) -> None:
    """Prints the numbers of images and instances, the images that failed, and how to read the tables."""
    store, shown = Store(store_uri), redact(store_uri)
    counts: Counter[str] = Counter()
    prompts = PromptShare()
    unreadable: list[str] = []
    run = StoredLabels(store, plan.key)
    points = points_per_image(run.recipe_or_error())
    for labeled in run.read_labeled_images(store.load(plan.dataset, Images)):
        prompts = prompts if points is None else prompts.plus(PromptShare.of(labeled))
        counts.update(labeled.status.tolist())
        counts["instances"] += int(labeled.num_detections.sum())
        failed = labeled[labeled.status == "unreadable"]
        lines = (f"  {image_id}: {error}" for image_id, error in zip(failed.image_id, failed.error, strict=True))
        unreadable += islice(lines, _FAILURES_SHOWN - len(unreadable))
    num_images = counts["ok"] + counts["empty"] + counts["unreadable"]
    results.print(
        f"{counted(num_images, 'image')}: {counted(counts['instances'], 'instance')} in {counts['ok']:,}, none in "
        f"{counts['empty']:,}, {counts['unreadable']:,} unreadable."
    )
    if points is not None:
        results.print(f"{prompts.describe(points)}.")
    for line in unreadable:
        results.print(line)
    if counts["unreadable"] > len(unreadable):
        more = counts["unreadable"] - len(unreadable)
        results.print(f"  and {more} more (status 'unreadable' in labeled_images)")
    if not plan.dataset.num_rows["annotations"]:  # the oddities of annotated targets were told before the run
        print_oddities(load_dataset(store, plan.dataset).oddities, results.print)
    if plan.gone is not None and plan.gone.num_rows["gone_labels"]:
        number = plan.gone.num_rows["gone_labels"]
        are = "is of an image that was" if number == 1 else "are of images that were"
        results.print(f"{counted(number, 'label')} {are} removed or changed: {shown}/{plan.gone.name}")
    if note := threshold_note(run):
        results.print(note)
    results.print(f"Read them:  pandas.read_parquet('{shown}/labels/{plan.key}/detections')")


def report_metrics(store_uri: str, metrics: Artifact) -> None:
    """Prints the evaluation."""
    store = Store(store_uri)
    print_review(load_review(store, metrics), protocol_of(store, metrics))
    names = ", ".join(f"{name}.parquet" for name in metrics.num_rows)
    results.print(f"Metrics:    {redact(store_uri)}/{metrics.name}/: {names}")


def report_evaluation(store_uri: str, metrics: Artifact, *, by_saved: bool) -> None:
    """Prints an evaluation of its own; `by_saved`: at the thresholds that were saved, if there are any."""
    store = Store(store_uri)
    labels = (store.manifest(metrics.name) or {})["inputs"]["labels"]
    note = threshold_note(open_labels(store, labels.rpartition("/")[2])) if by_saved else None
    if note:
        results.print(note)
    report_metrics(store_uri, metrics)


def report_dataset(
    store_uri: str, title: str, source: DatasetSource, artifact: Artifact, *, num_shots: int | None
) -> None:
    """Prints a dataset's numbers, categories and oddities, and draws a picture of some annotated images.

    `num_shots`: references per category; categories with fewer are listed. None lists none.
    """
    store, shown = Store(store_uri), redact(store_uri)
    dataset = load_dataset(store, artifact)
    seen = overview(dataset, num_shots=num_shots)
    results.print(f"{title}: {counted(seen.num_images, 'image')}{_sizes(seen)}")
    if len(dataset.annotations):
        form = (store.manifest(artifact.name) or {}).get("settings", {}).get("format", "coco")
        results.print(
            f"{counted(len(dataset.annotations), 'annotation')}, read as {form}: {seen.num_masks} with mask, "
            f"{seen.num_boxes_only} box only, {counted(seen.num_crowds, 'crowd')}"
        )
        results.print(_category_table(seen, for_sampling=num_shots is not None))
    print_oddities((*find_missing(source.images, dataset), *seen.oddities), results.print)
    results.print(f"Tables:  {shown}/{artifact.name}")
    if len(dataset.annotations):
        results.print(f"Picture: {shown}/{draw_overview(store, artifact, dataset, source.images)}")


def report_opened(opened: Opened, num_images: int) -> None:
    """Prints how many of the images to label were opened, and which of them cannot be read."""
    what = "read whole" if opened.are_whole else "opened by their headers"
    more = "" if opened.are_whole else "; --images reads all of them whole"
    results.print(f"Opened:  {opened.number:,} of {counted(num_images, 'target image')}, {what}{more}")
    print_oddities(opened.unreadable, results.print)


def _sizes(seen: Overview) -> str:
    if not seen.sizes:
        return ""
    smallest, middle, largest = (f"{width} x {height}" for width, height in seen.sizes)
    if smallest == largest:
        return f" of {smallest} px (width x height)"
    return f" of {smallest} to {largest} px (width x height), the median {middle}"


def _category_table(seen: Overview, *, for_sampling: bool) -> TextTable:
    """Returns the table of categories; `for_sampling`: also how many may be references, and why not."""
    fitness = ("valid", f"under {MIN_SIDE} px", f"{MIN_MARGIN} px from border") if for_sampling else ()
    table = TextTable("category", "id", "annotations", "with masks", "images", "median box, px", *fitness)
    for category in seen.categories[:_CATEGORIES_SHOWN]:
        median = "-" if category.median_size is None else "{:.0f} x {:.0f}".format(*category.median_size)
        counts = (category.category_id, category.num_instances, category.num_masks, category.num_images)
        valid = (category.num_valid, category.num_small, category.num_at_border) if for_sampling else ()
        table.add_row(category.name, *map(str, counts), median, *map(str, valid))
    if len(seen.categories) > _CATEGORIES_SHOWN:
        table.add_row(f"and {len(seen.categories) - _CATEGORIES_SHOWN} more")
    return table


def report_weights() -> None:
    """Prints every known model and whether its weights are here."""
    table = TextTable("name", "kind", "size", "sha256", "here", "location")
    for row in list_weights():
        size = "-" if row.size is None else f"{row.size / 1e6:,.0f} MB"
        pinned = "not pinned" if row.spec.sha256 is None else "pinned"
        table.add_row(row.spec.name, row.spec.kind, size, pinned, row.state, row.location)
    results.print(table)


def pull_with_bar(name: str, folder: str | None) -> None:
    """Downloads weights with a progress bar."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages) as bars:
        bar = bars.add_task(shortened(name), total=None)
        path = pull_weights(
            name, folder=folder, progress=lambda done, total: bars.update(bar, completed=done, total=total)
        )
    results.print(str(path))


def print_review(review: Review, protocol: ProtocolName) -> None:
    """Prints the metrics over all categories, at scores and by category, and the most frequent mistakes."""
    _print_table(f"All categories, {PROTOCOLS[protocol].how}", metrics_table(review.metrics))
    _print_table("Labels of a score and above, IoU 0.5", score_table(review.metrics))
    by_category = category_table(review.metrics)
    num_categories = len(by_category) - 1
    if num_categories <= _CATEGORIES_SHOWN:
        _print_table("By category", by_category)
    else:
        results.print(f"By category: {num_categories}, in the file below (category_id is null for the mean of all).")
    _print_table("Most frequent confusions", confusion_table(review))
    for sentence in findings(review):
        results.print(sentence)


def _print_table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Prints a table, unless it has no rows."""
    header, *body = rows
    if body:
        results.print(text_table(header, body, title))
