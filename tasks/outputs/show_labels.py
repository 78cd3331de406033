"""Draws all labels of a store: the references, and ground truth next to predictions for every labeled image."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refseg_core.analysis.label_filter import LabelFilter
from refseg_core.datasets.category_mapping import numbered_as
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError, ImageError, counted
from refseg_core.tables import Categories, Detections, Images
from refseg_core.visualization import Picture, contact_sheet, side_by_side, to_jpeg
from tasks.datasets.image_reader import read_image, read_images
from tasks.datasets.indexed import load_dataset
from tasks.outputs.pictures import (
    MAX_PIXELS,
    Palette,
    check_apart,
    draw_detections,
    draw_ground_truth,
    draw_references,
    picture_name,
)
from tasks.outputs.reference_sheets import draw_sheets
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.folder import Folder
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import labeled_categories, reference_dataset
from tasks.store.reviews import read_reviewed
from tasks.store.store import Artifact, Store

SHEETS = "reference-sheets"
"""The folder of the sheets of categories, below that of the pictures."""


def show_references(store: Store, prototypes: Artifact, out_uri: str) -> int:
    """Writes `references.jpg` and a sheet of each category's references; returns the number of these."""
    out = Folder(out_uri)
    panels = [one.panel for one in draw_references(store, prototypes, Palette(store, prototypes))]
    out.replace("references.jpg", to_jpeg(contact_sheet(panels, heading=counted(len(panels), "reference"))))
    return draw_sheets(store, prototypes, Folder(out.join(SHEETS)))


class Shown(NamedTuple):
    """How many pictures were written: of images, and sheets of references, without the picture of all of these."""

    images: int
    sheets: int


def show_labels(store_uri: str, labels_key: str, out_uri: str, *, kept: LabelFilter, limit: int | None) -> Shown:
    """Writes the references, and per labeled image ground truth (where known) next to predictions.

    Of the predictions those are drawn that are kept; references are those of all categories.
    """
    store, out = Store(store_uri), Folder(out_uri)
    run = StoredLabels(store, labels_key)
    recipe = run.recipe_or_error()
    check_apart(Folder(out.join("images")), recipe["settings"]["images"])
    prototypes = run.prototypes()
    palette = Palette(store, prototypes)
    num_sheets, num_images = show_references(store, prototypes, out_uri), 0
    categories = labeled_categories(store, prototypes)
    source = Folder(recipe["settings"]["images"])
    truth = _GroundTruth.of(run, prototypes, source)
    for images, detections in _labels_by_shard(run, limit):
        report(ProgressStep.DRAW_PICTURES, total=len(images))
        for image in read_images(source, images, max_pixels=MAX_PIXELS):
            report(ProgressStep.DRAW_PICTURES, advanced=1)
            if image.pixels is None:
                continue
            image_id = images.image_id[image.row]
            found = kept.apply(detections[detections.image_id == image_id], categories)
            picture = draw_detections(image.pixels, found, palette)
            if truth is not None and (drawn := truth.draw(images, image.row, image.pixels, palette)) is not None:
                titles = ("ground truth", f"predictions, {kept.thresholds.in_short}")
                picture = side_by_side(drawn, picture, titles)
            out.replace(f"images/{picture_name(str(images.file_name[image.row]))}", to_jpeg(picture))
            num_images += 1
    return Shown(num_images, num_sheets)


def _labels_by_shard(run: StoredLabels, limit: int | None) -> Iterator[tuple[Images, Detections]]:
    left, images = limit, run.images()
    row_of = {image_id: row for row, image_id in enumerate(images.image_id)}
    for detections, labeled in read_reviewed(run, images):
        readable = labeled.image_id[labeled.status != "unreadable"]
        known = images[np.array([row_of[image_id] for image_id in readable], dtype=np.int64)][:left]
        yield known, detections
        left = None if left is None else left - len(known)
        if left == 0:
            return


@dataclass(frozen=True)
class _GroundTruth:
    """The annotations of the labeled images, which may have been drawn in another frame than the labels."""

    source: Folder
    dataset: Dataset
    row_of: Mapping[str, int]

    @classmethod
    def of(cls, run: StoredLabels, prototypes: Artifact, source: Folder) -> "_GroundTruth | None":
        """Returns that of the requested dataset, else of the last indexed one of all the same images.

        None where there is none, or where it has other categories.
        """
        store, requested = run.store, run.requested()
        for manifest in reversed(store.manifests("dataset")):
            settings, is_requested = manifest["settings"], requested and manifest["key"] == requested.key
            is_whole = not (settings["image_ids"] or settings.get("limit"))
            if settings["images"] == source.uri and settings["annotations"] and (is_requested or is_whole):
                referenced = store.load(reference_dataset(store, prototypes), Categories)
                dataset = load_dataset(store, store.named(f"dataset/{manifest['key']}"))
                try:
                    dataset = numbered_as(referenced, dataset)
                except DatasetError:
                    return None
                names = map(str, dataset.images.file_name)
                return cls(source, dataset, {name: row for row, name in enumerate(names)})
        return None

    def draw(self, labeled: Images, row: int, pixels: Picture, palette: Palette) -> Picture | None:
        """Returns the annotated image [H, W, 3] of a labeled one, or None where nothing is known of it.

        `pixels` [H, W, 3]: the labeled image, which is drawn on unless the annotations' frame is another.
        """
        own, images = self.row_of.get(str(labeled.file_name[row])), self.dataset.images
        if own is None:
            return None
        if _frame(images, own) != _frame(labeled, row):
            try:
                pixels = read_image(self.source, images, own, max_pixels=MAX_PIXELS)
            except ImageError:
                return None
        annotations = self.dataset.annotations
        return draw_ground_truth(pixels, annotations[annotations.image_id == images.image_id[own]], palette)


def _frame(images: Images, row: int) -> tuple[int, int, str]:
    return int(images.height[row]), int(images.width[row]), str(images.frame[row])
