"""Detections as COCO json: a list of results, or a whole dataset.

Here: the rows, the json text in pieces, and polygons around masks. Not here: files (callers write the pieces) and
reading COCO (`refseg_core/datasets/coco/`). Nothing holds all rows: detections come as one table per shard.

Image ids are those of the dataset the labels belong to, numbers as numbers and text as text, in both formats, so
that results fit the annotation file they are compared with. A plain listing has no ids but file names: its images
are numbered from 1 in their order, in both formats, and the dataset's `file_name` says which is which.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import Masks, Rle, decode_mask, mask_areas
from refseg_core.settings import Conventions
from refseg_core.tables import Categories, Detections, Images, LabeledImages

SegmentationFormat = Literal["rle", "polygons"]

_ROWS_PER_CHUNK = 256

Row = dict[str, Any]
Integers = npt.NDArray[np.int64]


def coco_results(
    detections: Iterable[Detections],
    images: Images,
    *,
    conventions: Conventions = "corrected",
    min_score: float = 0.0,
    number_images: bool | None = None,
) -> Iterator[Row]:
    """COCO's results: image_id, category_id, bbox (xywh), score and segmentation (run lengths) of each detection.

    `detections`: tables in the order to write, such as one per shard. `conventions` "original" makes boxes one pixel
    smaller in width and height, as the published code does. `number_images`: see `export_ids`. Left out: scores below
    `min_score`, and images that are not among `images`.
    """
    export_id = export_ids(images, number_images)
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
    number_images: bool | None = None,
    info: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """The text of a COCO dataset file in pieces: info, all images (also empty ones), categories and annotations.

    `detections`: tables in the order to write, such as one per shard. Annotations carry their score besides COCO's
    keys. Their ids count all detections from 1, before any is left out, so that neither another `min_score` nor
    another `segmentation` renumbers them. Left out are the same as in `coco_results`.
    `labeled` gives the size that an image was labelled at, which is the frame of its masks; an image that could not be
    read has the size the dataset declares, else 0.
    `segmentation` "polygons" writes the outlines of each mask along pixel edges, from which COCO's tools make exactly
    the mask again, but COCO's polygons cannot have holes: these are filled. "rle" writes masks exactly.
    `number_images`: see `export_ids`; a text id that a number replaces is kept as the image's `refseg_id`.
    """
    export_id = export_ids(images, number_images)
    yield '{"info": ' + _json(dict(info or {})) + ',\n"images": '
    yield from json_array(_image_rows(images, labeled, export_id))
    yield ',\n"categories": '
    yield from json_array(_category_rows(categories))
    yield ',\n"annotations": '
    yield from json_array(_annotation_rows(detections, export_id, segmentation, min_score))
    yield "}\n"


def json_array(rows: Iterable[Row]) -> Iterator[str]:
    """The text of a json list of objects in pieces of many rows each, one row a line."""
    lines: list[str] = []
    separator = "["
    for row in rows:
        lines.append(_json(row))
        if len(lines) == _ROWS_PER_CHUNK:
            yield separator + ",\n".join(lines)
            lines, separator = [], ",\n"
    yield (separator if lines or separator == "[" else "") + ",\n".join(lines) + "]"


def export_ids(images: Images, number_images: bool | None = None) -> dict[str, int | str]:
    """What is written for each image_id.

    `number_images`: True writes 1 to N in the order of `images`, False the dataset's own ids, numbers as numbers;
    None numbers if the ids are the file names, as in a plain listing.
    """
    ids = images.image_id.tolist()
    if number_images is None:
        number_images = ids == images.file_name.tolist()
    if number_images:
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
        declared = int(images.height[row]), int(images.width[row])
        height, width = labeled_size.get(image_id, declared)
        written = export_id[image_id]
        image = {"id": written, "file_name": name, "height": height, "width": width}
        is_kept = str(written) == image_id or name == image_id
        yield image if is_kept else image | {"refseg_id": image_id}


def _category_rows(categories: Categories) -> Iterator[Row]:
    for category_id, name in zip(categories.category_id.tolist(), categories.name, strict=True):
        yield {"id": category_id, "name": name, "supercategory": ""}


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
                "segmentation": _segmentation(mask, segmentation),
            }
        num_before += len(table)


def _segmentation(mask: Rle, form: SegmentationFormat) -> Any:
    return mask.to_coco() if form == "rle" else polygons_of_mask(decode_mask(mask))


# Polygons.


def polygons_of_mask(mask_HW: Masks) -> list[list[int]]:
    """The outer outlines of a boolean mask [H, W]: one polygon [x0, y0, x1, y1, ...] per 4-connected component.

    Corners lie on pixel corners, x from 0 to W and y from 0 to H, and every edge runs along a row or a column, so that
    COCO's rasteriser gives back the mask, with holes filled. Polygons are ordered by their topmost, then leftmost
    corner and start there.
    """
    points, across, down = _corners(mask_HW)
    across_from, down_from = across.tolist(), down.tolist()
    is_left = [True] * len(points)
    polygons = []
    # Corners are sorted by row, then column: the first one left of an outline is its topmost, leftmost one.
    for first in range(len(points)):
        outline: list[int] = []
        corner = first
        while is_left[corner]:
            outline += (corner, across_from[corner])
            is_left[corner] = is_left[across_from[corner]] = False
            corner = down_from[across_from[corner]]
        # The pixel below and right of that corner is inside the outline: in the mask, or else in a hole.
        if outline and mask_HW[tuple(points[first])]:
            polygons.append(points[outline][:, ::-1].ravel().tolist())
    return polygons


def _corners(mask_HW: Masks) -> tuple[Integers, Integers, Integers]:
    """The corners (y, x) [N, 2] of a mask's outlines, sorted, and each one's neighbour along its row and its column.

    A point is a corner if an odd number of its four pixels is in the mask. Where only two diagonal ones are, two
    outlines touch and the point is two corners, each between the edges of one pixel, so that pixels that touch at a
    point only are not connected. The corners in one row, taken in pairs, are the ends of the horizontal edges there,
    those in one column of the vertical ones.
    """
    padded = np.pad(mask_HW, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (nw == se) & (ne == sw) & (nw != ne)
    single, double = _positions(nw ^ ne ^ sw ^ se), _positions(touching)
    points = np.concatenate([single, double, double])
    # Of two corners at a point, rank 0 ends the edge that comes from above or from the left, rank 1 begins the other.
    # The upper pixel's corner has the edge from above, and from the left if the upper pixel is the left one.
    upper_is_left = nw[touching].astype(np.int64)
    column_rank, row_rank = np.zeros((2, len(points)), dtype=np.int64)
    column_rank[len(single) :] = np.repeat((0, 1), len(double))
    row_rank[len(single) :] = np.concatenate([1 - upper_is_left, upper_is_left])
    order = np.lexsort((column_rank, points[:, 1], points[:, 0]))
    points, column_rank, row_rank = points[order], column_rank[order], row_rank[order]
    across = _partners(np.lexsort((row_rank, points[:, 1], points[:, 0])))
    down = _partners(np.lexsort((column_rank, points[:, 0], points[:, 1])))
    return points, across, down


def _partners(order: Integers) -> Integers:
    """For each element the one it forms a pair with, where `order` lists them pair by pair."""
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners


def _positions(is_there: npt.NDArray[np.bool_]) -> Integers:
    """The (y, x) [N, 2] of what is true, sorted; a fifth of the time of `np.argwhere`."""
    return np.stack(np.divmod(np.flatnonzero(is_there), is_there.shape[1]), axis=1)
