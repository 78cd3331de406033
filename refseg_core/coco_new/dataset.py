"""COCO json into tables: images, annotations and categories, checked.

Here: what a COCO dataset file may look like in the wild, which of it is accepted, and the report on the rest.
Not here: opening files (a document is bytes, a listing is names), choosing references, writing COCO json
(`refseg_core/export.py`).

The document is read through a sliding window, one image or annotation at a time, and straight into columns:
train2017's 860,000 annotations as Python objects would need several gigabytes.
"""

import codecs
import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.errors import DatasetError
from refseg_core.masks import Rle, mask_areas, rle_from_counts, rle_from_polygons
from refseg_core.tables import Annotations, Categories, Images

_WINDOW = 1 << 22  # bytes decoded at once
_WHITESPACE = re.compile(r"[ \t\n\r]*")
_MAX_SIDE = 200_000  # px; pycocotools walks along polygons in fifths of a pixel
_MAX_PIXELS = 1 << 31  # run lengths have 32 bits
_MAX_CHUNKS = 7  # characters of one run length; 7 hold 35 bits
_TRIANGLE = 6  # coordinates
_INT64 = range(-(1 << 63), 1 << 63)

_OFFENDERS_SHOWN = 5
_KINDS_SHOWN = 12
_OFFENDER_LENGTH = 80

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INTEGER = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True)
class CocoDataset:
    """A dataset as tables; images and annotations in the file's order (sampling depends on it)."""

    images: Images
    annotations: Annotations
    categories: Categories


def check_file_name(name: str) -> str | None:
    """Why `name` is not a path below an image folder or prefix, or None if it is one."""
    reasons = (
        (not name, "is empty"),
        ("\\" in name, "has a '\\'; folders are separated by '/'"),
        (name.startswith("/"), "is absolute"),
        (_SCHEME.match(name) or "::" in name, "is a URI"),
        (_DRIVE.match(name), "starts with a drive"),
        (".." in name.split("/"), "leaves its folder by '..'"),
        (_CONTROL.search(name), "has control characters"),
        (not _is_unicode(name), "is not valid Unicode"),
    )
    return next((reason for wrong, reason in reasons if wrong), None)


def dataset_of_files(names: Sequence[str], sizes: Sequence[int], versions: Sequence[str]) -> CocoDataset:
    """The dataset of a plain listing: no annotations, ids are the names, images sorted by name.

    `names` are relative to the listed folder, `sizes` in bytes, `versions` whatever changes with the content.
    Raises DatasetError when names repeat or leave the folder.
    """
    problems = _Problems()
    problems.add_all(_REPEATED_FILE, _repeated(names))
    for name in names:
        if reason := check_file_name(name):
            problems.add(_BAD_FILE_NAME, f"{name} {reason}")
    problems.raise_if_any("The listing of the image folder")
    order = sorted(range(len(names)), key=names.__getitem__)
    zeros = np.zeros(len(names), dtype=np.int32)
    images = Images(
        image_id=_objects([names[row] for row in order]),
        has_integer_id=zeros.astype(bool),
        file_name=_objects([names[row] for row in order]),
        height=zeros,
        width=zeros,
        size=np.array([sizes[row] for row in order], dtype=np.int64),
        version=_objects([versions[row] for row in order]),
    )
    return CocoDataset(images, Annotations.empty(), Categories.empty())


def select_images(dataset: CocoDataset, image_ids: Collection[str]) -> CocoDataset:
    """The images with these ids, in the dataset's order, with their annotations and all categories.

    Raises DatasetError naming the ids that the dataset does not have.
    """
    wanted = set(image_ids)
    problems = _Problems()
    problems.add_all(_UNKNOWN_SELECTED, sorted(wanted - set(dataset.images.image_id)))
    problems.raise_if_any("The selection of images")
    return CocoDataset(
        dataset.images[_is_among(dataset.images.image_id, wanted)],
        dataset.annotations[_is_among(dataset.annotations.image_id, wanted)],
        dataset.categories,
    )


def parse_coco(document: bytes, *, source: str) -> CocoDataset:
    """Reads a COCO dataset file; `source` is its name in messages.

    Accepted besides the standard form: ids that are strings (digit strings stay strings, `has_integer_id` is
    False for them) or whole floats; category ids that are digit strings; no `annotations` (the official test
    files), and then no `categories`; no image sizes as long as no polygon needs them; no `file_name` beside a
    `coco_url` (LVIS); one flat list of coordinates as a polygon; a missing or null `bbox`, `area`, `iscrowd` or
    `segmentation`. Masks may be polygons (those with fewer than three points are left out) or run lengths,
    compressed or not. Boxes may reach beyond the image and may have no width or height (train2017 has such).
    A category 0 without annotations that shares another's name is left out (Roboflow writes it).

    Anything else raises one DatasetError with every kind of problem, its count and the first few offenders.
    """
    problems = _Problems()
    images, categories = _ImageColumns(problems), _CategoryColumns(problems)
    annotations = _AnnotationColumns(problems, images)
    sections = {"images": images, "annotations": annotations, "categories": categories}
    try:
        late = _fill(document, sections, problems)
        if late:
            _fill(document, {"annotations": annotations}, problems)
    except (_JsonError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{source} is not valid json: {error}. Expected a COCO dataset file; was it cut off, or is it "
            "another kind of file?"
        ) from error
    annotations.check(categories)
    categories.drop_placeholder(annotations)
    categories.check_names()
    problems.raise_if_any(source)
    return CocoDataset(images.table(), annotations.table(), categories.table())


# Problems: each kind is a sentence that says what is wrong, what was expected and what to do.

_NOT_A_DATASET = "the file is not a COCO dataset: expected an object with the lists images, annotations and categories"
_NO_SECTION = "a list is missing from the file: add it"
_NOT_A_LIST = "an entry of the file is not a list: write images, annotations and categories as lists"
_REPEATED_SECTION = "a list appears twice in the file: merge the two"
_NOT_AN_OBJECT = "an entry of a list is not an object: write each image, annotation and category as one"
_BAD_IMAGE_ID = "an image has no usable id: expected a number or a text"
_BAD_ANNOTATION_ID = "an annotation has no usable id: expected a number or a text"
_BAD_CATEGORY_ID = "a category has no usable id: expected a whole number"
_REPEATED_IMAGE_ID = "an image id is used more than once: give each image its own"
_REPEATED_ANNOTATION_ID = "an annotation id is used more than once: give each annotation its own"
_REPEATED_CATEGORY_ID = "a category id is used more than once: give each category its own"
_NO_FILE_NAME = "an image has no file_name: expected its path below the image folder"
_BAD_FILE_NAME = "an image's file_name is not a path below the image folder: expected such as 'folder/name.jpg'"
_REPEATED_FILE = "a file is listed more than once: list it once"
_BAD_IMAGE_SIZE = (
    f"an image's width or height is not a number of pixels from 1 to {_MAX_SIDE}, {_MAX_PIXELS} in all: correct "
    "or remove them"
)
_BAD_CATEGORY_NAME = "a category has no usable name: expected a text"
_REPEATED_NAME = "a category name is used more than once: rename or merge the categories"
_UNKNOWN_IMAGE = "an annotation's image_id is not among the images: add the image or remove the annotation"
_UNKNOWN_CATEGORY = "an annotation's category_id is not among the categories: add the category or remove the annotation"
_UNKNOWN_SELECTED = "an image id is not among the dataset's images: correct image_ids"
_BAD_BOX = (
    "an annotation's bbox is not four finite numbers [x, y, width, height] with width and height of at least 0: "
    "correct it"
)
_NO_BOX = "an annotation has neither a bbox nor a mask with any pixel: add one or remove the annotation"
_BOX_OUTSIDE = (
    "an annotation's bbox lies wholly outside its image: correct it (pixels, [x, y, width, height]) or the "
    "image's width and height"
)
_BAD_AREA = "an annotation's area is not a number of at least 0: correct or remove it"
_BAD_FLAG = "an annotation's iscrowd or isimpossible is not 0 or 1: correct it"
_BAD_SEGMENTATION = (
    "an annotation's segmentation is neither a list of polygons [x0, y0, x1, y1, ...] of finite numbers nor run "
    "lengths {size, counts}: correct or remove it"
)
_POLYGON_OUTSIDE = (
    "an annotation's polygon reaches further outside its image than the image is long: correct it (pixels) or "
    "the image's width and height"
)
_POLYGON_NEEDS_SIZE = "an annotation has polygons but its image has no size: add width and height to the image entry"
_RLE_SIZE = "an annotation's run lengths have another size than its image: expected [height, width] of the image entry"
_BAD_RLE = (
    "an annotation's run lengths are damaged: expected counts >= 0 that add up to height * width; export the mask again"
)


@dataclass
class _Problems:
    """What is wrong with one input, gathered so that all of it is reported together."""

    counts: Counter[str] = field(default_factory=Counter)
    offenders: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, offender: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= _OFFENDERS_SHOWN:
            self.offenders.setdefault(kind, []).append(_shortened(offender))

    def add_all(self, kind: str, offenders: Sequence[str]) -> None:
        for offender in offenders:
            self.add(kind, offender)

    def raise_if_any(self, source: str) -> None:
        if not self.counts:
            return
        lines = [self._line(kind, count) for kind, count in list(self.counts.items())[:_KINDS_SHOWN]]
        if len(self.counts) > _KINDS_SHOWN:
            lines.append(f"- and {len(self.counts) - _KINDS_SHOWN} more kinds of problems")
        total = self.counts.total()
        raise DatasetError(f"{source} cannot be used; {total} problem{'s' if total > 1 else ''}:\n" + "\n".join(lines))

    def _line(self, kind: str, count: int) -> str:
        shown = ", ".join(self.offenders[kind])
        rest = f" and {count - _OFFENDERS_SHOWN} more" if count > _OFFENDERS_SHOWN else ""
        return f"- {count} x {kind}. Found: {shown}{rest}"


# The document, item by item.


class _JsonError(ValueError):
    """Where and how a document stops being json."""


class _JsonReader:
    """Values of a json document one after the other, with only a window of it decoded."""

    def __init__(self, document: bytes) -> None:
        self._document = memoryview(document)
        self._decode = codecs.getincrementaldecoder(json.detect_encoding(document))().decode
        self._parse = json.JSONDecoder().raw_decode
        self._num_read = 0
        self._text = ""
        self._at = 0

    def value(self) -> Any:
        """The next value, parsed."""
        while True:
            self.peek()
            try:
                value, end = self._parse(self._text, self._at)
            except (ValueError, RecursionError) as error:  # cut off by the window, or really wrong
                if not self._read_on():
                    raise self._error("a json value" if isinstance(error, ValueError) else "less nesting") from error
                continue
            # A number that ends where the window does, or before a last "." or "e-", may go on behind it.
            if end + 2 < len(self._text) or not self._read_on():
                self._at = end
                return value

    def take(self, expected: str) -> str:
        """The next character, which must be among `expected`."""
        character = self.peek()
        if not character or character not in expected:
            raise self._error(" or ".join(repr(one) for one in expected))
        self._at += 1
        return character

    def peek(self) -> str:
        """The next character that is not white space, without taking it; '' at the end."""
        while True:
            match = _WHITESPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def end(self) -> None:
        """Makes sure that nothing follows."""
        if self.peek():
            raise self._error("the end of the file")

    def _read_on(self) -> bool:
        """Decodes further, doubling what is left, so that one huge value is not parsed again and again."""
        if self._num_read >= len(self._document):
            return False
        left = self._text[self._at :]
        stop = self._num_read + max(_WINDOW, len(left))
        block = self._document[self._num_read : stop]
        self._text = left + self._decode(block, stop >= len(self._document))
        self._at = 0
        self._num_read += len(block)
        return True

    def _error(self, expected: str) -> _JsonError:
        found = self._text[self._at : self._at + 30]
        position = self._num_read - len(self._text[self._at :].encode("utf-8", "surrogatepass"))
        return _JsonError(f"expected {expected} near byte {max(position, 0)}, got {found!r}")


def _members(reader: _JsonReader) -> Iterator[str]:
    """The keys of an object; the caller takes each key's value before the next."""
    reader.take("{")
    if reader.peek() == "}":
        reader.take("}")
        return
    while True:
        if reader.peek() != '"':
            reader.take('"')
        key: str = reader.value()
        reader.take(":")
        yield key
        if reader.take(",}") == "}":
            return


def _items(reader: _JsonReader) -> Iterator[Any]:
    """The items of a list."""
    reader.take("[")
    if reader.peek() == "]":
        reader.take("]")
        return
    while True:
        yield reader.value()
        if reader.take(",]") == "]":
            return


def _fill(document: bytes, sections: "Mapping[str, _Columns]", problems: _Problems) -> bool:
    """Adds the items of the document's lists to their columns.

    Returns whether annotations were passed over because the images come after them: polygons cannot be
    rasterised before the size of their image is known.
    """
    reader = _JsonReader(document)
    if reader.peek() != "{":
        kind = type(reader.value()).__name__
        reader.end()
        problems.add(_NOT_A_DATASET, f"a {kind}")
        return False
    seen: list[str] = []
    late = False
    for key in _members(reader):
        rows = sections.get(key)
        if rows is not None and key in seen:
            problems.add(_REPEATED_SECTION, key)
        seen.append(key)
        if rows is not None and reader.peek() != "[":
            problems.add(_NOT_A_LIST, f"{key} is a {type(reader.value()).__name__}")
        elif rows is None:
            reader.value()
        else:
            too_early = key == "annotations" and "images" in sections and "images" not in seen
            late = late or too_early
            _add_items(reader, rows, skip=too_early)
    reader.end()
    _require_sections(seen, sections, problems)
    return late and "images" in seen


def _add_items(reader: _JsonReader, rows: "_Columns", *, skip: bool) -> None:
    for item in _items(reader):
        if not skip:
            rows.add(item)


def _require_sections(seen: list[str], sections: "Mapping[str, _Columns]", problems: _Problems) -> None:
    required = ["images", "categories"] if "annotations" in seen else ["images"]
    problems.add_all(_NO_SECTION, [key for key in required if key in sections and key not in seen])


# The columns.


class _Columns:
    """The growing columns of one list of the document."""

    NOUN = ""

    def __init__(self, problems: _Problems) -> None:
        self.problems = problems
        self.num_items = 0

    def add(self, item: Any) -> None:
        """Appends one item of the list, or reports what is wrong with it."""
        self.num_items += 1
        if isinstance(item, dict):
            self._add(item)
        else:
            self.problems.add(_NOT_AN_OBJECT, f"{self._place()} is {json.dumps(item)}")

    def _add(self, item: dict[str, Any]) -> None:
        raise NotImplementedError

    def _place(self) -> str:
        return f"{self.NOUN} number {self.num_items} of the list"


class _ImageColumns(_Columns):
    NOUN = "image"

    def __init__(self, problems: _Problems) -> None:
        super().__init__(problems)
        self.ids: list[str] = []
        self.is_integer: list[bool] = []
        self.file_names: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.row_of: dict[str, int] = {}

    def _add(self, item: dict[str, Any]) -> None:
        image_id = _id_text(item.get("id"))
        if image_id is None:
            self.problems.add(_BAD_IMAGE_ID, f"{self._place()} with {_shown(item, 'id')}")
            return
        if image_id in self.row_of:
            self.problems.add(_REPEATED_IMAGE_ID, image_id)
            return
        self.row_of[image_id] = len(self.ids)
        self.ids.append(image_id)
        self.is_integer.append(not isinstance(item["id"], str))
        self.file_names.append(self._file_name(image_id, item))
        self.sizes.append(self._size(image_id, item))

    def _file_name(self, image_id: str, item: dict[str, Any]) -> str:
        name = item.get("file_name")
        if name is None and isinstance(item.get("coco_url"), str):
            name = item["coco_url"].rpartition("/")[2]
        if not isinstance(name, str):
            self.problems.add(_NO_FILE_NAME, f"image {image_id} with {_shown(item, 'file_name')}")
            return ""
        if reason := check_file_name(name):
            self.problems.add(_BAD_FILE_NAME, f"image {image_id}: {_shortened(name)} {reason}")
        return name

    def _size(self, image_id: str, item: dict[str, Any]) -> tuple[int, int]:
        """(height, width) in pixels; a missing one is 0."""
        declared = [item.get("height"), item.get("width")]
        height, width = (0 if side is None else _whole_number(side) or -1 for side in declared)
        if min(height, width) < 0 or not _is_size(max(height, 1), max(width, 1)):
            self.problems.add(_BAD_IMAGE_SIZE, f"image {image_id} with [height, width] {json.dumps(declared)}")
            return 0, 0
        return height, width

    def table(self) -> Images:
        """The images, in the file's order."""
        sizes = np.array(self.sizes, dtype=np.int32).reshape(-1, 2)
        return Images(
            image_id=_objects(self.ids),
            has_integer_id=np.array(self.is_integer, dtype=bool),
            file_name=_objects(self.file_names),
            height=sizes[:, 0],
            width=sizes[:, 1],
            size=np.full(len(self.ids), -1, dtype=np.int64),
            version=_objects([""] * len(self.ids)),
        )


class _CategoryColumns(_Columns):
    NOUN = "category"

    def __init__(self, problems: _Problems) -> None:
        super().__init__(problems)
        self.names: dict[int, str] = {}
        self.frequencies: dict[int, str | None] = {}

    def _add(self, item: dict[str, Any]) -> None:
        category_id = _category_id(item.get("id"))
        name = item.get("name")
        if category_id is None:
            self.problems.add(_BAD_CATEGORY_ID, f"{self._place()} with {_shown(item, 'id')}")
        elif category_id in self.names:
            self.problems.add(_REPEATED_CATEGORY_ID, str(category_id))
        elif not isinstance(name, str) or not name or not _is_unicode(name):
            self.problems.add(_BAD_CATEGORY_NAME, f"category {category_id} with {_shown(item, 'name')}")
            self.names[category_id] = f"category {category_id}"
        else:
            self.names[category_id] = name
            frequency = item.get("frequency")
            self.frequencies[category_id] = frequency if frequency in ("r", "c", "f") else None

    def drop_placeholder(self, annotations: "_AnnotationColumns") -> None:
        """Leaves out Roboflow's category 0: without annotations, with the name of a real one."""
        is_shared = list(self.names.values()).count(self.names.get(0, "")) > 1
        if is_shared and annotations.ids and 0 not in annotations.category_ids:
            del self.names[0]

    def check_names(self) -> None:
        """Reports names that are not unique."""
        self.problems.add_all(_REPEATED_NAME, _repeated(list(self.names.values())))

    def table(self) -> Categories:
        """The categories, by ascending id."""
        ids = sorted(self.names)
        return Categories(
            category_id=np.array(ids, dtype=np.int64),
            class_index=np.arange(len(ids), dtype=np.int32),
            name=_objects([self.names[category_id] for category_id in ids]),
            frequency=_objects([self.frequencies[category_id] for category_id in ids]),
        )


class _AnnotationColumns(_Columns):
    NOUN = "annotation"

    def __init__(self, problems: _Problems, images: _ImageColumns) -> None:
        super().__init__(problems)
        self.images = images
        self.ids: list[str] = []
        self.image_rows = array("q")
        self.category_ids = array("q")
        self.boxes = array("d")
        self.areas = array("d")
        self.masks: list[Rle | None] = []
        self.is_crowd = array("b")
        self.is_impossible = array("b")
        self.without_box: list[int] = []
        self.without_area: list[int] = []

    def _add(self, item: dict[str, Any]) -> None:
        own_id = _id_text(item.get("id"))
        if own_id is None:
            self.problems.add(_BAD_ANNOTATION_ID, f"{self._place()} with {_shown(item, 'id')}")
            return
        image_row = self.images.row_of.get(_id_text(item.get("image_id")) or "")
        category_id = _category_id(item.get("category_id"))
        if image_row is None:
            self.problems.add(_UNKNOWN_IMAGE, f"annotation {own_id} with {_shown(item, 'image_id')}")
        if category_id is None:
            self.problems.add(_UNKNOWN_CATEGORY, f"annotation {own_id} with {_shown(item, 'category_id')}")
        if image_row is None or category_id is None:
            return
        self.ids.append(own_id)
        self.image_rows.append(image_row)
        self.category_ids.append(category_id)
        self._add_box(own_id, item)
        self._add_area(own_id, item)
        self.is_crowd.append(self._flag(own_id, item, "iscrowd"))
        self.is_impossible.append(self._flag(own_id, item, "isimpossible"))
        self.masks.append(self._mask(own_id, item.get("segmentation"), self.images.sizes[image_row]))

    def _add_box(self, own_id: str, item: dict[str, Any]) -> None:
        box = item.get("bbox")
        if box is None or box == []:
            self.without_box.append(len(self.ids) - 1)
            box = [0.0] * 4
        try:
            left, top, width, height = box
            self.boxes.fromlist([left, top, width, height])
        except (TypeError, ValueError, OverflowError):
            self.problems.add(_BAD_BOX, f"annotation {own_id} with {_shown(item, 'bbox')}")
            self.boxes.extend((0.0,) * 4)

    def _add_area(self, own_id: str, item: dict[str, Any]) -> None:
        area = item.get("area")
        if area is None:
            self.without_area.append(len(self.ids) - 1)
            area = 0.0
        if not _is_finite(area) or area < 0:
            self.problems.add(_BAD_AREA, f"annotation {own_id} with {_shown(item, 'area')}")
            area = 0.0
        self.areas.append(area)

    def _flag(self, own_id: str, item: dict[str, Any], key: str) -> bool:
        flag = item.get(key)
        if flag is not None and flag not in (0, 1):
            self.problems.add(_BAD_FLAG, f"annotation {own_id} with {_shown(item, key)}")
        return flag == 1

    def _mask(self, own_id: str, segmentation: Any, size: tuple[int, int]) -> Rle | None:
        """The mask on an image of `size` (height, width), with `size` itself in it: one tuple per image."""
        try:
            mask = _mask_of(segmentation, size) if segmentation else None
        except _MaskError as error:
            self.problems.add(error.kind, f"annotation {own_id}{error.found}")
            return None
        return Rle(size, mask.counts) if mask is not None and mask.size == size else mask

    def check(self, categories: _CategoryColumns) -> None:
        """Reports what is only visible in whole columns, after completing missing boxes and areas."""
        self.problems.add_all(_REPEATED_ANNOTATION_ID, _repeated(self.ids))
        known = np.array(sorted(categories.names), dtype=np.int64)
        given = np.array(self.category_ids, dtype=np.int64)
        self._report(_UNKNOWN_CATEGORY, np.isin(given, known, invert=True), lambda row: f"category_id {given[row]}")
        self._complete_boxes()
        boxes = self._boxes()
        malformed = np.asarray(~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1))
        self._report(_BAD_BOX, malformed, lambda row: f"bbox {boxes[row].tolist()}")
        boxes[malformed] = 0
        with np.errstate(over="ignore"):
            self._report(_BOX_OUTSIDE, self._lies_outside(boxes), lambda row: f"bbox {boxes[row].tolist()}")
            self._complete_areas(boxes)

    def _report(self, kind: str, is_wrong: npt.NDArray[Any], found: Callable[[int], str]) -> None:
        for row in np.flatnonzero(is_wrong).tolist():
            self.problems.add(kind, f"annotation {self.ids[row]} with {found(row)}")

    def _boxes(self) -> npt.NDArray[np.float64]:
        return np.array(self.boxes, dtype=np.float64).reshape(-1, 4)

    def _lies_outside(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Boxes that do not even touch their image; those that touch it at an edge must have no extent."""
        rows = np.array(self.image_rows, dtype=np.int64)
        sides = np.array(self.images.sizes, dtype=np.float64).reshape(-1, 2)[rows][:, ::-1]
        first, extent = boxes[:, :2], boxes[:, 2:]
        last = first + extent
        beyond = (first > sides) | (last < 0) | ((extent > 0) & ((first == sides) | (last == 0)))
        return np.asarray((beyond & (sides > 0)).any(axis=1))

    def _complete_boxes(self) -> None:
        for row in self.without_box:
            mask = self.masks[row]
            box = None if mask is None else _box_around(mask)
            if box is None:
                self.problems.add(_NO_BOX, f"annotation {self.ids[row]}")
            else:
                self.boxes[4 * row : 4 * row + 4] = array("d", box)

    def _complete_areas(self, boxes: npt.NDArray[np.float64]) -> None:
        for row in self.without_area:
            mask = self.masks[row]
            self.areas[row] = boxes[row, 2] * boxes[row, 3] if mask is None else mask_areas([mask])[0]

    def table(self) -> Annotations:
        """The annotations, in the file's order."""
        return Annotations(
            annotation_id=_objects(self.ids),
            image_id=_objects([self.images.ids[row] for row in self.image_rows]),
            category_id=np.array(self.category_ids, dtype=np.int64),
            box_xywh=self._boxes(),
            area=np.array(self.areas, dtype=np.float64),
            mask_rle=_objects(self.masks),
            is_crowd=np.array(self.is_crowd, dtype=bool),
            is_impossible=np.array(self.is_impossible, dtype=bool),
        )


# Masks.


class _MaskError(ValueError):
    """Why a segmentation cannot be used."""

    def __init__(self, kind: str, found: str = "") -> None:
        super().__init__(kind)
        self.kind = kind
        self.found = found and f" with {found}"


def _mask_of(segmentation: Any, size: tuple[int, int]) -> Rle | None:
    """A segmentation's mask on an image of `size` (height, width); None where nothing of it is an area."""
    if isinstance(segmentation, dict):
        return _mask_of_run_lengths(segmentation, size)
    if not isinstance(segmentation, list):
        raise _MaskError(_BAD_SEGMENTATION, json.dumps(segmentation))
    is_flat = not isinstance(segmentation[0], list)
    polygons = [segmentation] if is_flat else segmentation
    areas = [polygon for polygon in polygons if _is_area(polygon)]
    if not areas:
        return None
    height, width = size
    if not height or not width:
        raise _MaskError(_POLYGON_NEEDS_SIZE)
    reach = max(size)
    if any(min(polygon) < -reach or max(polygon) > 2 * reach for polygon in areas):
        raise _MaskError(_POLYGON_OUTSIDE)
    return rle_from_polygons(areas, height, width)


def _is_area(polygon: Any) -> bool:
    """Whether a polygon has three points or more. Raises _MaskError for anything but pairs of finite numbers.

    Fewer are not only useless: pycocotools takes four numbers for a box.
    """
    try:
        # The sum meets every value once and is not finite if any of them is not.
        if isinstance(polygon, list) and len(polygon) % 2 == 0 and math.isfinite(sum(polygon)):
            return len(polygon) >= _TRIANGLE
    except (TypeError, OverflowError):
        pass
    raise _MaskError(_BAD_SEGMENTATION, f"polygon {json.dumps(polygon)[:40]}")


def _mask_of_run_lengths(segmentation: dict[str, Any], size: tuple[int, int]) -> Rle:
    declared, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(counts, str | list):
        raise _MaskError(_BAD_SEGMENTATION, f"counts {json.dumps(counts)}")
    try:
        height, width = (_whole_number(side) or 0 for side in declared or ())
    except (TypeError, ValueError):
        height, width = 0, 0
    fits = all(own in (0, given) for own, given in zip(size, (height, width), strict=True))
    if not fits or not _is_size(height, width):
        raise _MaskError(_RLE_SIZE, f"size {json.dumps(declared)} where the image has {list(size)}")
    lengths = _decompressed(counts) if isinstance(counts, str) else _whole_numbers(counts)
    # pycocotools does not check: it would write beyond the mask's memory.
    pixels = height * width
    if lengths.min() < 0 or lengths.max() > pixels or lengths.sum() != pixels:
        raise _MaskError(_BAD_RLE)
    if isinstance(counts, str):
        return Rle((height, width), counts)
    return rle_from_counts(lengths.tolist(), height, width)


def _whole_numbers(values: list[Any]) -> npt.NDArray[np.int64]:
    try:
        lengths = np.array(values)
    except (ValueError, OverflowError) as error:
        raise _MaskError(_BAD_RLE) from error
    if lengths.ndim != 1 or lengths.dtype.kind != "i":
        raise _MaskError(_BAD_RLE)
    return lengths.astype(np.int64)


def _decompressed(counts: str) -> npt.NDArray[np.int64]:
    """The run lengths in COCO's string; raises _MaskError if it is damaged.

    Each length is written in characters of 5 bits, lowest first, with a sixth bit where more follow and the last
    character's highest bit as the sign; from the fourth length on, as the difference to the last but one.
    """
    chunks = np.frombuffer(counts.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if not chunks.size or (chunks >> 6).any() or chunks[-1] & 32:
        raise _MaskError(_BAD_RLE)
    last = np.flatnonzero((chunks & 32) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    num_chunks = last - first + 1
    if num_chunks.max() > _MAX_CHUNKS:
        raise _MaskError(_BAD_RLE)
    place = np.arange(len(chunks)) - np.repeat(first, num_chunks)
    lengths: npt.NDArray[np.int64] = np.add.reduceat((chunks & 31) << (5 * place), first)
    negative = (chunks[last] & 16) != 0
    lengths[negative] -= np.int64(1) << (5 * num_chunks[negative])
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def _box_around(mask: Rle) -> tuple[int, int, int, int] | None:
    """The mask's extent (x, y, width, height), or None if it is empty; without decoding it, however large it is."""
    height = mask.size[0]
    lengths = _decompressed(mask.counts)
    ends = np.cumsum(lengths)
    first, last = (ends - lengths)[1::2], ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]
    if not len(first):
        return None
    left, right = int(first[0] // height), int(last[-1] // height)
    if (first // height != last // height).any():  # a run through the end of a column
        return left, 0, right + 1 - left, height
    top, bottom = int((first % height).min()), int((last % height).max())
    return left, top, right + 1 - left, bottom + 1 - top


# Single values.


def _id_text(value: Any) -> str | None:
    """An id as text, or None for anything but a whole number or a non-empty text."""
    if isinstance(value, str):
        return value if value and _is_unicode(value) else None
    number = _whole_number(value)
    return None if number is None else str(number)


def _category_id(value: Any) -> int | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    number = _whole_number(value)
    return number if number is not None and number in _INT64 else None


def _whole_number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _is_size(height: int, width: int) -> bool:
    return 1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE and height * width <= _MAX_PIXELS


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_unicode(text: str) -> bool:
    """Whether the text can be written: json may hold lone halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(item: dict[str, Any], key: str) -> str:
    return f"{key} {json.dumps(item[key])}" if key in item else f"no {key}"


def _shortened(text: str) -> str:
    printable = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return printable if len(printable) <= _OFFENDER_LENGTH else printable[: _OFFENDER_LENGTH - 3] + "..."


def _repeated(values: Sequence[str]) -> list[str]:
    if len(set(values)) == len(values):
        return []
    return [value for value, count in Counter(values).items() if count > 1]


def _is_among(ids: npt.NDArray[Any], wanted: set[str]) -> npt.NDArray[np.bool_]:
    return np.fromiter((one in wanted for one in ids), dtype=bool, count=len(ids))


def _objects(values: Sequence[Any]) -> npt.NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))
