"""Reads images of a dataset: ahead of whoever works on them, a few at a time, one bad image at a time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.errors import ImageError, NotFoundError
from refseg_core.images import decode_image
from refseg_core.tables import Images
from tasks.storage import Folder

_READERS = 4
_AHEAD = 8  # decoded images waiting at most, so that memory stays bounded


@dataclass(frozen=True)
class ReadImage:
    """An image's row in its table, and either its pixels, uint8 [H, W, 3], or why it cannot be read."""

    row: int
    pixels: npt.NDArray[np.uint8] | None
    error: str | None


def read_images(folder: Folder, images: Images, *, max_pixels: int) -> Iterator[ReadImage]:
    """Reads and decodes every image of the table, in order, while the caller works on the ones before."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read-images") as readers:
        waiting: deque[Future[ReadImage]] = deque()
        for row in range(len(images)):
            waiting.append(readers.submit(_read, folder, images, row, max_pixels))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_pixels(folder: Folder, images: Images, row: int, *, max_pixels: int) -> npt.NDArray[np.uint8]:
    """One image, uint8 [H, W, 3]. Raises ImageError or StoreError."""
    declared = (int(images.height[row]), int(images.width[row]))
    data = folder.read(str(images.file_name[row]))
    return decode_image(data, max_pixels=max_pixels, declared_size=declared if all(declared) else None)


def _read(folder: Folder, images: Images, row: int, max_pixels: int) -> ReadImage:
    try:
        return ReadImage(row, read_pixels(folder, images, row, max_pixels=max_pixels), None)
    except (ImageError, NotFoundError) as error:
        return ReadImage(row, None, str(error))
