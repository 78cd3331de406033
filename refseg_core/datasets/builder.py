"""What the files of any format say, gathered into tables with the columns and checks of COCO's.

Here: images, instances and categories by name, one call each. Not here: what the files look like.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from refseg_core.datasets.coco.annotations import AnnotationColumns
from refseg_core.datasets.coco.columns import CategoryColumns, ImageColumns
from refseg_core.datasets.coco.segmentations import SegmentationError, read_segmentation
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.datasets.image_files.names import OTHERWISE
from refseg_core.datasets.image_files.turned import TURNED, fitting_only_turned, upright_sizes
from refseg_core.datasets.oddities import OddityCounter
from refseg_core.errors import Problems
from refseg_core.masks.rle import Masks, Rle, rle_of_part, union_of

MAX_MASK_PIXELS = 100_000_000  # of a part of an image
_ELLIPSE_CORNERS = 64
_NO_LABEL = "an annotation has no label: give it the name of its category"
_SEVERAL_PLACES = "an image is annotated in more than one place: expected one; merge them, or remove all but one"
NO_GROUP = "shapes whose group_id is empty or -1: of no group, each an instance of its own"
"""What it is called where it is told."""

_MASK_NEEDS_SIZE = "a mask of a part of an image whose size is unknown: save the file again"
_UNKNOWN_LABEL = "an annotation's label is not in the list of categories: correct it or add the name"

Polygon = Sequence[float]
"""[x0, y0, x1, y1, ...] in pixels, along pixel edges."""


class NamedFile(NamedTuple):
    """A file: its path below the annotation folder, and its bytes."""

    name: str
    data: bytes


class AnnotationFolder(Protocol):
    """A folder of annotation files, one or several about an image."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the files, in their order."""

    def __iter__(self) -> Iterator[NamedFile]:
        """Reads the files in the order of their names."""

    def image_sizes(self, images: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """Returns (height, width) of images by name, from the image files; (0, 0) where one cannot be read."""


class MaskPart(NamedTuple):
    """A mask of a part of an image: its pixels, bool [H, W], and the row and column of the first."""

    pixels: Masks
    top: int
    left: int


class Shape(NamedTuple):
    """What marks an instance, or a part of it: any of a box (x, y, width, height), polygons and masks."""

    box: tuple[float, float, float, float] | None = None
    polygons: tuple[Polygon, ...] = ()
    masks: tuple[Rle | MaskPart, ...] = ()


class LabeledShape(NamedTuple):
    """A shape as a file lists it: its place in the file, its label, and the group of shapes that it belongs to."""

    place: str
    label: str | None
    group: str | None
    shape: Shape
    is_crowd: bool = False


class DatasetBuilder:
    """A dataset that grows by images and their instances.

    `source` names the input in messages. `classes`: the names of all categories, whose ids then count up from
    `first_id`; None for the labels that occur, sorted, with ids from 1. `folder`: where the images lie, if that is
    known; it is asked about images whose shapes fit only if height and width are swapped.
    """

    def __init__(
        self,
        source: str,
        classes: Sequence[str] | None = None,
        *,
        first_id: int = 1,
        folder: ImageFolder | None = None,
    ) -> None:
        self.problems = Problems()
        self.oddities = OddityCounter()
        self._readings: set[str] = set()
        self._place_of: dict[str, str] = {}
        self._source = source
        self._first_id = first_id
        self._classes = classes
        self._seen: dict[str, int] = {} if classes is None else {name: row for row, name in enumerate(classes)}
        self._folder = folder
        self._reframed: dict[str, str] = {}
        self._images = ImageColumns(self.problems, folder=folder)
        self._annotations = AnnotationColumns(self.problems, self._images)

    def read_as(self, what: str, example: str) -> None:
        """Notes that something is understood in a way that has to be told, and that belongs to the dataset's recipe."""
        self._readings.add(what)
        self.oddities.add(what, example)

    def leave_out(self, kind: str, place: str) -> None:
        """Notes a shape that marks no area, of a kind such as 'point'."""
        self.oddities.add(f"shapes of the kind '{kind}', which mark no area: left out", place)

    def add_image(self, file_name: str, height: int, width: int, place: str = "") -> bool:
        """Adds an image, before its instances; returns whether its size can be used.

        Sizes are in pixels, 0 where unknown. One that no image can have is a problem, and nothing is to be made by it.
        `place`: where it is annotated, where that is known already; see `is_only_place`.
        """
        if place and not self.is_only_place(file_name, place):
            return False
        self._images.add({"id": file_name, "file_name": file_name, "height": height or None, "width": width or None})
        row = self._images.row_of.get(file_name)
        return row is not None and self._images.sizes[row] == (height, width)

    def is_only_place(self, file_name: str, place: str) -> bool:
        """Returns whether an image is annotated nowhere but in this place; a second one is a problem."""
        first = self._place_of.setdefault(file_name, place)
        if first != place:
            self.problems.add(_SEVERAL_PLACES, f"{file_name} in {first} and {place}")
        return first == place

    def add_instance(
        self, annotation_id: str, image: str, label: str | None, shape: Shape, *, is_crowd: bool = False
    ) -> None:
        """Adds an instance of a category by name. Its box is the given one, or around its polygons or masks."""
        if not label:
            self.problems.add(_NO_LABEL, annotation_id)
            return
        if self._classes is not None and label not in self._seen:
            self.problems.add(_UNKNOWN_LABEL, f"{annotation_id} with {label!r}")
            return
        row = self._seen.setdefault(label, len(self._seen))
        item = {"id": annotation_id, "image_id": image, "category_id": row, "iscrowd": int(is_crowd)}
        box = _box(shape)
        if box is not None:
            item["bbox"] = list(box)
        try:
            item["segmentation"] = self._segmentation(image, shape)
        except SegmentationError as error:
            self.problems.add(error.kind, f"annotation {annotation_id}{error.found}")
        self._annotations.add(item)

    def add_shapes(self, image: str, shapes: Iterable[LabeledShape]) -> None:
        """Adds the instances of an image: shapes of one label and group are one, and so is each without a group."""
        instances: dict[object, list[LabeledShape]] = {}
        for shape in shapes:
            key = shape.place if shape.group is None else (shape.label, shape.group)
            instances.setdefault(key, []).append(shape)
        joined = [(parts[0], _joined([part.shape for part in parts])) for parts in instances.values()]
        self._turn_to_fit(image, [whole for _, whole in joined])
        for first, whole in joined:
            self.add_instance(first.place, image, first.label, whole, is_crowd=first.is_crowd)

    def _turn_to_fit(self, image: str, shapes: Sequence[Shape]) -> None:
        """Takes an image's size as people see it where its shapes fit only that, though the stored one is declared."""
        row = self._images.row_of[image]
        size = self._images.sizes[row]
        reaches = np.array([(0, 0, *_reach(shape)) for shape in shapes], dtype=np.float64).reshape(-1, 4)
        if self._folder is None or not fitting_only_turned(np.array([size]), np.zeros(len(shapes), int), reaches).size:
            return
        for turned in upright_sizes(self._folder, {image: size}).values():
            self._images.sizes[row] = turned
            self._reframed[image] = f"{turned[0]} x {turned[1]}"
            self.oddities.add(TURNED, image)

    def dataset(self) -> Dataset:
        """Returns what was added. Raises DatasetError naming all problems."""
        self.oddities.add_all(OTHERWISE, [f"{name!r} for {own!r}" for name, own in self._images.renamed.items()])
        categories = CategoryColumns(self.problems)
        by_row = list(self._seen) if self._classes is None else list(self._classes)
        names = sorted(by_row) if self._classes is None else by_row
        for number, name in enumerate(names, start=self._first_id):
            categories.add({"id": number, "name": name})
        id_of = {name: number for number, name in enumerate(names, start=self._first_id)}
        self._annotations.category_ids = array("q", [id_of[by_row[row]] for row in self._annotations.category_ids])
        self._annotations.check(categories)
        categories.check_names()
        self.problems.raise_if_any(self._source)
        return Dataset(
            self._images.table(),
            self._annotations.table(),
            categories.table(),
            oddities=(*self.oddities.found(), *self._annotations.oddities.found()),
            readings=tuple(sorted(self._readings | self._annotations.readings)),
            reframed=self._reframed,
        )

    def _segmentation(self, image: str, shape: Shape) -> object:
        """Polygons as they are; masks, and whatever is joined with them, as run lengths. Raises SegmentationError."""
        if not shape.masks:
            return [list(polygon) for polygon in shape.polygons]
        row = self._images.row_of.get(image)
        size = (0, 0) if row is None else self._images.sizes[row]
        parts = [_placed(mask, size) for mask in shape.masks]
        outlined = read_segmentation([list(polygon) for polygon in shape.polygons], size)
        return union_of(parts if outlined is None else [*parts, outlined]).to_coco()


def ellipse(x: float, y: float, x_radius: float, y_radius: float) -> list[tuple[float, float]]:
    """Returns the corners of a polygon that is nearly an ellipse."""
    angles = [2 * math.pi * corner / _ELLIPSE_CORNERS for corner in range(_ELLIPSE_CORNERS)]
    return [(x + x_radius * math.cos(angle), y + y_radius * math.sin(angle)) for angle in angles]


def _joined(parts: Sequence[Shape]) -> Shape:
    """Returns the parts of one instance as one shape. Its box is around all of them, unless there are masks."""
    if len(parts) == 1:
        return parts[0]
    boxes = [box for part in parts if (box := _box(part)) is not None]
    has_masks = any(part.masks for part in parts)
    return Shape(
        box=None if has_masks or not boxes else _around([(x, y, x + w, y + h) for x, y, w, h in boxes]),
        polygons=tuple(polygon for part in parts for polygon in part.polygons),
        masks=tuple(mask for part in parts for mask in part.masks),
    )


def _placed(mask: Rle | MaskPart, size: tuple[int, int]) -> Rle:
    """Returns a mask on an image of that (height, width). Raises SegmentationError."""
    if isinstance(mask, Rle):
        return mask
    if not all(size):
        raise SegmentationError(_MASK_NEEDS_SIZE)
    return rle_of_part(mask.pixels, top=mask.top, left=mask.left, height=size[0], width=size[1])


def _reach(shape: Shape) -> tuple[float, float]:
    """Returns the furthest (x, y) of a shape's box and polygons, and of what its masks hold of an image."""
    corners = [] if shape.box is None else [(shape.box[0] + shape.box[2], shape.box[1] + shape.box[3])]
    corners += [(max(polygon[::2]), max(polygon[1::2])) for polygon in shape.polygons]
    parts = [mask for mask in shape.masks if isinstance(mask, MaskPart)]
    corners += [(part.left + part.pixels.shape[1], part.top + part.pixels.shape[0]) for part in parts]
    return max((x for x, _ in corners), default=0), max((y for _, y in corners), default=0)


def _box(shape: Shape) -> tuple[float, float, float, float] | None:
    if shape.box is not None or shape.masks or not shape.polygons:
        return shape.box
    return _around([(min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])) for p in shape.polygons])


def _around(corners: list[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    left, top = min(c[0] for c in corners), min(c[1] for c in corners)
    return left, top, max(c[2] for c in corners) - left, max(c[3] for c in corners) - top
