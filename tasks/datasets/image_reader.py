"""Images of a dataset in their frame, the one that its boxes and masks are drawn in.

Whatever opens an image of a dataset opens it here. Several are read ahead of their use, within bounds; there a bad
image is an entry, not an error.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from refseg_core.errors import ImageError, NotFoundError
from refseg_core.images import Pixels, decode_image
from refseg_core.tables import Images
from tasks.storage.folder import Folder
from tasks.storage.prefetch import prefetch, threads_of

_READERS = _FILES_AHEAD = 6  # files fetched or being fetched at most, and
_BYTES_AHEAD = 256 << 20  # no further file where those are larger, as far as a listing gave their sizes
_DECODED_AHEAD = 2  # decoded images take far more memory than files


@dataclass(frozen=True)
class ReadImage:
    """An image's row in its table, and either its pixels, uint8 [H, W, 3], or why it cannot be read."""

    row: int
    pixels: npt.NDArray[np.uint8] | None
    error: str | None


def read_image(folder: Folder, images: Images, row: int, *, max_pixels: int) -> Pixels:
    """Returns an image of the table, uint8 [H, W, 3]. Raises ImageError or StoreError where it cannot be read."""
    return decode_row(folder.read(str(images.file_name[row])), images, row, max_pixels=max_pixels)


def decode_row(data: bytes, images: Images, row: int, *, max_pixels: int) -> Pixels:
    """Returns the pixels, uint8 [H, W, 3], of the file of an image of the table. Raises ImageError."""
    declared = (int(images.height[row]), int(images.width[row]))
    is_upright, white = images.frame[row] == "upright", int(images.white[row])
    return decode_image(data, max_pixels=max_pixels, declared_size=declared, is_upright=is_upright, white=white)


def read_images(folder: Folder, images: Images, *, max_pixels: int) -> Iterator[ReadImage]:
    """Reads and decodes every image of the table, in order, while the caller works on the ones before."""
    decode = partial(_decode, images, max_pixels)
    with closing(_fetch_ahead(folder, images)) as fetched:
        yield from prefetch(decode, fetched, _DECODED_AHEAD)


def _decode(images: Images, max_pixels: int, file: tuple[int, Future[bytes]]) -> ReadImage:
    row, data = file
    try:
        pixels = decode_row(data.result(), images, row, max_pixels=max_pixels)
    except (ImageError, NotFoundError) as error:
        return ReadImage(row, None, str(error))
    return ReadImage(row, pixels, None)


def _fetch_ahead(folder: Folder, images: Images) -> Generator[tuple[int, Future[bytes]], None, None]:
    """Each image's row and its bytes to come, in order."""
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    sizes = np.maximum(images.size, 0)
    row = 0
    with threads_of(_READERS, "read-images") as readers:
        while row < len(images) or waiting:
            while row < len(images):
                held = [sizes[other] for other, _ in waiting]
                if held and (len(held) == _FILES_AHEAD or sum(held) + sizes[row] > _BYTES_AHEAD):
                    break  # a single one always may be held
                waiting.append((row, readers.submit(folder.read, str(images.file_name[row]))))
                row += 1
            yield waiting.popleft()
