"""The growing columns of a COCO file's annotations: each item checked, its values appended, missing ones completed.

Here: what an annotation must say. Not here: its mask (`segmentations.py`), and how the list stands in the
file (`parser.py`).
"""

from array import array
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.coco.items import Columns
from refseg_core.datasets.coco.json_values import id_number, id_text, is_finite, shown
from refseg_core.datasets.coco.segmentations import (
    FEW_POINTS,
    SegmentationError,
    box_around,
    reach_of,
    read_segmentation,
)
from refseg_core.datasets.image_files.turned import fitting_only_turned
from refseg_core.datasets.oddities import OddityCounter
from refseg_core.errors import Problems
from refseg_core.masks.rle import Rle, mask_areas
from refseg_core.tables import Annotations

if TYPE_CHECKING:
    from refseg_core.datasets.coco.columns import CategoryColumns, ImageColumns

_BAD_ANNOTATION_ID = "an annotation has no usable id: expected a number or a text"
_REPEATED_ANNOTATION_ID = "an annotation id is used more than once: give each annotation its own"
_UNKNOWN_IMAGE = "an annotation's image_id is not among the images: add the image or remove the annotation"
_UNKNOWN_CATEGORY = "an annotation's category_id is not among the categories: add the category or remove the annotation"
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


class AnnotationColumns(Columns):
    """The annotations of images that are known already, since polygons need the size of theirs."""

    NOUN = "annotation"

    def __init__(self, problems: Problems, images: "ImageColumns") -> None:
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
        self.reaching_rows, self.reaches = array("q"), array("d")
        self.oddities = OddityCounter()
        self.readings: set[str] = set()

    def _add(self, item: dict[str, Any]) -> None:
        own_id = id_text(item.get("id"))
        if own_id is None:
            self.problems.add(_BAD_ANNOTATION_ID, f"{self._place()} with {shown(item, 'id')}")
            return
        image_row = self.images.row_of.get(id_text(item.get("image_id")) or "")
        category_id = id_number(item.get("category_id"))
        if image_row is None:
            self.problems.add(_UNKNOWN_IMAGE, f"annotation {own_id} with {shown(item, 'image_id')}")
        if category_id is None:
            self.problems.add(_UNKNOWN_CATEGORY, f"annotation {own_id} with {shown(item, 'category_id')}")
        if image_row is None or category_id is None:
            return
        self.ids.append(own_id)
        self.image_rows.append(image_row)
        self.category_ids.append(category_id)
        self._add_box(own_id, item)
        self._add_area(own_id, item)
        self.is_crowd.append(self._flag(own_id, item, "iscrowd"))
        self.is_impossible.append(self._flag(own_id, item, "isimpossible"))
        self.masks.append(None)
        try:
            self.masks[-1] = self.read_mask(len(self.ids) - 1, item.get("segmentation"))
        except SegmentationError as error:
            self.problems.add(error.kind, f"annotation {own_id}{error.found}")

    def _add_box(self, own_id: str, item: dict[str, Any]) -> None:
        box = item.get("bbox")
        segmentation = item.get("segmentation")
        if box is None or box == [] or isinstance(segmentation, dict):  # run lengths say the size that was annotated
            self.reaching_rows.append(len(self.ids) - 1)
            self.reaches.extend(reach_of(segmentation))
        if box is None or box == []:
            self.without_box.append(len(self.ids) - 1)
            box = [0.0] * 4
        try:
            left, top, width, height = box
            self.boxes.fromlist([left, top, width, height])
        except (TypeError, ValueError, OverflowError):
            self.problems.add(_BAD_BOX, f"annotation {own_id} with {shown(item, 'bbox')}")
            self.boxes.extend((0.0,) * 4)

    def _add_area(self, own_id: str, item: dict[str, Any]) -> None:
        area = item.get("area")
        if area is None:
            self.without_area.append(len(self.ids) - 1)
            area = 0.0
        if not is_finite(area) or area < 0:
            self.problems.add(_BAD_AREA, f"annotation {own_id} with {shown(item, 'area')}")
            area = 0.0
        self.areas.append(area)

    def _flag(self, own_id: str, item: dict[str, Any], key: str) -> bool:
        flag = item.get(key)
        if flag is not None and flag not in (0, 1):
            self.problems.add(_BAD_FLAG, f"annotation {own_id} with {shown(item, key)}")
        return flag == 1

    def read_mask(self, row: int, segmentation: Any, *, may_lie_outside: bool = False) -> Rle | None:
        """Returns the mask of an annotation, on its image, with that image's size itself in it: one tuple per image.

        Raises SegmentationError.
        """
        size = self.images.sizes[self.image_rows[row]]
        note = partial(self._note, self.ids[row])
        mask = read_segmentation(segmentation, size, may_lie_outside=may_lie_outside, note=note)
        return Rle(size, mask.counts) if mask is not None and mask.size == size else mask

    def _note(self, own_id: str, what: str) -> None:
        self.oddities.add(what, f"annotation {own_id}")
        if what != FEW_POINTS:
            self.readings.add(what)

    def check(self, categories: "CategoryColumns") -> None:
        """Reports what is only visible in whole columns, after completing missing boxes and areas."""
        self.problems.add_repeated(_REPEATED_ANNOTATION_ID, self.ids)
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
            for row in self.without_area:
                mask = self.masks[row]
                self.areas[row] = boxes[row, 2] * boxes[row, 3] if mask is None else mask_areas([mask])[0]

    def _report(self, kind: str, is_wrong: npt.NDArray[Any], found: Callable[[int], str]) -> None:
        for row in np.flatnonzero(is_wrong).tolist():
            self.problems.add(kind, f"annotation {self.ids[row]} with {found(row)}")

    def fitting_only_turned(self) -> dict[str, tuple[int, int]]:
        """Returns the declared (height, width), by file name, of images that fit only if the two are swapped.

        Where there is no box, polygons tell; and run lengths, whose size is that of the picture that was annotated.
        """
        sizes = np.array(self.images.sizes, dtype=np.int64).reshape(-1, 2)
        boxes = self._boxes()
        boxes[np.array(self.reaching_rows, dtype=np.int64)] = np.pad(
            np.reshape(self.reaches, (-1, 2)), ((0, 0), (2, 0))
        )
        rows = fitting_only_turned(sizes, np.array(self.image_rows, dtype=np.int64), boxes)
        return {self.images.file_names[row]: self.images.sizes[row] for row in rows.tolist()}

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
            box = None if mask is None else box_around(mask)
            if box is None:
                self.problems.add(_NO_BOX, f"annotation {self.ids[row]}")
            else:
                self.boxes[4 * row : 4 * row + 4] = array("d", box)

    def table(self) -> Annotations:
        """Returns the annotations, in the file's order."""
        return Annotations(
            annotation_id=np.array(self.ids, dtype=object),
            image_id=np.array([self.images.ids[row] for row in self.image_rows], dtype=object),
            category_id=np.array(self.category_ids, dtype=np.int64),
            box_xywh=self._boxes(),
            area=np.array(self.areas, dtype=np.float64),
            mask_rle=np.fromiter(self.masks, dtype=object, count=len(self.masks)),
            is_crowd=np.array(self.is_crowd, dtype=bool),
            is_impossible=np.array(self.is_impossible, dtype=bool),
        )
