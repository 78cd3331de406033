"""Masks of another file, for the annotations that have none: LVIS's minival takes them from the whole validation set.

Here: which mask belongs to which annotation. Not here: reading one (`segmentations.py`).
"""

from dataclasses import dataclass
from typing import Any

from refseg_core.datasets.coco.annotations import AnnotationColumns
from refseg_core.datasets.coco.items import Columns
from refseg_core.datasets.coco.json_values import id_text, shown
from refseg_core.datasets.coco.segmentations import SegmentationError
from refseg_core.errors import Problems
from refseg_core.settings import Conventions

_NOT_FOUND = (
    "an annotation of the targets has no mask, and this file none for it: expected an annotation of its id with a "
    "segmentation; give the file that the annotations were taken from"
)
_NOT_AT_POSITION = (
    "an annotation of the targets has no mask, and this file none for it: expected a segmentation at the position in "
    "the list (from 0) that its id says, as conventions 'original' read it; 'corrected' finds masks by id"
)
_OTHER_IMAGE = (
    "an annotation of the targets has its id here in another image: give the file that the annotations were taken from"
)


@dataclass(frozen=True)
class MaskFile:
    """A COCO document to take masks from, and its name in messages.

    `conventions`: "corrected" finds an annotation's mask by its id. "original" repeats the published code, which takes
    the id for a position in the list, from 0: mostly another instance's mask, as LVIS's ids start at 1.
    """

    document: bytes
    source: str
    conventions: Conventions = "corrected"


class BorrowedMasks(Columns):
    """Gives masks to the annotations that have none, which are all known already."""

    NOUN = "annotation"

    def __init__(self, problems: Problems, annotations: AnnotationColumns, conventions: Conventions) -> None:
        super().__init__(problems)
        self.annotations = annotations
        self.by_position = conventions == "original"
        self.row_of = {annotations.ids[row]: row for row, mask in enumerate(annotations.masks) if mask is None}

    def _add(self, item: dict[str, Any]) -> None:
        row = self.row_of.get(str(self.num_items - 1) if self.by_position else id_text(item.get("id")) or "")
        if row is None:
            return
        name = f"annotation {self.annotations.ids[row]}"
        own_image = self.annotations.images.ids[self.annotations.image_rows[row]]
        if not self.by_position and id_text(item.get("image_id")) != own_image:
            self.problems.add(_OTHER_IMAGE, f"{name} of image {own_image} with {shown(item, 'image_id')}")
            return
        try:
            # By position it may be another image's mask, which the published code does not mind.
            mask = self.annotations.read_mask(row, item.get("segmentation"), may_lie_outside=self.by_position)
        except SegmentationError as error:
            self.problems.add(error.kind, f"{name}{error.found}")
            return
        if mask is not None:
            self.annotations.masks[row] = mask
            del self.row_of[self.annotations.ids[row]]

    def check(self) -> None:
        """Reports the annotations that have no mask in either file."""
        if not self.problems.counts:
            self.problems.add_all(_NOT_AT_POSITION if self.by_position else _NOT_FOUND, list(self.row_of))
