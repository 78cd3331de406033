"""What a command says at its end: what was made, how good it is, where it lies and what to type next."""

from collections import Counter
from itertools import islice

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table as TextTable

from flows.configuration import RunConfig
from flows.console import messages, print_review, results
from flows.pipeline import RunResult
from refseg_core.tables import Annotations, Categories, Images
from tasks.addresses import redact
from tasks.artifacts import Artifact, Store
from tasks.evaluate import load_review, protocol_of
from tasks.labels import LabelRun
from tasks.plan_shards import LabelPlan
from tasks.pull_weights import pull_weights
from tasks.weights import list_weights

_FAILURES_SHOWN = 10


def report_run(config: RunConfig, result: RunResult) -> None:
    """The end of a whole run."""
    report_labels(config.store, result.plan)
    if result.metrics is not None:
        report_metrics(config.store, result.metrics)
    store = redact(config.store)
    results.print("Next:")
    results.print(f"  refseg show {store} --out pictures      # look at the labels")
    results.print(f"  refseg export {store} --format coco --out labels.json")


def report_labels(store_uri: str, plan: LabelPlan) -> None:
    """How many images and instances there are, which images failed, and how to read the tables."""
    store, shown = Store(store_uri), redact(store_uri)
    counts: Counter[str] = Counter()
    unreadable: list[str] = []
    for labeled in LabelRun(store, plan.key).read_labeled_images(store.load(plan.dataset, Images)):
        counts.update(labeled.status.tolist())
        counts["instances"] += int(labeled.num_detections.sum())
        failed = labeled[labeled.status == "unreadable"]
        lines = (f"  {image_id}: {error}" for image_id, error in zip(failed.image_id, failed.error, strict=True))
        unreadable += islice(lines, _FAILURES_SHOWN - len(unreadable))
    num_images = counts["ok"] + counts["empty"] + counts["unreadable"]
    results.print(
        f"{num_images} images: {counts['instances']} instances in {counts['ok']}, none in {counts['empty']}, "
        f"{counts['unreadable']} unreadable."
    )
    for line in unreadable:
        results.print(line)
    if counts["unreadable"] > len(unreadable):
        more = counts["unreadable"] - len(unreadable)
        results.print(f"  and {more} more (status 'unreadable' in labeled_images)")
    if plan.gone is not None and plan.gone.num_rows["gone_labels"]:
        number = plan.gone.num_rows["gone_labels"]
        results.print(f"{number} labels are of images that were removed or changed: {shown}/{plan.gone.name}")
    results.print(f"Read them:  pandas.read_parquet('{shown}/labels/{plan.key}/detections')")


def report_metrics(store_uri: str, metrics: Artifact) -> None:
    """The evaluation."""
    store = Store(store_uri)
    print_review(load_review(store, metrics), protocol_of(store, metrics))
    names = ", ".join(f"{name}.parquet" for name in metrics.num_rows)
    results.print(f"Metrics:    {redact(store_uri)}/{metrics.name}/: {names}")


def report_dataset(store_uri: str, title: str, dataset: Artifact) -> None:
    """What a dataset holds: images, and annotations per category."""
    store = Store(store_uri)
    categories, annotations = store.load(dataset, Categories), store.load(dataset, Annotations)
    table = TextTable(
        "category", "id", "annotations", "with masks", title=f"{title}: {dataset.num_rows['images']} images"
    )
    for category_id, name in zip(categories.category_id.tolist(), categories.name, strict=True):
        own = annotations[annotations.category_id == category_id]
        with_masks = sum(rle is not None for rle in own.mask_rle)
        table.add_row(str(name), str(category_id), str(len(own)), str(with_masks))
    results.print(table)
    results.print(f"{redact(store_uri)}/{dataset.name}")


def report_weights() -> None:
    """Every known model and whether its weights are here."""
    table = TextTable("name", "kind", "size", "sha256", "here", "location")
    for row in list_weights():
        size = "-" if row.size is None else f"{row.size / 1e6:,.0f} MB"
        table.add_row(row.model, row.kind, size, "pinned" if row.is_pinned else "not pinned", row.state, row.location)
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
        bar = bars.add_task(name, total=None)
        path = pull_weights(
            name, folder=folder, progress=lambda done, total: bars.update(bar, completed=done, total=total)
        )
    results.print(str(path))
