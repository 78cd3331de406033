"""CVAT for images 1.1: one XML file for a whole task, with an <image> for each image.

Boxes stay boxes, unless they are rotated; those, polygons, ellipses and masks become masks. Shapes of one label and
group_id are one instance; those that are `outside` are not there. Points, polylines, tags, skeletons and cuboids mark
no area and are left out, with a warning that counts them. Categories are the labels of the task, in its order.
"""

import logging
import math
from collections import Counter
from xml.etree.ElementTree import Element

import numpy as np

from refseg_core.datasets.builder import Gathering, Shape, joined, skipped
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.safe_xml import XmlError, parse_xml
from refseg_core.errors import DatasetError
from refseg_core.masks.rle import rle_of_part

logger = logging.getLogger(__name__)

_BAD_IMAGE = "an <image> has no name, or no whole numbers width and height: export the task again"
_BAD_SHAPE = (
    "a shape's attributes are not the numbers that it needs (box: xtl ytl xbr ybr, polygon: points, ellipse: cx cy rx "
    "ry, mask: rle left top width height): export the task again"
)
_AREAS = ("box", "polygon", "ellipse", "mask")
_ELLIPSE_CORNERS = 64
_TRIANGLE = 3
_MAX_MASK_PIXELS = 100_000_000


def read_cvat(document: bytes, *, source: str) -> Dataset:
    """The dataset of a CVAT file. Raises DatasetError with everything that is wrong."""
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
    gathering, left_out = Gathering(source, _labels(root)), Counter[str]()
    for number, entry in enumerate(root.findall("image"), start=1):
        _add_image(gathering, number, entry, left_out)
    if left_out:
        logger.warning("%s: left out what marks no area: %s", source, skipped(left_out))
    return gathering.dataset()


def _labels(root: Element) -> list[str] | None:
    """The task's labels; None where the file does not list them."""
    names = [(label.findtext("name") or "").strip() for label in root.iterfind("meta//labels/label")]
    return list(dict.fromkeys(name for name in names if name)) or None


def _add_image(gathering: Gathering, number: int, entry: Element, left_out: Counter[str]) -> None:
    name = entry.get("name")
    try:
        height, width = int(entry.get("height", "")), int(entry.get("width", ""))
    except ValueError:
        height, width = 0, 0
    if not name or not height or not width:
        gathering.problems.add(_BAD_IMAGE, f"image number {number} with {dict(entry.attrib)}")
        return
    if not gathering.add_image(name, height, width):
        return
    instances: dict[tuple[str, ...], tuple[str, str, list[Shape]]] = {}
    for position, shape_entry in enumerate(entry, start=1):
        place = f"{name}#{position}"
        if shape_entry.tag not in _AREAS:
            left_out[shape_entry.tag] += 1
        elif shape_entry.get("outside") != "1":
            try:
                shape = _shape(shape_entry, height, width)
            except (ValueError, OverflowError):
                gathering.problems.add(_BAD_SHAPE, f"{place} ({shape_entry.tag})")
                continue
            label, group = (shape_entry.get("label") or "").strip(), shape_entry.get("group_id", "0")
            key = (place,) if group == "0" else (label, group)
            instances.setdefault(key, (place, label, []))[2].append(shape)
    for place, label, shapes in instances.values():
        gathering.add_instance(place, name, label, joined(shapes))


def _shape(entry: Element, height: int, width: int) -> Shape:
    """What an element says. Raises ValueError or OverflowError where it is damaged."""
    if entry.tag == "polygon":
        points = [float(axis) for point in entry.get("points", "").split(";") for axis in _pair(point)]
        return Shape(polygons=(_all_finite(points, 2 * _TRIANGLE),))
    if entry.tag == "mask":
        return _mask(entry, height, width)
    rotation = float(entry.get("rotation", "0"))
    if entry.tag == "ellipse":
        x, y, x_radius, y_radius = _numbers(entry, "cx", "cy", "rx", "ry")
        angles = [2 * math.pi * corner / _ELLIPSE_CORNERS for corner in range(_ELLIPSE_CORNERS)]
        around = [(x_radius * math.cos(angle), y_radius * math.sin(angle)) for angle in angles]
        return Shape(polygons=(_turned(around, x, y, rotation),))
    left, top, right, bottom = _numbers(entry, "xtl", "ytl", "xbr", "ybr")
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


def _mask(entry: Element, height: int, width: int) -> Shape:
    """Run lengths of a part of the image, row by row, beginning with background."""
    left, top, part_width, part_height = (int(entry.get(key, "")) for key in ("left", "top", "width", "height"))
    lengths = [int(length) for length in entry.get("rle", "").split(",")]
    num_pixels = part_width * part_height
    if min(part_width, part_height) < 1 or num_pixels > _MAX_MASK_PIXELS:
        raise ValueError(num_pixels)
    if min(lengths) < 0 or sum(lengths) != num_pixels:
        raise ValueError(lengths)
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(part_height, part_width)
    return Shape(masks=(rle_of_part(pixels, top=top, left=left, height=height, width=width),))


def _pair(point: str) -> tuple[str, str]:
    x, y = point.split(",")
    return x, y


def _numbers(entry: Element, *names: str) -> list[float]:
    return _all_finite([float(entry.get(name, "")) for name in names], len(names))


def _all_finite(values: list[float], at_least: int) -> list[float]:
    if len(values) < at_least or not all(map(math.isfinite, values)):
        raise ValueError(values)
    return values
