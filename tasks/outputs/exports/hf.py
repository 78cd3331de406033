"""Labels as an imagefolder of Hugging Face's datasets: images, and a table with a row for each.

    train/a.jpg    train/metadata.parquet

`datasets.load_dataset("imagefolder", data_dir=...)` reads it. A row holds an image's instances as lists, one entry for
each. An image without instances has empty lists.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa

from refseg_core.datasets.coco.writer import box_xywh
from refseg_core.masks.rle import mask_areas
from tasks.outputs.exports.coco import segmentation
from tasks.outputs.exports.exported import ExportedImage, ExportedLabels
from tasks.outputs.exports.writing import File, ImageFile, ImageNames, Splits
from tasks.store.parquet import RowFile

_RLE = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
_POLYGONS = pa.list_(pa.list_(pa.float64()))
_SEGMENTATIONS: dict[str, list[tuple[str, pa.DataType]]] = {
    "masks": [("mask", _RLE)],
    "polygons": [("polygons", _POLYGONS)],
    "boxes": [],
}


def write_imagefolder(labels: ExportedLabels) -> Iterator[File | ImageFile]:
    """Yields the files of the folder: images, then the table of each split."""
    has_images = labels.options.images != "none"
    names = ImageNames(labels.images, may_rename=True)
    splits = Splits(len(labels.images), labels.options.split, labels.options.seed)
    schema = _schema(labels)
    with ExitStack() as stack:
        tables = {split: stack.enter_context(RowFile(schema)) for split in splits.names}
        for image in labels.each_image():
            split, name = splits.name_of(image.row), names.image(image.row)
            image_id = image.export_id if pa.types.is_integer(schema.field("image_id").type) else str(image.export_id)
            tables[split].add(_row(labels, image, name, image_id))
            if has_images:
                yield ImageFile(f"{split}/{name}", image.file_name)
        for split, table in tables.items():
            yield File(f"{split}/metadata.parquet", table.content())


def _schema(labels: ExportedLabels) -> pa.Schema:
    objects = [
        ("id", pa.list_(pa.int64())),
        ("instance_id", pa.list_(pa.string())),
        ("bbox", pa.list_(pa.list_(pa.float64()))),
        ("category_id", pa.list_(pa.int64())),
        ("category", pa.list_(pa.string())),
        ("score", pa.list_(pa.float64())),
        ("area", pa.list_(pa.int64())),
        *((name, pa.list_(kind)) for name, kind in _SEGMENTATIONS[labels.shape]),
    ]
    image_id = pa.int64() if all(isinstance(one, int) for one in labels.export_id.values()) else pa.string()
    sides = [("width", pa.int32()), ("height", pa.int32())]
    return pa.schema([("file_name", pa.string()), ("image_id", image_id), *sides, ("objects", pa.struct(objects))])


def _row(labels: ExportedLabels, image: ExportedImage, file_name: str, image_id: int | str) -> dict[str, Any]:
    found = image.instances
    objects: dict[str, Any] = {
        "id": [one.number for one in found],
        "instance_id": [one.instance_id for one in found],
        "bbox": [box_xywh(np.array(one.box_xyxy)) for one in found],
        "category_id": [one.category_id for one in found],
        "category": [one.category_name for one in found],
        "score": [one.score for one in found],
        "area": mask_areas([one.mask for one in found]).tolist(),
    }
    for name, _ in _SEGMENTATIONS[labels.shape]:
        objects[name] = [segmentation(labels, one.mask) for one in found]
    sides = {"width": image.width, "height": image.height}
    return {"file_name": file_name, "image_id": image_id, **sides, "objects": objects}
