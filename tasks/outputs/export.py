"""Writes labels as COCO json or as one Parquet file, streaming shard by shard."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from refseg_core.datasets.coco.writer import coco_dataset, coco_results, json_array
from refseg_core.settings import Conventions
from refseg_core.tables import Categories, Detections, LabeledImages, Prototypes
from tasks.storage.objects import write_uri
from tasks.store.label_store import LabelRun
from tasks.store.lineage import input_artifact, reference_dataset
from tasks.store.parquet import stream_parquet

Format = Literal["coco-results", "coco", "parquet"]


def export_labels(
    run: LabelRun, out: str, *, form: Format, polygons: bool, min_score: float, conventions: Conventions
) -> None:
    """Writes the labels of the images that were asked for last to a file or URI, whole or not at all.

    Labels of images that are gone, or were labeled again since they changed, are left out.
    """
    images = run.images()
    detections = (part for part, _ in run.read(images))
    if form == "parquet":
        write_uri(out, stream_parquet((part[part.score >= min_score] for part in detections), Detections))
        return
    if form == "coco-results":
        rows = coco_results(detections, images, conventions=conventions, min_score=min_score)
        chunks = json_array(rows)
    else:
        chunks = coco_dataset(
            detections,
            images,
            LabeledImages.concatenate(list(run.read_labeled_images(images))),
            _categories(run),
            segmentation="polygons" if polygons else "rle",
            min_score=min_score,
            info={"description": "labels by refseg", "labels": run.key},
        )
    write_uri(out, _encoded(chunks))


def _categories(run: LabelRun) -> Categories:
    prototypes = input_artifact(run.store, run.recipe_or_error()["inputs"], "prototypes")
    categories = run.store.load(reference_dataset(run.store, prototypes), Categories)
    return categories[np.isin(categories.category_id, run.store.load(prototypes, Prototypes).category_id)]


def _encoded(chunks: Iterator[str]) -> Iterator[bytes]:
    return (chunk.encode() for chunk in chunks)
