"""Labels as COCO json, a list of results or a whole dataset."""

from collections.abc import Iterator
from typing import Any

from refseg_core.datasets.coco.writer import coco_dataset, coco_results, json_array
from refseg_core.masks.rle import Rle
from tasks.outputs.exports.exported import ExportedLabels


def write_results(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the file of results in pieces."""
    rows = coco_results(labels.detections(), labels.export_id, conventions=labels.options.conventions)
    return (piece.encode() for piece in json_array(rows))


def write_dataset(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the dataset file in pieces."""
    pieces = coco_dataset(
        labels.detections(),
        labels.images,
        labels.categories(),
        export_id=labels.export_id,
        segmentation=lambda mask: segmentation(labels, mask),
        info={"description": "labels by refseg", "labels": labels.run.key},
    )
    return (piece.encode() for piece in pieces)


def segmentation(labels: ExportedLabels, mask: Rle) -> dict[str, Any] | list[list[int]]:
    """Returns a mask as COCO's run lengths, or as polygons, which have no holes."""
    return labels.polygons(mask, with_holes=False).flat() if labels.shape == "polygons" else mask.to_coco()
