"""CVAT for images 1.1: one XML file for a whole task, with an <image> for each image.

Boxes stay boxes, unless they are rotated; those, polygons, ellipses and masks become masks. Shapes of one label and
group_id are one instance; those that are `outside` are not there. Points, polylines, tags, skeletons and cuboids mark
no area and are left out, which is told with their count. Categories are the labels of the task, in its order, but for
those of such shapes.
"""

import math
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np

from refseg_core.datasets.builder import (
    MAX_MASK_PIXELS,
    NO_GROUP,
    DatasetBuilder,
    LabeledShape,
    MaskPart,
    Shape,
    ellipse,
)
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.datasets.values.safe_xml import FLAG_IN_WORDS, XmlError, is_true, parse_xml
from refseg_core.errors import DatasetError
from refseg_core.settings.numbers import to_float, to_int

_BAD_IMAGE = "an <image> has no name, or no whole numbers width and height: export the task again"
_BAD_SHAPE = (
    "a shape's attributes are not the numbers that it needs (box: xtl ytl, xbr ybr not under them, polygon: points, "
    "ellipse: cx cy rx ry, mask: rle left top width height): export the task again"
)
_LEFT_OUT = "labels of skeletons, their points and other shapes that mark no area: they are no categories"
_WITHOUT_AREA = {"skeleton", "points", "polyline", "tag", "cuboid"}  # types of labels
_NO_GROUP = ("", "0", "-1")
_AREAS = ("box", "polygon", "ellipse", "mask")
_TRIANGLE = 3


def read_cvat(document: bytes, *, source: str, folder: ImageFolder | None = None) -> Dataset:
    """Returns the dataset of a CVAT file, whose images lie in `folder`, if that is known.

    Raises DatasetError with everything that is wrong.
    """
    try:
        root = parse_xml(document)
    except XmlError as error:
        raise DatasetError(f"{source} is not XML that can be read: {error}. Expected a CVAT export.") from error
    if root.tag != "annotations":
        raise DatasetError(
            f"{source}: expected CVAT's root <annotations>, got <{root.tag}>. For PASCAL VOC give the folder of its "
            "files, and not one of them."
        )
    if root.find("track") is not None:
        raise DatasetError(
            f"{source} holds tracks, as 'CVAT for video' has them. Export the task as 'CVAT for images 1.1'."
        )
    labels = list(root.iterfind("meta//labels/label"))
    is_left_out = {_text(label, "name"): _marks_no_area(label) for label in labels}
    used = {entry.get("label", "").strip() for entry in root.iterfind("image/*") if entry.tag in _AREAS}
    names = [_text(label, "name") for label in labels]
    left_out = dict.fromkeys(name for name in names if is_left_out[name] and name not in used)
    names = [name for name in names if name not in left_out]
    builder = DatasetBuilder(source, list(dict.fromkeys(name for name in names if name)) or None, folder=folder)
    for name in left_out:
        builder.read_as(_LEFT_OUT, name)
    for number, entry in enumerate(root.findall("image"), start=1):
        _add_image(builder, number, entry)
    return builder.dataset()


def _marks_no_area(label: Element) -> bool:
    """Returns whether a label is for shapes that mark no area only: those of skeletons have parents."""
    return bool(_text(label, "parent")) or _text(label, "type") in _WITHOUT_AREA


def _text(label: Element, name: str) -> str:
    return (label.findtext(name) or "").strip()


def _add_image(builder: DatasetBuilder, number: int, entry: Element) -> None:
    name = entry.get("name")
    try:
        height, width = to_int(entry.get("height", "")), to_int(entry.get("width", ""))
    except ValueError:
        height, width = 0, 0
    if not name or not height or not width:
        builder.problems.add(_BAD_IMAGE, f"image number {number} with {dict(entry.attrib)}")
    elif builder.add_image(name, height, width, f"image number {number}"):
        builder.add_shapes(name, _shapes(builder, name, entry))


def _shapes(builder: DatasetBuilder, name: str, image: Element) -> Iterator[LabeledShape]:
    for position, entry in enumerate(image, start=1):
        place = f"{name}#{position}"
        if entry.tag not in _AREAS:
            builder.leave_out(entry.tag, place)
        elif is_true(outside := entry.get("outside")):
            if outside != "1":
                builder.read_as(FLAG_IN_WORDS, f"{place}: outside is {outside}")
        else:
            group = entry.get("group_id", "0")
            try:
                shape = _shape(entry)
            except (ValueError, OverflowError):
                builder.problems.add(_BAD_SHAPE, f"{place} ({entry.tag})")
                continue
            label = (entry.get("label") or "").strip()
            if group in ("", "-1"):
                builder.read_as(NO_GROUP, place)
            yield LabeledShape(place, label, None if group in _NO_GROUP else group, shape)


def _shape(entry: Element) -> Shape:
    """Returns what an element says. Raises ValueError or OverflowError where it is damaged."""
    if entry.tag == "polygon":
        pairs = (point.split(",") for point in entry.get("points", "").split(";"))
        points = [to_float(axis) for x, y in pairs for axis in (x, y)]
        return Shape(polygons=(_all_finite(points, 2 * _TRIANGLE),))
    if entry.tag == "mask":
        return _mask(entry)
    rotation = to_float(entry.get("rotation", "0"))
    if entry.tag == "ellipse":
        x, y, x_radius, y_radius = _numbers(entry, "cx", "cy", "rx", "ry")
        if min(x_radius, y_radius) < 0:
            raise ValueError((x_radius, y_radius))
        return Shape(polygons=(_turned(ellipse(0, 0, x_radius, y_radius), x, y, rotation),))
    left, top, right, bottom = _numbers(entry, "xtl", "ytl", "xbr", "ybr")
    if right < left or bottom < top:
        raise ValueError((left, top, right, bottom))
    if not rotation:
        return Shape(box=(left, top, right - left, bottom - top))
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    corners = [(-half_width, -half_height), (half_width, -half_height), (half_width, half_height)]
    corners.append((-half_width, half_height))
    return Shape(polygons=(_turned(corners, (left + right) / 2, (top + bottom) / 2, rotation),))


def _turned(points: list[tuple[float, float]], x: float, y: float, degrees: float) -> list[float]:
    """Points around (x, y), turned clockwise as people see it."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = [(x + dx * cosine - dy * sine, y + dx * sine + dy * cosine) for dx, dy in points]
    return _all_finite([axis for point in turned for axis in point], len(points))


def _mask(entry: Element) -> Shape:
    """Run lengths of a part of the image, row by row, beginning with background."""
    left, top, part_width, part_height = (to_int(entry.get(key, "")) for key in ("left", "top", "width", "height"))
    lengths = [to_int(length) for length in entry.get("rle", "").split(",")]
    num_pixels = part_width * part_height
    if min(part_width, part_height) < 1 or num_pixels > MAX_MASK_PIXELS:
        raise ValueError(num_pixels)
    if min(lengths) < 0 or sum(lengths) != num_pixels:
        raise ValueError(lengths)
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(part_height, part_width)
    return Shape(masks=(MaskPart(pixels, top=top, left=left),))


def _numbers(entry: Element, *names: str) -> list[float]:
    return _all_finite([to_float(entry.get(name, "")) for name in names], len(names))


def _all_finite(values: list[float], at_least: int) -> list[float]:
    if len(values) < at_least or not all(map(math.isfinite, values)):
        raise ValueError(values)
    return values
