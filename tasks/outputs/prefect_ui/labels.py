"""Shows labels: their shards, categories, failed images, most and least certain instances, and a summary of it all.

Everything is read once, shard by shard: of each its two parts, and two small requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import numpy as np

from refseg_core.analysis.label_filter import LabelFilter
from refseg_core.analysis.label_statistics import LabelStatistics
from refseg_core.errors import counted
from refseg_core.tables import Detections, Images
from refseg_core.visualization import Picture, instance_panel
from tasks.datasets.image_reader import read_images
from tasks.outputs.pictures import MAX_PIXELS, Palette
from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.publishing import PANEL_SIDE, publish_sheet, publish_table, publish_text, publishing_task
from tasks.outputs.prefect_ui.rows import ShardRow, category_rows, failed_rows, shard_rows
from tasks.outputs.prefect_ui.summary import LabelSummary, headline, summary_text
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import labeled_categories
from tasks.store.reviews import read_reviewed
from tasks.store.shard_plans import LabelPlan, Wanted
from tasks.store.store import Store
from tasks.store.thresholds import shown_thresholds

_MOST_SHOWN = 12  # instances on a sheet
_MOST_FAILED = 500
_MOST_CATEGORIES = 2000


@dataclass(frozen=True)
class _Labels:
    """The labels that are shown, as they were found; `shown` says which of them pictures show."""

    run: StoredLabels
    images: Images
    palette: Palette
    shards: list[ShardRow]
    statistics: LabelStatistics
    shown: str


@publishing_task("publish labels")
def publish_labels(store_uri: str, plan: LabelPlan, errors: Mapping[str, str] | None = None) -> None:
    """Tables, sheets and a summary of the labels of the plan's images; `errors` says why shards failed, by name."""
    name = artifact_name(store_uri)
    labels = _look(Store(store_uri), plan, errors or {})
    pages = _publish_tables(name, labels)
    try:
        pages |= _publish_sheets(name, labels)
    finally:
        # Relative addresses: the UI's two versions, and proxies before it, put different paths before them.
        links = {what: f"../artifact/{version}" for what, version in pages.items()}
        links["references"] = f"../key/{name}-references"
        summary = _summary(store_uri, plan, labels, links)
        publish_text(f"{name}-summary", summary_text(summary), headline(summary))


def _look(store: Store, plan: LabelPlan, errors: Mapping[str, str]) -> _Labels:
    run = StoredLabels(store, plan.key)
    images = store.load(plan.dataset, Images)
    shown, categories = LabelFilter(shown_thresholds(run)), labeled_categories(store, run.prototypes())
    statistics = LabelStatistics(
        partial(shown.keep, categories=categories), most_failed=_MOST_FAILED, most_shown=_MOST_SHOWN
    )
    for detections, labeled in read_reviewed(run, images):
        statistics.add(detections, labeled)
    shards = [
        ShardRow(shard.name, len(shard), manifest, None if manifest else errors.get(shard.name))
        for shard, _, manifest in run.shards_with_manifests(Wanted(images))
    ]
    return _Labels(run, images, Palette(store, run.prototypes()), shards, statistics, shown.thresholds.in_short)


def _summary(store_uri: str, plan: LabelPlan, labels: _Labels, pages: Mapping[str, str]) -> LabelSummary:
    return LabelSummary(
        store=redact(store_uri),
        key=plan.key,
        dataset=plan.dataset.name,
        recipe=labels.run.recipe_or_error(),
        statistics=labels.statistics,
        num_images=len(labels.images),
        num_open_shards=sum(shard.manifest is None for shard in labels.shards),
        num_gone=0 if plan.gone is None else plan.gone.num_rows["gone_labels"],
        category_names=labels.palette.name_of,
        pages=pages,
    )


def _publish_tables(name: str, labels: _Labels) -> dict[str, UUID]:
    statistics, shards = labels.statistics, labels.shards
    num_open = sum(shard.manifest is None for shard in shards)
    num_failed = statistics.images["unreadable"]
    return {
        "shards": publish_table(
            f"{name}-shards",
            shard_rows(shards),
            f"{len(shards) - num_open:,} of {counted(len(shards), 'shard')} labeled. Those that are not come first, "
            "then the newest.",
        ),
        "categories": publish_table(
            f"{name}-categories",
            category_rows(labels.palette.name_of, statistics.categories, labels.shown),
            f"{counted(statistics.num_instances, 'instance')} by category, the most frequent first.",
            most_rows=_MOST_CATEGORIES,
        ),
        "failed images": publish_table(
            f"{name}-failed",
            failed_rows(statistics.failed),
            f"{num_failed:,} of {counted(statistics.images.total(), 'labeled image')} could not be read."
            + (f" {len(statistics.failed):,} of them are shown." if len(statistics.failed) < num_failed else ""),
        ),
    }


def _publish_sheets(name: str, labels: _Labels) -> dict[str, UUID]:
    statistics = labels.statistics
    most, least = statistics.most.chosen(_MOST_SHOWN), statistics.least.chosen(_MOST_SHOWN)
    num_certain = sum(category.num_certain for category in statistics.categories.values())
    return {
        "most certain": publish_sheet(
            f"{name}-certain",
            _panels(labels, most),
            f"{len(most)} of the highest scores",
            f"The highest scores of {counted(statistics.num_instances, 'instance')}, the best of each category first.",
        ),
        "least certain": publish_sheet(
            f"{name}-uncertain",
            _panels(labels, least),
            f"{len(least)} of the lowest scores, {labels.shown}",
            f"The lowest scores of {counted(num_certain, 'instance')} in pictures, {labels.shown}. "
            "Where these are wrong, a higher threshold helps.",
        ),
    }


def _panels(labels: _Labels, detections: Detections) -> list[Picture]:
    """Returns the detections whose images can still be read, each in its surroundings."""
    row_of = {image_id: row for row, image_id in enumerate(labels.images.image_id)}
    image_ids = list(dict.fromkeys(detections.image_id))
    images = labels.images[np.array([row_of[image_id] for image_id in image_ids], dtype=np.int64)]
    folder = Folder(labels.run.recipe_or_error()["settings"]["images"])
    panels: dict[int, Picture] = {}
    for image in read_images(folder, images, max_pixels=MAX_PIXELS):
        for row in np.flatnonzero(detections.image_id == image_ids[image.row]).tolist():
            if image.pixels is not None and image.pixels.shape[:2] == tuple(detections.mask_rle[row].size):
                panels[row] = _panel(labels, image.pixels, str(images.file_name[image.row]), detections[row : row + 1])
    return [panels[row] for row in sorted(panels)]


def _panel(labels: _Labels, image: Picture, file_name: str, detection: Detections) -> Picture:
    return instance_panel(
        image,
        detection.box_xyxy[0],
        detection.mask_rle[0],
        name=f"{labels.palette.names(detection.category_id)[0]} {detection.score[0]:.2f}",
        details=file_name,
        color_index=labels.palette.colors(detection.category_id)[0],
        side=PANEL_SIDE,
    )
