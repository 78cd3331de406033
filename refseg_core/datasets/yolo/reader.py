"""A folder of YOLO's text files, with a line for each instance; coordinates are fractions of the image's sides.

Classes count from 0, and are the categories' ids. An image without a file has no instance, as the format has it. Not
here: what the numbers of a line mean (`lines.py`).
"""

from collections.abc import Sequence

from refseg_core.datasets.builder import AnnotationFolder, DatasetBuilder, NamedFile, Shape
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.datasets.yolo.lines import (
    LOOK_LIKE_POSES,
    MIXED_LINES,
    POSES,
    SCORED_BOXES,
    LineError,
    PoseEvidence,
    are_scored_boxes,
    find_mixed,
    fractions_of_line,
)

_NOT_TEXT = "a file is not text: expected a line for each instance"
_BAD_CLASS = "a line's class is not the number, from 0, of a name in the list of classes: correct it or the list"
_NO_SIZE = "an image with labels has no size that can be read, so that its fractions mean nothing: repair or remove it"
_BOX = 4
_MANY = 3  # lines that look like poses: of fewer, polygons may by chance


def read_yolo(
    files: AnnotationFolder,
    images: ImageNames,
    *,
    source: str,
    classes: Sequence[str],
    keypoints: tuple[int, int] | None = None,
) -> Dataset:
    """Returns the dataset of a folder of YOLO files; its images are all that there are, sorted by name.

    `classes`: all names, by number. `keypoints`: how many of them follow each box, and of how many numbers each, where
    lines are poses. Raises DatasetError with everything that is wrong.
    """
    builder = DatasetBuilder(source, classes, first_id=0)
    sizes = files.image_sizes(sorted({image for name in files.names for image in images.alike(name)}))
    for name in images.names:
        builder.add_image(name, *sizes.get(name, (0, 0)))
    reader = _LineReader(builder, classes, keypoints)
    for file in files:
        image = images.find(file.name, builder.problems, note=builder.read_as)
        if image is not None and builder.is_only_place(image, file.name):
            reader.add(file, image, sizes[image])
    reader.finish()
    return builder.dataset()


class _LineReader:
    """Adds the lines of files to a dataset."""

    def __init__(self, builder: DatasetBuilder, classes: Sequence[str], keypoints: tuple[int, int] | None) -> None:
        self._builder = builder
        self._classes = classes
        self._keypoints = keypoints
        self._poses, self._first_pose = PoseEvidence(), ""

    def add(self, file: NamedFile, image: str, size: tuple[int, int]) -> None:
        """Adds the instances of an image of that (height, width)."""
        problems = self._builder.problems
        try:
            text = file.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problems.add(_NOT_TEXT, f"{file.name}: {error.reason} at byte {error.start}")
            return
        lines = {number: line for number, line in enumerate(text.splitlines(), start=1) if line.strip()}
        if lines and not all(size):
            problems.add(_NO_SIZE, image)
            return
        is_scored = self._keypoints is None and are_scored_boxes(list(lines.values()))
        if is_scored:
            self._builder.read_as(SCORED_BOXES, file.name)
        elif lines and self._keypoints is not None:
            self._builder.read_as(POSES, file.name)
        elif (mixed := find_mixed(lines)) is not None:
            problems.add(MIXED_LINES, f"{file.name}#{mixed}: {lines[mixed].strip()}")
            return
        for number, line in lines.items():
            place = f"{file.name}#{number}"
            try:
                kind, fractions = fractions_of_line(line, is_scored=is_scored, keypoints=self._keypoints)
                self._builder.add_instance(place, image, self._name_of(kind), _shape(fractions, size))
                self._poses.add(fractions)
                self._first_pose = self._first_pose or place
            except LineError as error:
                problems.add(str(error), f"{place}: {line.strip()[:60]}")

    def finish(self) -> None:
        """Tells of lines that look like poses, which are a problem where they are more than a chance."""
        count, builder = self._poses.count, self._builder
        (builder.problems if count >= _MANY else builder.oddities).add_all(LOOK_LIKE_POSES, [self._first_pose] * count)

    def _name_of(self, kind: float) -> str:
        """Returns the name of a class. Raises LineError."""
        if not kind.is_integer() or not 0 <= kind < len(self._classes):
            raise LineError(_BAD_CLASS)
        return self._classes[int(kind)]


def _shape(fractions: list[float], size: tuple[int, int]) -> Shape:
    pixels = [value * size[1 - axis % 2] for axis, value in enumerate(fractions)]  # x by width, y by height
    if len(pixels) != _BOX:
        return Shape(polygons=(pixels,))
    x_center, y_center, box_width, box_height = pixels
    return Shape(box=(x_center - box_width / 2, y_center - box_height / 2, box_width, box_height))
