"""labelme: a json file for each image, with a list of shapes.

Polygons, circles, oriented rectangles and masks become masks, rectangles boxes; shapes of one label and group_id are
one instance. Points and lines mark no area and are left out, which is told with their count.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.builder import (
    MAX_MASK_PIXELS,
    NO_GROUP,
    DatasetBuilder,
    LabeledShape,
    MaskPart,
    NamedFile,
    Shape,
    ellipse,
)
from refseg_core.datasets.coco.json_values import is_finite, whole_number
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.errors import ImageError
from refseg_core.images import decode_values

_NOT_JSON = "a file is not json that can be read: save it again"
_NOT_LABELME = (
    "a file is no labelme annotation: expected an object with a list of shapes; "
    "files of another format belong elsewhere"
)
_BAD_SHAPE = (
    "a shape has not the points that its shape_type needs, each [x, y] of finite numbers (polygon: 3 or more, "
    "rectangle: 2 or 4, circle and mask: 2, oriented_rectangle, rotation and quadrilateral: 4): correct or remove it"
)
_BAD_MASK = "a shape's mask is no PNG in base64: save the file again"
_BAD_MASK_SIZE = "a shape's points span another size than its mask has: save the file again"
_MASK_SLACK = 1.5  # px, around between the last pixel included and not
_NUM_POINTS = {"rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}
_OF_FOUR_POINTS = ("rectangle", "rotation", "quadrilateral")  # X-AnyLabeling's: boxes, unless they are turned
_NEAR = 1e-3  # px
_NO_GROUP = (None, "", -1, "-1")  # 0 is one: labelme counts its groups from 0
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_TRIANGLE = 3


class _ShapeError(ValueError):
    """Which kind of problem a shape has."""


def read_labelme(
    files: Iterable[NamedFile],
    images: ImageNames,
    *,
    source: str,
    classes: Sequence[str] | None = None,
    folder: ImageFolder | None = None,
) -> Dataset:
    """Returns the dataset of a folder of labelme files; its images are those that have a file.

    `classes`: all names in the order of their ids, from 1; None: those that occur, sorted. `folder`: where the
    images lie, if that is known. Raises DatasetError with everything that is wrong.
    """
    builder = DatasetBuilder(source, classes, folder=folder)
    for file in files:
        try:
            content = json.loads(file.data)
        except (ValueError, RecursionError) as error:
            builder.problems.add(_NOT_JSON, f"{file.name}: {error}")
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            builder.problems.add(_NOT_LABELME, file.name)
            continue
        declared = content.get("imagePath")
        declared = declared if isinstance(declared, str) else None
        image = images.find(file.name, builder.problems, declared, builder.read_as, builder.oddities.add)
        if image is None:
            continue
        height, width = (whole_number(content.get(key)) or 0 for key in ("imageHeight", "imageWidth"))
        if builder.add_image(image, height, width, file.name):
            builder.add_shapes(image, _shapes(builder, file.name, content["shapes"]))
    return builder.dataset()


def _shapes(builder: DatasetBuilder, name: str, shapes: list[Any]) -> Iterator[LabeledShape]:
    for number, given in enumerate(shapes, start=1):
        place, entry = f"{name}#{number}", given if isinstance(given, dict) else {}
        kind = entry.get("shape_type", "polygon")
        if kind in _WITHOUT_AREA:
            builder.leave_out(str(kind), place)
            continue
        try:
            shape = _shape(entry, kind)
        except _ShapeError as error:
            builder.problems.add(str(error), f"{place} ({kind})")
            continue
        label, group = entry.get("label"), entry.get("group_id")
        if group is not None and group in _NO_GROUP:
            builder.read_as(NO_GROUP, place)
        yield LabeledShape(
            place, label if isinstance(label, str) else None, None if group in _NO_GROUP else str(group), shape
        )


def _shape(entry: dict[str, Any], kind: Any) -> Shape:
    points = _points(entry.get("points"))
    expected = _NUM_POINTS.get(kind) if isinstance(kind, str) else None
    if kind in _OF_FOUR_POINTS and len(points) == 4:  # noqa: PLR2004
        return _of_four_points(points)
    if (kind == "polygon" and len(points) >= _TRIANGLE) or (kind == "oriented_rectangle" and len(points) == expected):
        return Shape(polygons=([axis for point in points for axis in point],))
    if len(points) != expected:
        raise _ShapeError(_BAD_SHAPE)
    (x1, y1), (x2, y2) = points
    if kind == "circle":
        radius = math.hypot(x2 - x1, y2 - y1)
        return Shape(polygons=([axis for point in ellipse(x1, y1, radius, radius) for axis in point],))
    left, top = min(x1, x2), min(y1, y2)
    if kind == "mask":
        part = _decoded(entry.get("mask"))
        spans = (abs(y2 - y1) + 0.5, abs(x2 - x1) + 0.5)
        if any(abs(span - side) > _MASK_SLACK for span, side in zip(spans, part.shape, strict=True)):
            raise _ShapeError(_BAD_MASK_SIZE)
        return Shape(masks=(MaskPart(part, top=round(top), left=round(left)),))
    return Shape(box=(left, top, max(x1, x2) - left, max(y1, y2) - top))


def _of_four_points(points: list[list[float]]) -> Shape:
    """Returns a box, or a polygon where the corners do not lie along the image's sides."""
    xs, ys = zip(*points, strict=True)
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    corners = {(min(x - left, right - x) < _NEAR, min(y - top, bottom - y) < _NEAR) for x, y in points}
    quarters = {(x - left < _NEAR, y - top < _NEAR) for x, y in points}
    if corners == {(True, True)} and len(quarters) == 4:  # noqa: PLR2004
        return Shape(box=(left, top, right - left, bottom - top))
    return Shape(polygons=([axis for point in points for axis in point],))


def _points(points: Any) -> list[list[float]]:
    is_list = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)  # noqa: PLR2004 x, y
    if not is_list or not all(is_finite(axis) for point in points for axis in point):
        raise _ShapeError(_BAD_SHAPE)
    return list(points)


def _decoded(encoded: Any) -> npt.NDArray[np.bool_]:
    """Decodes a mask in base64 [height, width]. Raises _ShapeError."""
    if not isinstance(encoded, str):
        raise _ShapeError(_BAD_MASK)
    try:
        return decode_values(base64.b64decode(encoded, validate=True), max_pixels=MAX_MASK_PIXELS) > 0
    except (binascii.Error, ValueError, ImageError) as error:
        raise _ShapeError(_BAD_MASK) from error
