"""Detections as COCO json: a list of results, or a whole dataset.

Here: the rows and the json text in pieces. Not here: files (callers write the pieces), polygons around masks
(`refseg_core/masks/polygons.py`), and reading COCO (`parser.py`). Nothing holds all rows: detections come as one table
per shard.

Image ids are those of the dataset the labels belong to, numbers as numbers and text as text, in both formats, so
that results fit the annotation file they are compared with. A plain listing has no ids but file names: its images
are numbered from 1 in their order, in both formats, and the dataset's `file_name` says which is which.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import Rle, mask_areas
from refseg_core.settings import Conventions
from refseg_core.tables import Categories, Detections, ExportedDetections, Images

_ROWS_PER_CHUNK = 256

Row = dict[str, Any]
Segmentation = Callable[[Rle], dict[str, Any] | list[list[int]]]


def coco_results(
    detections: Iterable[Detections], export_id: Mapping[str, int | str], *, conventions: Conventions = "corrected"
) -> Iterator[Row]:
    """COCO's results: image_id, category_id, bbox (xywh), score and segmentation (run lengths) of each detection.

    `detections`: tables in the order to write, such as one per shard. `export_id`: what is written for each image_id
    (`export_ids`); instances in others are left out. `conventions` "original" makes boxes one pixel smaller in width
    and height, as the published code does.
    """
    for table in detections:
        for row in _rows_to_write(table, export_id):
            yield {
                "image_id": export_id[table.image_id[row]],
                "category_id": int(table.category_id[row]),
                "bbox": box_xywh(table.box_xyxy[row], conventions),
                "score": float(table.score[row]),
                "segmentation": table.mask_rle[row].to_coco(),
            }


def coco_dataset(
    detections: Iterable[ExportedDetections],
    images: Images,
    categories: Categories,
    *,
    export_id: Mapping[str, int | str],
    segmentation: Segmentation,
    info: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Yields the text of a COCO dataset file in pieces: info, all images (also empty ones), categories and annotations.

    `detections`: tables in the order to write, such as one per shard. Besides COCO's keys annotations carry their score
    and instance_id (as `refseg_id`, since FiftyOne keeps the other name for itself), and `number` as their id. `images`
    have the size that they were labeled at, which is the frame of masks; instances in others are left out. `export_id`:
    what is written for each image_id (`export_ids`).
    `segmentation` returns what is written for a mask: run lengths, or polygons.
    """
    yield '{"info": ' + _json(dict(info or {})) + ',\n"images": '
    yield from json_array(_image_rows(images, export_id))
    yield ',\n"categories": '
    named = zip(categories.category_id.tolist(), categories.name, strict=True)
    yield from json_array({"id": category_id, "name": name, "supercategory": ""} for category_id, name in named)
    yield ',\n"annotations": '
    own = {image_id: export_id[image_id] for image_id in images.image_id}
    yield from json_array(annotation_rows(detections, own, segmentation))
    yield "}\n"


def json_array(rows: Iterable[Row]) -> Iterator[str]:
    """Yields the text of a json list of objects in pieces of many rows each, one row a line."""
    lines: list[str] = []
    separator = "["
    for row in rows:
        lines.append(_json(row))
        if len(lines) == _ROWS_PER_CHUNK:
            yield separator + ",\n".join(lines)
            lines, separator = [], ",\n"
    yield (separator if lines or separator == "[" else "") + ",\n".join(lines) + "]"


def export_ids(images: Images) -> dict[str, int | str]:
    """Returns what is written for each image_id.

    These are the dataset's own ids, numbers as numbers. Where they are the file names, as in a plain listing, these are
    1 to N in the order of `images`.
    """
    ids = images.image_id.tolist()
    if ids == images.file_name.tolist():
        return {image_id: number for number, image_id in enumerate(ids, start=1)}
    written = zip(ids, images.has_integer_id.tolist(), strict=True)
    return {image_id: int(image_id) if is_integer else image_id for image_id, is_integer in written}


def _json(value: Row) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _rows_to_write(table: Detections, export_id: Mapping[str, int | str]) -> list[int]:
    return [row for row, image_id in enumerate(table.image_id) if image_id in export_id]


def box_xywh(box_xyxy: npt.NDArray[np.float64], conventions: Conventions = "corrected") -> list[float]:
    """Returns a box as COCO writes it."""
    left, top, right, bottom = box_xyxy.tolist()
    shrink = 1 if conventions == "original" else 0
    return [left, top, right - left - shrink, bottom - top - shrink]


def _image_rows(images: Images, export_id: Mapping[str, int | str]) -> Iterator[Row]:
    sizes = zip(images.height.tolist(), images.width.tolist(), strict=True)
    for image_id, name, (height, width) in zip(images.image_id, images.file_name, sizes, strict=True):
        yield {"id": export_id[image_id], "file_name": name, "height": height, "width": width}


def annotation_rows(
    detections: Iterable[ExportedDetections], export_id: Mapping[str, int | str], segmentation: Segmentation
) -> Iterator[Row]:
    """Yields the annotations of a dataset, those in the images of `export_id`; see `coco_dataset`."""
    for table in detections:
        for row in _rows_to_write(table, export_id):
            mask = table.mask_rle[row]
            yield {
                "id": int(table.number[row]),
                "image_id": export_id[table.image_id[row]],
                "category_id": int(table.category_id[row]),
                "bbox": box_xywh(table.box_xyxy[row]),
                "area": int(mask_areas([mask])[0]),
                "iscrowd": 0,
                "score": float(table.score[row]),
                "refseg_id": str(table.instance_id[row]),
                "segmentation": segmentation(mask),
            }
