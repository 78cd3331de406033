"""A picture and what was marked in it become a reference: read, checked, and segmented where points mark it.

Not here: keeping it in the store (`tasks/datasets/reference_edits.py`), and segmenting boxes, which is a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from refseg_core.errors import DatasetError, ImageError, UnusableReferenceError
from refseg_core.images import Pixels, decode_image
from refseg_core.masks.rle import Masks, Rle, boxes_of_masks, encode_masks
from refseg_core.references.segmentation import segment_points
from refseg_core.references.validation import check_mask, check_points, fitted_box
from tasks.datasets.reference_edits import AddedReference, ReferenceEdits
from tasks.models.loading import load_segmenter
from tasks.specs import Models
from tasks.storage.objects import read_uri
from tasks.storage.uris import redact

_MAX_PIXELS = 400_000_000


@dataclass(frozen=True)
class NewReference:
    """An instance in a picture, marked in one of three ways; frames: the picture as people see it, pixels.

    `picture` and `mask`: paths or URIs; a mask is an image of the picture's size, of which all but black is inside.
    `points`: (x, y), all on the instance.
    """

    category: str
    picture: str
    box_xyxy: tuple[float, ...] | None = None
    mask: str | None = None
    points: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class ReadReference:
    """A reference to add with its picture: the file, its pixels RGB, uint8 [H, W, 3], and its mask if it has one."""

    new: NewReference
    data: bytes
    pixels_HW3: Pixels
    inside_HW: Masks | None


def add_reference(edits: ReferenceEdits, read: ReadReference, models: Models) -> AddedReference:
    """Keeps the reference in the store; returns it with its id.

    Raises DatasetError where the points mark nothing of the picture.
    """
    new, data = read.new, read.data
    height, width = read.pixels_HW3.shape[:2]
    with _naming(new.picture):
        box_xyxy, mask, source, score = _marked(read, models)
    name = PurePosixPath(redact(new.picture)).name
    return edits.add(
        AddedReference(
            id="",
            category=new.category,
            file_name=edits.put_picture(name, data),
            original_name=name,
            height=height,
            width=width,
            box_xyxy=(box_xyxy[0], box_xyxy[1], box_xyxy[2], box_xyxy[3]),
            mask=mask,
            mask_source=source,
            mask_score=score,
        )
    )


def read_reference(new: NewReference) -> ReadReference:
    """Reads a reference to add and checks what marks it, which needs no model.

    A box that ends at most 2 px outside is cut to the picture. Raises DatasetError where a file cannot be read, or the
    mark covers nothing of the picture, or ends further outside.
    """
    data = read_uri(new.picture)
    pixels = _decoded(data, new.picture)
    size = pixels.shape[:2]
    with _naming(new.picture):
        if new.box_xyxy is not None:
            box_xyxy = fitted_box(np.array(new.box_xyxy, dtype=np.float64), *size)
            new = replace(new, box_xyxy=tuple(box_xyxy.tolist()))
        if new.points is not None:
            check_points(np.array(new.points, dtype=np.float64), *size)
        if new.mask is None:
            return ReadReference(new, data, pixels, None)
        inside_HW: Masks = np.any(_decoded(read_uri(new.mask), new.mask), axis=2)
        check_mask(inside_HW, *size)
        return ReadReference(new, data, pixels, inside_HW)


@contextmanager
def _naming(picture: str) -> Iterator[None]:
    """Names the picture in what is wrong with its mark."""
    try:
        yield
    except UnusableReferenceError as error:
        raise DatasetError(f"{redact(picture)}: {error}") from error


def _marked(read: ReadReference, models: Models) -> tuple[tuple[float, ...], Rle | None, str, float | None]:
    """Returns box, mask, where the mask is from, and the segmenter's predicted IoU of it."""
    new = read.new
    if new.box_xyxy is not None:
        return new.box_xyxy, None, "none", None
    if read.inside_HW is not None:
        return *_box_and_mask(read.inside_HW), "dataset", None
    segmenter = load_segmenter(models.segmenter, models.device)
    mask_HW, score = segment_points(segmenter, read.pixels_HW3, np.array(new.points, dtype=np.float64))
    return *_box_and_mask(mask_HW), "segmenter", score


def _box_and_mask(mask_HW: Masks) -> tuple[tuple[float, ...], Rle]:
    left, top, right, bottom = boxes_of_masks(mask_HW[None])[0].tolist()
    return (float(left), float(top), right + 1.0, bottom + 1.0), encode_masks(mask_HW[None])[0]


def _decoded(data: bytes, uri: str) -> Pixels:
    try:
        return decode_image(data, max_pixels=_MAX_PIXELS, is_upright=True)
    except ImageError as error:
        raise DatasetError(f"{redact(uri)}: cannot be read: {error}") from error
