"""PASCAL VOC: an XML file for each image, with an <object> for each instance.

Boxes are pixels counted from 1, the last one included: xmin 1, xmax 10 is ten pixels wide. A difficult object becomes a
crowd: neither found nor missed in the evaluation, as in VOC's own, and never a reference (with one difference: a crowd
may excuse several detections, and by the part of them that lies within it). Roboflow's <polygon> becomes the mask.
"""

from collections.abc import Iterable, Iterator, Sequence
from xml.etree.ElementTree import Element

from refseg_core.datasets.builder import DatasetBuilder, LabeledShape, NamedFile, Shape
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.datasets.values.safe_xml import FLAG_IN_WORDS, XmlError, is_true, parse_xml
from refseg_core.errors import counted
from refseg_core.settings.numbers import to_float, to_int

_NOT_XML = "a file is not XML that can be read: export it again"
_NOT_VOC = "a file is no PASCAL VOC annotation: expected the root <annotation>"
_BAD_SIZE = "a file's <size> has no whole numbers <width> and <height>: correct or remove it"
_BAD_BOX = "an object's <bndbox> has no numbers xmin, ymin, xmax, ymax: correct it"
_NO_EXTENT = "an object's <bndbox> has xmax under xmin or ymax under ymin: correct it"
_BAD_POLYGON = "an object's <polygon> has no numbers x1, y1, x2, y2, x3, y3, ..., a y for each x: correct or remove it"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TRIANGLE = 3


def read_voc(
    files: Iterable[NamedFile],
    images: ImageNames,
    *,
    source: str,
    classes: Sequence[str] | None = None,
    folder: ImageFolder | None = None,
) -> Dataset:
    """Returns the dataset of a folder of VOC files; its images are those that have a file.

    `classes`: all names in the order of their ids, from 1; None: those that occur, sorted (which numbers VOC's own
    twenty as VOC does). `folder`: where the images lie, if that is known. Raises DatasetError with everything that
    is wrong.
    """
    builder = DatasetBuilder(source, classes, folder=folder)
    for file in files:
        try:
            root = parse_xml(file.data)
        except XmlError as error:
            builder.problems.add(_NOT_XML, f"{file.name}: {error}")
            continue
        if root.tag != "annotation":
            builder.problems.add(_NOT_VOC, f"{file.name} with <{root.tag}>")
            continue
        image = images.find(file.name, builder.problems, _text(root, "filename"), builder.read_as, builder.oddities.add)
        if image is not None and builder.add_image(image, *_size(builder, file.name, root), file.name):
            builder.add_shapes(image, _objects(builder, file.name, root))
    return builder.dataset()


def _size(builder: DatasetBuilder, name: str, root: Element) -> tuple[int, int]:
    """(height, width); 0 where the file does not say."""
    given = [_text(root, "size/height") or "0", _text(root, "size/width") or "0"]
    try:
        height, width = map(to_int, given)
    except ValueError:
        builder.problems.add(_BAD_SIZE, f"{name} with [height, width] {given}")
        return 0, 0
    return height, width


def _objects(builder: DatasetBuilder, name: str, root: Element) -> Iterator[LabeledShape]:
    for number, entry in enumerate(root.findall("object"), start=1):
        place = f"{name}#{number}"
        box = _numbers(entry, [f"bndbox/{corner}" for corner in _CORNERS])
        polygon = _polygon(entry)
        if box is None:
            found = [_text(entry, f"bndbox/{corner}") for corner in _CORNERS]
            builder.problems.add(_BAD_BOX, f"{place} with {found}")
        elif min(box[2] - box[0], box[3] - box[1]) < -1:  # the last pixel is included
            builder.problems.add(_NO_EXTENT, f"{place} with {box}")
        elif polygon is None:
            builder.problems.add(_BAD_POLYGON, f"{place} with {counted(len(entry.findall('polygon/*')), 'number')}")
        else:
            left, top, right, bottom = box
            shape = Shape((left - 1, top - 1, right - left + 1, bottom - top + 1), (polygon,) if polygon else ())
            difficult = _text(entry, "difficult")
            if is_true(difficult) and difficult != "1":
                builder.read_as(FLAG_IN_WORDS, f"{place}: difficult is {difficult}")
            yield LabeledShape(place, _text(entry, "name"), None, shape, is_crowd=is_true(difficult))


def _polygon(entry: Element) -> list[float] | None:
    """Returns the points of an object's polygon, none where it has no polygon; None where they are damaged."""
    polygon = entry.find("polygon")
    if polygon is None or not len(polygon):
        return []
    num_points = len(polygon) // 2
    points = _numbers(polygon, [f"{axis}{number}" for number in range(1, num_points + 1) for axis in "xy"])
    return points if num_points >= _TRIANGLE and len(polygon) % 2 == 0 else None


def _numbers(entry: Element, names: Sequence[str]) -> list[float] | None:
    try:
        return [to_float(_text(entry, name) or "") for name in names]
    except ValueError:
        return None


def _text(entry: Element, name: str) -> str | None:
    return (entry.findtext(name) or "").strip() or None
