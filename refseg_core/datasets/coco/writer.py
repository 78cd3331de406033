"""Detections as COCO json: a list of results, or a whole dataset.

Here: the rows and the json text in pieces. Not here: files (callers write the pieces), polygons around masks
(`refseg_core/masks/contours.py`), and reading COCO (`parser.py`). Nothing holds all rows: detections come as one table
per shard.

Image ids are those of the dataset the labels belong to, numbers as numbers and text as text, in both formats, so
that results fit the annotation file they are compared with. A plain listing has no ids but file names: its images
are numbered from 1 in their order, in both formats, and the dataset's `file_name` says which is which.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refseg_core.masks.contours import polygons_of_mask
from refseg_core.masks.rle import decode_mask, mask_areas
from refseg_core.settings import Conventions
from refseg_core.tables import Categories, Detections, Images, LabeledImages

SegmentationFormat = Literal["rle", "polygons"]

_ROWS_PER_CHUNK = 256

Row = dict[str, Any]


def coco_results(
    detections: Iterable[Detections],
    images: Images,
    *,
    conventions: Conventions = "corrected",
    min_score: float = 0.0,
) -> Iterator[Row]:
    """COCO's results: image_id, category_id, bbox (xywh), score and segmentation (run lengths) of each detection.

    `detections`: tables in the order to write, such as one per shard. `conventions` "original" makes boxes one pixel
    smaller in width and height, as the published code does. Left out are scores below `min_score`, and images that are
    not among `images`.
    """
    export_id = export_ids(images)
    for table in detections:
        for row in _rows_to_write(table, export_id, min_score):
            yield {
                "image_id": export_id[table.image_id[row]],
                "category_id": int(table.category_id[row]),
                "bbox": _box_xywh(table.box_xyxy[row], conventions),
                "score": float(table.score[row]),
                "segmentation": table.mask_rle[row].to_coco(),
            }


def coco_dataset(
    detections: Iterable[Detections],
    images: Images,
    labeled: LabeledImages,
    categories: Categories,
    *,
    segmentation: SegmentationFormat = "rle",
    min_score: float = 0.0,
    info: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Yields the text of a COCO dataset file in pieces: info, all images (also empty ones), categories and annotations.

    `detections`: tables in the order to write, such as one per shard. Annotations carry their score besides COCO's
    keys. Their ids count all detections from 1, before any is left out, so that neither another `min_score` nor
    another `segmentation` renumbers them. Left out are the same as in `coco_results`.
    `labeled` gives the size that an image was labeled at, which is the frame of its masks; an image that could not be
    read has the size the dataset declares, else 0.
    `segmentation` "polygons" writes the outlines of each mask along pixel edges, from which COCO's tools make exactly
    the mask again, but COCO's polygons cannot have holes: these are filled. "rle" writes masks exactly.
    """
    export_id = export_ids(images)
    yield '{"info": ' + _json(dict(info or {})) + ',\n"images": '
    yield from json_array(_image_rows(images, labeled, export_id))
    yield ',\n"categories": '
    named = zip(categories.category_id.tolist(), categories.name, strict=True)
    yield from json_array({"id": category_id, "name": name, "supercategory": ""} for category_id, name in named)
    yield ',\n"annotations": '
    yield from json_array(_annotation_rows(detections, export_id, segmentation, min_score))
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


def _rows_to_write(table: Detections, export_id: Mapping[str, int | str], min_score: float) -> list[int]:
    is_known = np.array([image_id in export_id for image_id in table.image_id], dtype=bool)
    rows: list[int] = np.flatnonzero(is_known & (table.score >= np.float32(min_score))).tolist()
    return rows


def _box_xywh(box_xyxy: npt.NDArray[np.float64], conventions: Conventions) -> list[float]:
    left, top, right, bottom = box_xyxy.tolist()
    shrink = 1 if conventions == "original" else 0
    return [left, top, right - left - shrink, bottom - top - shrink]


def _image_rows(images: Images, labeled: LabeledImages, export_id: Mapping[str, int | str]) -> Iterator[Row]:
    sizes = zip(labeled.height.tolist(), labeled.width.tolist(), strict=True)
    labeled_size = {image_id: size for image_id, size in zip(labeled.image_id, sizes, strict=True) if all(size)}
    for row, (image_id, name) in enumerate(zip(images.image_id, images.file_name, strict=True)):
        height, width = labeled_size.get(image_id, (int(images.height[row]), int(images.width[row])))
        yield {"id": export_id[image_id], "file_name": name, "height": height, "width": width}


def _annotation_rows(
    detections: Iterable[Detections],
    export_id: Mapping[str, int | str],
    segmentation: SegmentationFormat,
    min_score: float,
) -> Iterator[Row]:
    num_before = 0
    for table in detections:
        for row in _rows_to_write(table, export_id, min_score):
            mask = table.mask_rle[row]
            yield {
                "id": num_before + row + 1,
                "image_id": export_id[table.image_id[row]],
                "category_id": int(table.category_id[row]),
                "bbox": _box_xywh(table.box_xyxy[row], "corrected"),
                "area": int(mask_areas([mask])[0]),
                "iscrowd": 0,
                "score": float(table.score[row]),
                "segmentation": mask.to_coco() if segmentation == "rle" else polygons_of_mask(decode_mask(mask)),
            }
        num_before += len(table)
