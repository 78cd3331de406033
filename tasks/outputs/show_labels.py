"""Draws all labels of a store: the references, and ground truth next to predictions for every labeled image."""

from collections.abc import Iterator

import numpy as np

from refseg_core.datasets.category_mapping import numbered_as
from refseg_core.errors import DatasetError
from refseg_core.tables import Annotations, Categories, Detections, Images
from refseg_core.visualization import contact_sheet, side_by_side, to_jpeg
from tasks.datasets.image_reader import read_images
from tasks.datasets.indexed import load_dataset
from tasks.outputs.pictures import (
    MAX_PIXELS,
    Palette,
    check_apart,
    draw_detections,
    draw_ground_truth,
    picture_name,
    reference_panels,
)
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.folder import Folder
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import reference_dataset
from tasks.store.store import Artifact, Store


def show_labels(store_uri: str, labels_key: str, out_uri: str, *, score_thresh: float, limit: int | None) -> int:
    """Writes `references.jpg` and, per labeled image, ground truth (where known) next to predictions.

    Returns the number of pictures written.
    """
    store, out = Store(store_uri), Folder(out_uri)
    run = StoredLabels(store, labels_key)
    recipe = run.recipe_or_error()
    check_apart(Folder(out.join("images")), recipe["settings"]["images"])
    prototypes = store.named(recipe["inputs"]["prototypes"])
    palette = Palette(store, prototypes)
    panels = reference_panels(store, prototypes, palette)
    out.replace("references.jpg", to_jpeg(contact_sheet(panels, heading=f"{len(panels)} references")))
    annotations = _ground_truth(run, prototypes, recipe["settings"]["images"])
    num_pictures = 1
    source = Folder(recipe["settings"]["images"])
    for images, detections in _labels_by_shard(run, limit):
        report(ProgressStep.DRAW_PICTURES, total=len(images))
        for image in read_images(source, images, max_pixels=MAX_PIXELS):
            report(ProgressStep.DRAW_PICTURES, advanced=1)
            if image.pixels is None:
                continue
            image_id = images.image_id[image.row]
            found = detections[detections.image_id == image_id]
            picture = draw_detections(image.pixels, found, palette, score_thresh)
            if annotations is not None:
                truth = annotations[annotations.image_id == image_id]
                titles = ("ground truth", f"predictions, score at least {score_thresh:g}")
                picture = side_by_side(draw_ground_truth(image.pixels, truth, palette), picture, titles)
            out.replace(f"images/{picture_name(str(images.file_name[image.row]))}", to_jpeg(picture))
            num_pictures += 1
    return num_pictures


def _labels_by_shard(run: StoredLabels, limit: int | None) -> Iterator[tuple[Images, Detections]]:
    left, images = limit, run.images()
    row_of = {image_id: row for row, image_id in enumerate(images.image_id)}
    for detections, labeled in run.read(images):
        readable = labeled.image_id[labeled.status != "unreadable"]
        known = images[np.array([row_of[image_id] for image_id in readable], dtype=np.int64)][:left]
        yield known, detections
        left = None if left is None else left - len(known)
        if left == 0:
            return


def _ground_truth(run: StoredLabels, prototypes: Artifact, images_uri: str) -> Annotations | None:
    """Returns the annotations of the requested dataset, else those of the last indexed one of all the same images.

    None where there are none, or where they have other categories.
    """
    store, requested = run.store, run.requested()
    for manifest in reversed(store.manifests("dataset")):
        settings, is_requested = manifest["settings"], requested and manifest["key"] == requested.key
        is_whole = not (settings["image_ids"] or settings.get("limit"))
        if settings["images"] == images_uri and settings["annotations"] and (is_requested or is_whole):
            referenced = store.load(reference_dataset(store, prototypes), Categories)
            dataset = load_dataset(store, store.named(f"dataset/{manifest['key']}"))
            try:
                return numbered_as(referenced, dataset).annotations
            except DatasetError:
                return None
    return None
