"""The growing columns of a COCO file's images and categories: each item checked, its values appended.

Here: what an image and a category must say, and what LVIS's images say of categories. Not here: annotations
(`annotations.py`), and how the lists stand in the file (`parser.py`).
"""

import json
from array import array
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from refseg_core.datasets.coco.items import Columns
from refseg_core.datasets.coco.json_values import (
    MAX_PIXELS,
    MAX_SIDE,
    id_number,
    id_text,
    is_image_size,
    shown,
    whole_number,
)
from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.datasets.image_files.names import BAD_FILE_NAME, check_file_name, is_unicode
from refseg_core.errors import Problems, shortened
from refseg_core.images import WHITE
from refseg_core.tables import Categories, FederatedLabels, Images

if TYPE_CHECKING:
    from refseg_core.datasets.coco.annotations import AnnotationColumns

_BAD_IMAGE_ID = "an image has no usable id: expected a number or a text"
_REPEATED_IMAGE_ID = "an image id is used more than once: give each image its own"
_NO_FILE_NAME = "an image has no file_name: expected its path below the image folder"
_BAD_IMAGE_SIZE = (
    f"an image's width or height is not a number of pixels from 1 to {MAX_SIDE}, {MAX_PIXELS} in all: correct "
    "or remove them"
)
_NO_FEDERATED_LIST = (
    "an image lacks a list of federated labels that others have: give every image neg_category_ids and "
    "not_exhaustive_category_ids, or none"
)
_BAD_FEDERATED_ID = (
    "an image's neg_category_ids or not_exhaustive_category_ids is not a list of ids of the file's categories: "
    "correct it"
)
FEDERATED_VERSION = 2  # of datasets with LVIS's federated labels
_FEDERATED_LISTS = {"neg_category_ids": "negative", "not_exhaustive_category_ids": "not_exhaustive"}
_BAD_CATEGORY_ID = "a category has no usable id: expected a whole number"
_REPEATED_CATEGORY_ID = "a category id is used more than once: give each category its own"
_BAD_CATEGORY_NAME = "a category has no usable name: expected a text"
_REPEATED_NAME = "a category name is used more than once: rename or merge the categories"


def may_be_federated(document: bytes) -> bool:
    """Returns whether a file may hold LVIS's lists of categories per image; parsing shows whether it does."""
    return any(name.encode() in document for name in _FEDERATED_LISTS)


class ImageColumns(Columns):
    """The images; `sizes` are (height, width) in pixels, 0 where unknown, and `row_of` finds the row of an id.

    `turned`: (height, width) of images by file name that count instead of what the file declares. `folder`: where the
    images lie, if that is known; `renamed` are the names that are written otherwise there.
    """

    NOUN = "image"

    def __init__(
        self,
        problems: Problems,
        turned: Mapping[str, tuple[int, int]] | None = None,
        folder: ImageFolder | None = None,
    ) -> None:
        super().__init__(problems)
        self._turned = turned or {}
        self._folder = folder
        self.renamed: dict[str, str] = {}
        self.ids: list[str] = []
        self.is_integer: list[bool] = []
        self.file_names: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.row_of: dict[str, int] = {}
        self.federated = FederatedColumns(problems)

    def _add(self, item: dict[str, Any]) -> None:
        image_id = id_text(item.get("id"))
        if image_id is None:
            self.problems.add(_BAD_IMAGE_ID, f"{self._place()} with {shown(item, 'id')}")
            return
        if image_id in self.row_of:
            self.problems.add(_REPEATED_IMAGE_ID, image_id)
            return
        self.row_of[image_id] = len(self.ids)
        self.ids.append(image_id)
        self.is_integer.append(not isinstance(item["id"], str))
        self.file_names.append(self._file_name(image_id, item))
        self.sizes.append(self._turned.get(self.file_names[-1]) or self._size(image_id, item))
        self.federated.add(image_id, item)

    def _file_name(self, image_id: str, item: dict[str, Any]) -> str:
        name = item.get("file_name")
        if name is None and isinstance(item.get("coco_url"), str):
            name = item["coco_url"].rpartition("/")[2]
        if not isinstance(name, str):
            self.problems.add(_NO_FILE_NAME, f"image {image_id} with {shown(item, 'file_name')}")
            return ""
        if "\\" in name and self._folder is not None and (found := self._folder.find(name)) != name:
            self.renamed[name] = found
            return found
        if reason := check_file_name(name):
            others = [] if self._folder is None else self._folder.resembling(name)
            meant = f"; {' or '.join(others)}?" if others else ""
            self.problems.add(BAD_FILE_NAME, f"image {image_id}: {shortened(name)} {reason}{meant}")
        return name

    def _size(self, image_id: str, item: dict[str, Any]) -> tuple[int, int]:
        """(height, width) in pixels; a missing one is 0."""
        declared = [item.get("height"), item.get("width")]
        height, width = (0 if side is None else whole_number(side) or -1 for side in declared)
        if min(height, width) < 0 or not is_image_size(max(height, 1), max(width, 1)):
            self.problems.add(_BAD_IMAGE_SIZE, f"image {image_id} with [height, width] {json.dumps(declared)}")
            return 0, 0
        return height, width

    def table(self) -> Images:
        """Returns the images, in the file's order."""
        sizes = np.array(self.sizes, dtype=np.int32).reshape(-1, 2)
        return Images(
            image_id=np.array(self.ids, dtype=object),
            has_integer_id=np.array(self.is_integer, dtype=bool),
            file_name=np.array(self.file_names, dtype=object),
            height=sizes[:, 0],
            width=sizes[:, 1],
            size=np.full(len(self.ids), -1, dtype=np.int64),
            version=np.array([""] * len(self.ids), dtype=object),
            frame=np.full(len(self.ids), "", dtype=object),
            white=np.full(len(self.ids), WHITE, dtype=np.int32),
        )


class FederatedColumns:
    """What LVIS's image entries say of categories; without cost where no entry says anything."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.num_lists: dict[str, int] = {}
        self.image_ids: list[str] = []
        self.category_ids = array("q")
        self.kinds: list[str] = []

    def add(self, image_id: str, item: dict[str, Any]) -> None:
        """Appends what one image says."""
        for key, kind in _FEDERATED_LISTS.items():
            if key in item:
                self.num_lists[image_id] = self.num_lists.get(image_id, 0) + 1
                self._add_list(image_id, item, key, kind)

    def _add_list(self, image_id: str, item: dict[str, Any], key: str, kind: str) -> None:
        given = item[key] if isinstance(item[key], list) else [None]
        ids = [id_number(value) for value in given]
        if None in ids:
            self.problems.add(_BAD_FEDERATED_ID, f"image {image_id} with {shown(item, key)}")
        for category_id in dict.fromkeys(known for known in ids if known is not None):
            self.image_ids.append(image_id)
            self.category_ids.append(category_id)
            self.kinds.append(kind)

    def check(self, images: ImageColumns, categories: "CategoryColumns") -> None:
        """Reports what is only visible in whole columns."""
        if not self.num_lists:
            return
        complete = len(_FEDERATED_LISTS)
        self.problems.add_all(
            _NO_FEDERATED_LIST, [f"image {one}" for one in images.ids if self.num_lists.get(one) != complete]
        )
        known = np.array(sorted(categories.names), dtype=np.int64)
        for row in np.flatnonzero(np.isin(self.category_ids, known, invert=True)).tolist():
            self.problems.add(_BAD_FEDERATED_ID, f"image {self.image_ids[row]} with {self.category_ids[row]}")

    def contradicted(self, annotations: "AnnotationColumns") -> list[str]:
        """Returns the annotations of categories that their image is said to be without."""
        rows = zip(self.image_ids, self.category_ids, self.kinds, strict=True)
        negatives = {(image_id, category) for image_id, category, kind in rows if kind == "negative"}
        if not negatives:
            return []
        placed = zip(annotations.ids, annotations.image_rows, annotations.category_ids, strict=True)
        known = annotations.images.ids
        return [f"annotation {own}" for own, row, category in placed if (known[row], category) in negatives]

    def table(self) -> FederatedLabels | None:
        """Returns the labels, in the file's order; None where the dataset is not federated."""
        if not self.num_lists:
            return None
        return FederatedLabels(
            image_id=np.array(self.image_ids, dtype=object),
            category_id=np.array(self.category_ids, dtype=np.int64),
            kind=np.array(self.kinds, dtype=object),
        )


class CategoryColumns(Columns):
    """The categories, by id."""

    NOUN = "category"

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems)
        self.names: dict[int, str] = {}
        self.frequencies: dict[int, str | None] = {}
        self.supercategories: dict[int, Any] = {}

    def _add(self, item: dict[str, Any]) -> None:
        category_id = id_number(item.get("id"))
        name = item.get("name")
        if category_id is None:
            self.problems.add(_BAD_CATEGORY_ID, f"{self._place()} with {shown(item, 'id')}")
        elif category_id in self.names:
            self.problems.add(_REPEATED_CATEGORY_ID, str(category_id))
        elif not isinstance(name, str) or not name or not is_unicode(name):
            self.problems.add(_BAD_CATEGORY_NAME, f"category {category_id} with {shown(item, 'name')}")
            self.names[category_id] = f"category {category_id}"
        else:
            self.names[category_id] = name
            frequency = item.get("frequency")
            self.frequencies[category_id] = frequency if frequency in ("r", "c", "f") else None
            self.supercategories[category_id] = item.get("supercategory")

    def drop_placeholder(self, used_ids: Collection[int]) -> None:
        """Leaves out Roboflow's category 0: without annotations, named as a real one or as the group of all others."""
        if 0 not in self.names or 0 in used_ids or not used_ids:
            return
        name, others = self.names[0], [number for number in self.names if number != 0]
        has_double = any(self.names[number] == name for number in others)
        if has_double or (others and all(self.supercategories.get(number) == name for number in others)):
            del self.names[0]

    def check_names(self) -> None:
        """Reports names that are not unique."""
        self.problems.add_repeated(_REPEATED_NAME, list(self.names.values()))

    def table(self) -> Categories:
        """Returns the categories, by ascending id."""
        ids = sorted(self.names)
        return Categories(
            category_id=np.array(ids, dtype=np.int64),
            class_index=np.arange(len(ids), dtype=np.int32),
            name=np.array([self.names[category_id] for category_id in ids], dtype=object),
            frequency=np.array([self.frequencies[category_id] for category_id in ids], dtype=object),
        )
