"""Labels images by what a store keeps of them: opens an image, and builds a model, where that is not enough."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from refseg_core import images as image_files
from refseg_core.errors import ImageError
from refseg_core.labeling.image_labels import FoundInstances, ImageFrame
from refseg_core.labeling.kept.kept_image import KeptImage
from refseg_core.models import preprocessing
from refseg_core.models.registry import model_spec
from refseg_core.tables import Images
from refseg_core.versions import combined
from tasks.datasets.image_reader import ReadImage, read_images
from tasks.models.weights import sha256_of_models
from tasks.runtime.cancellation import is_stopping
from tasks.specs import LabelSpec
from tasks.storage.folder import Folder
from tasks.storage.prefetch import prefetch
from tasks.storage.uris import redact
from tasks.store.kept_proposals import KeptProposals
from tasks.store.store import Store

if TYPE_CHECKING:
    from refseg_core.labeling.batch_labeler import BatchLabeler

_READ_AHEAD = 2  # images, and what is kept of them


class FoundImage(NamedTuple):
    """An image, with pixels only where they were needed; what was found, None where it cannot be read; model time."""

    read: ReadImage
    found: FoundInstances | None
    seconds: float


def kept_proposals_of(store: Store, spec: LabelSpec, *, version: int) -> KeptProposals:
    """Returns what a store keeps for these models and this grid, on whichever of the paths.

    `version`: of what is kept, without that of the models.
    """
    labeling = spec.labeling
    of_models = (model_spec(model.model).version for model in (spec.segmenter, spec.encoder))
    settings = {
        "images": redact(spec.images),
        "points_per_side": labeling.points_per_side,
        "pred_iou_thresh": labeling.pred_iou_thresh,
        "all_masks": labeling.parts.all_masks,
    }
    made_by = combined(image_files.VERSION, preprocessing.VERSION, *of_models, version)
    return KeptProposals(store, version=made_by, settings=settings, weights=sha256_of_models(spec))


def find_each(
    labeler: "BatchLabeler", kept: KeptProposals, images: Images, spec: LabelSpec, *, with_pixels: bool
) -> Generator[FoundImage, None, None]:
    """Finds the instances of images in order, until the work is stopped, and keeps what the models had to be asked.

    `with_pixels`: opens every image, as pictures of it need.
    """

    def look_up(row: int) -> _KnownImage:
        image = _KnownImage(kept, images, row, spec)
        if image.kept is None or with_pixels:
            image.open()  # ahead of its use
        return image

    with closing(prefetch(look_up, range(len(images)), _READ_AHEAD)) as known:
        for image in known:
            if is_stopping():
                return
            yield _found(labeler, image)


def _found(labeler: "BatchLabeler", image: "_KnownImage") -> FoundImage:
    started = time.perf_counter()
    try:
        found, added = labeler.find_kept(image.kept, lambda: image.frame(labeler))
    except ImageError:
        return FoundImage(image.open(), None, 0.0)
    seconds = time.perf_counter() - started
    if added is not None:
        image.add(added)
    return FoundImage(image.opened, found, seconds)


class _KnownImage:
    """An image, what is kept of it, and its pixels, which are read once and where they are needed."""

    def __init__(self, kept: KeptProposals, images: Images, row: int, spec: LabelSpec) -> None:
        self._store, self._row, self._spec = kept, row, spec
        self._image = images[row : row + 1]
        self.opened = ReadImage(row, None, None)
        found, self._number = kept.read(self._image)
        is_too_large = found is not None and found.size[0] * found.size[1] > spec.labeling.max_image_pixels
        self.kept: KeptImage | None = None if is_too_large else found

    def open(self) -> ReadImage:
        """Returns the image's pixels, or why there are none."""
        return self._read

    @cached_property
    def _read(self) -> ReadImage:
        max_pixels = self._spec.labeling.max_image_pixels
        (read,) = read_images(Folder(self._spec.images), self._image, max_pixels=max_pixels)
        self.opened = replace(read, row=self._row)
        return self.opened

    def frame(self, labeler: "BatchLabeler") -> ImageFrame:
        """Returns what the models need. Raises ImageError where the image cannot be read."""
        read = self.open()
        if read.pixels is None:
            raise ImageError(str(read.error))
        return labeler.to_frame(read.pixels)

    def add(self, added: KeptImage) -> None:
        """Keeps what the models were asked."""
        if self._number is not None:
            self._store.add(self._image, added, self._number)
