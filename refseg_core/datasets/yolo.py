"""YOLO: a text file for each image, with a line for each instance; coordinates are fractions of the image's sides.

    class x_center y_center width height          a box
    class x1 y1 x2 y2 x3 y3 ...                   a polygon; with four points also an oriented box

Classes count from 0, and are the categories' ids. An image without a file has no instance, as the format has it.
"""

import math
from collections.abc import Sequence

from refseg_core.datasets.builder import AnnotationFolder, DatasetBuilder, NamedFile, Shape
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.lookup import ImageNames

_NOT_TEXT = "a file is not text: expected a line for each instance"
_BAD_LINE = (
    "a line is neither 'class x_center y_center width height' nor 'class x1 y1 x2 y2 x3 y3 ...', all of them numbers: "
    "correct it"
)
_BAD_CLASS = "a line's class is not the number, from 0, of a name in the list of classes: correct it or the list"
_NOT_FRACTIONS = (
    "a line's coordinates are not fractions of the image's width and height, from 0 to 1: divide pixels by them"
)
_NO_SIZE = "an image with labels has no size that can be read, so that its fractions mean nothing: repair or remove it"
_BOX, _TRIANGLE = 4, 6
_SLACK = 0.1  # what tools draw beyond the edge


class _LineError(ValueError):
    """Which kind of problem a line has."""


def read_yolo(files: AnnotationFolder, images: ImageNames, *, source: str, classes: Sequence[str]) -> Dataset:
    """Returns the dataset of a folder of YOLO files; its images are all that there are, sorted by name.

    `classes`: all names, by number. Raises DatasetError with everything that is wrong.
    """
    builder = DatasetBuilder(source, classes, first_id=0)
    sizes = files.image_sizes(sorted({image for name in files.names for image in images.candidates(name)}))
    for name in images.names:
        builder.add_image(name, *sizes.get(name, (0, 0)))
    for file in files:
        image = images.find(file.name, builder.problems)
        if image is not None:
            _add_lines(builder, file, image, sizes[image], classes)
    return builder.dataset()


def _add_lines(
    builder: DatasetBuilder, file: NamedFile, image: str, size: tuple[int, int], classes: Sequence[str]
) -> None:
    try:
        lines = file.data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        builder.problems.add(_NOT_TEXT, f"{file.name}: {error.reason} at byte {error.start}")
        return
    if any(line.strip() for line in lines) and not all(size):
        builder.problems.add(_NO_SIZE, image)
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label, shape = _read_line(line, size, classes)
        except _LineError as error:
            builder.problems.add(str(error), f"{file.name}#{number}: {line.strip()[:60]}")
        else:
            builder.add_instance(f"{file.name}#{number}", image, label, shape)


def _read_line(line: str, size: tuple[int, int], classes: Sequence[str]) -> tuple[str, Shape]:
    """Returns the name of the class, and what marks the instance. Raises _LineError."""
    values = _numbers(line)
    is_box = len(values) == 1 + _BOX
    if not is_box and (len(values) < 1 + _TRIANGLE or len(values) % 2 == 0):
        raise _LineError(_BAD_LINE)
    kind, *fractions = values
    if not kind.is_integer() or not 0 <= kind < len(classes):
        raise _LineError(_BAD_CLASS)
    if min(fractions) < -_SLACK or max(fractions) > 1 + _SLACK:
        raise _LineError(_NOT_FRACTIONS)
    return classes[int(kind)], _shape(fractions, size)


def _shape(fractions: list[float], size: tuple[int, int]) -> Shape:
    pixels = [value * size[1 - axis % 2] for axis, value in enumerate(fractions)]  # x by width, y by height
    if len(pixels) != _BOX:
        return Shape(polygons=(pixels,))
    x_center, y_center, box_width, box_height = pixels
    return Shape(box=(x_center - box_width / 2, y_center - box_height / 2, box_width, box_height))


def _numbers(line: str) -> list[float]:
    try:
        values = [float(value) for value in line.split()]
    except ValueError as error:
        raise _LineError(_BAD_LINE) from error
    if not all(map(math.isfinite, values)):
        raise _LineError(_BAD_LINE)
    return values
