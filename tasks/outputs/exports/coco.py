"""Labels as COCO json, a list of results or a whole dataset."""

from collections.abc import Iterator

from refseg_core.datasets.coco.writer import coco_dataset, coco_results, json_array
from tasks.outputs.exports.labels import ExportedLabels


def write_results(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the file of results in pieces."""
    rows = coco_results(labels.detections(), labels.images, conventions=labels.conventions, min_score=labels.min_score)
    return (piece.encode() for piece in json_array(rows))


def write_dataset(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the dataset file in pieces."""
    pieces = coco_dataset(
        labels.detections(),
        labels.images,
        labels.labeled_images(),
        labels.categories(),
        segmentation="polygons" if labels.polygons else "rle",
        min_score=labels.min_score,
        info={"description": "labels by refseg", "labels": labels.run.key},
    )
    return (piece.encode() for piece in pieces)
