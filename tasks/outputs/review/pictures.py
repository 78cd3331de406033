"""The pictures of the review page: images, instances and references, without anything drawn on them.

The page draws the masks itself, so that they can be hidden, clicked and magnified.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from refseg_core.images import Pixels
from refseg_core.tables import Images
from refseg_core.visualization import surroundings, to_jpeg
from refseg_core.visualization.drawing import resized
from tasks.datasets.image_reader import read_image
from tasks.datasets.reference_images import ReferenceFolder
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.storage.folder import Folder
from tasks.store.lineage import reference_dataset

_MAX_PIXELS = 400_000_000
_LONGEST_SIDE, _CROP_SIDE = 2048, 512  # px; what is larger is shown smaller
_QUALITY = 88
_IMAGES_KEPT, _JPEGS_KEPT = 4, 256

Bounds = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of an image, whole pixels."""


class ReviewPictures:
    """Reads images, and keeps the last ones. Raises ImageError or StoreError where one cannot be read."""

    def __init__(self, index: InstanceIndex) -> None:
        self._index = index
        run = index.run
        self._images = Folder(run.recipe_or_error()["settings"]["images"])
        dataset = reference_dataset(run.store, run.prototypes())
        self._references = ReferenceFolder((run.store.manifest(dataset.name) or {})["settings"]["images"], run.store)
        self._reference_images = run.store.load(dataset, Images)
        self._reference_row = {str(name): row for row, name in enumerate(self._reference_images.file_name)}
        self.pixels = lru_cache(_IMAGES_KEPT)(self._read_pixels)
        self._reference_pixels = lru_cache(_IMAGES_KEPT)(self._read_reference_pixels)
        self.image = lru_cache(_JPEGS_KEPT // 8)(self._image)
        self.crop = lru_cache(_JPEGS_KEPT)(self._crop)
        self.reference = lru_cache(_JPEGS_KEPT)(self._reference)

    def reference_size(self, row: int) -> tuple[int, int]:
        """Returns (height, width) of a reference's image."""
        return self._reference_pixels(str(self._index.references.file_name[row])).shape[:2]

    def _read_pixels(self, number: int) -> Pixels:
        row = self._index.images[number].row
        return read_image(self._images, self._index.dataset_images, row, max_pixels=_MAX_PIXELS)

    def _read_reference_pixels(self, file_name: str) -> Pixels:
        row = self._reference_row[file_name]
        return read_image(self._references, self._reference_images, row, max_pixels=_MAX_PIXELS)

    def _image(self, number: int) -> bytes:
        """Returns an image as JPEG of at most 2048 px a side."""
        return _jpeg(self.pixels(number), _LONGEST_SIDE)

    def _crop(self, row: int) -> bytes:
        """Returns an instance in its surroundings."""
        box = self._index.instances.box_xyxy[row].tolist()
        pixels = self.pixels(self._index.image_at(row))
        return _jpeg(_part(pixels, bounds_around(box, pixels.shape[:2])), _CROP_SIDE)

    def _reference(self, row: int) -> bytes:
        """Returns a reference in its surroundings."""
        pixels = self._reference_pixels(str(self._index.references.file_name[row]))
        box = self._index.references.box_xyxy[row].tolist()
        return _jpeg(_part(pixels, bounds_around(box, pixels.shape[:2])), _CROP_SIDE)


def bounds_around(box_xyxy: Sequence[float], size: tuple[int, int]) -> Bounds:
    """Returns the square that is shown around a box in an image of (height, width)."""
    return surroundings(np.array(box_xyxy, dtype=np.float64), size)


def _part(pixels: Pixels, bounds: Bounds) -> Pixels:
    left, top, right, bottom = bounds
    return pixels[top:bottom, left:right]


def _jpeg(pixels: Pixels, longest: int) -> bytes:
    scale = min(1.0, longest / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))
    return to_jpeg(np.array(resized(pixels, size)) if scale < 1 else pixels, _QUALITY)
