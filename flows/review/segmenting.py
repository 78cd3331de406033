"""Masks of missed objects: SAM2 asked by a box or by clicks, loaded when the first is asked for."""

import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np

from refseg_core.errors import ConfigurationError, UnusableReferenceError
from refseg_core.masks.rle import Rle, encode_masks
from refseg_core.models.protocols import Segmenter
from refseg_core.references.segmentation import PromptedImage
from tasks.outputs.review.pictures import ReviewPictures

_IMAGES_EMBEDDED = 3  # kept, since clicks on one image come one after the other
_MASKS_KEPT = 512


@dataclass(frozen=True)
class AskedMask:
    """A mask that was asked for, known by an id until it is used."""

    mask_id: str
    image: int
    mask: Rle
    predicted_iou: float


class Segmenting:
    """Asks a segmenter about images, one at a time."""

    def __init__(self, load: Callable[[], Segmenter], pictures: ReviewPictures) -> None:
        self._load = lru_cache(1)(load)
        self._pictures = pictures
        self._embedded = lru_cache(_IMAGES_EMBEDDED)(self._embed)
        self._masks: OrderedDict[str, AskedMask] = OrderedDict()
        self._lock = Lock()

    def prepare(self, image: int) -> None:
        """Loads the model and embeds an image, which takes most of the time. Raises WeightsError."""
        with self._lock:
            self._embedded(image)

    def ask(
        self, image: int, *, box: Sequence[float] | None = None, points: Sequence[Sequence[float]] = ()
    ) -> AskedMask:
        """Returns the mask of what a box (x1, y1, x2, y2) holds, or of what all points (x, y) lie on, in pixels.

        Raises WeightsError where there is no model, UnusableReferenceError where nothing is found.
        """
        if (box is None) == (not points):
            raise ConfigurationError("A mask is asked for by a box or by points, one of the two.")
        with self._lock:
            prompted = self._embedded(image)
            if box is not None:
                mask_HW, predicted_iou = prompted.in_box(np.array(box, dtype=np.float64))
            else:
                mask_HW, predicted_iou = prompted.at_points(np.array(points, dtype=np.float64))
            if not mask_HW.any():
                raise UnusableReferenceError("Nothing is found there: draw another box, or click on the object.")
            asked = AskedMask(uuid.uuid4().hex, image, encode_masks(mask_HW[None])[0], predicted_iou)
            self._masks[asked.mask_id] = asked
            while len(self._masks) > _MASKS_KEPT:
                self._masks.popitem(last=False)
        return asked

    def asked(self, mask_id: str) -> AskedMask:
        """Returns a mask that was asked for. Raises ConfigurationError where it is too long ago."""
        if mask_id not in self._masks:
            raise ConfigurationError("This mask was drawn too long ago, or before the server started: draw it again.")
        return self._masks[mask_id]

    def _embed(self, image: int) -> PromptedImage:
        return PromptedImage(self._load(), self._pictures.pixels(image))
