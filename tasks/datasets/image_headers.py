"""The headers of a folder's images: their sizes and orientations, from the first bytes of each file.

Not here: what they mean for a dataset (`refseg_core/datasets/frames.py`).
"""

from collections.abc import Iterable, Sequence
from functools import partial

from refseg_core.errors import ImageError, StoreError
from refseg_core.images import ImageHeader, image_header
from tasks.storage.folder import Folder
from tasks.storage.prefetch import prefetch

_AT_ONCE = 16  # files under way
_HEADER_BYTES = 1 << 16
_MOST_READ, _SAMPLE = 2_000, 1_000  # of more images than that, so many are looked at


class ImageHeaders:
    """The headers of a folder's images, each read once."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._known: dict[str, ImageHeader | None] = {}

    def read(self, names: Iterable[str]) -> dict[str, ImageHeader]:
        """Returns the headers of these images, several read at once; without those that cannot be read."""
        wanted = list(dict.fromkeys(names))
        new = [name for name in wanted if name not in self._known]
        self._known |= zip(new, prefetch(partial(_read, self._folder), new, _AT_ONCE), strict=True)
        return {name: header for name in wanted if (header := self._known[name]) is not None}

    def read_some(self, names: Sequence[str]) -> dict[str, ImageHeader]:
        """Returns the headers of these images or, of very many, of some throughout and of those that are known."""
        wanted = list(dict.fromkeys(names))
        if len(wanted) > _MOST_READ:
            some = wanted[:: len(wanted) // _SAMPLE]
            wanted = [*some, *(name for name in wanted if name in self._known)]
        return self.read(wanted)

    def sizes(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Returns (height, width) of each image as people see it; (0, 0) where it cannot be read."""
        wanted = list(names)
        headers = self.read(wanted)
        return {name: headers[name].upright_size if name in headers else (0, 0) for name in wanted}

    def upright_sizes(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Returns (height, width) as people see them of those images whose orientation swaps their sides."""
        headers = self.read(names).items()
        return {name: header.upright_size for name, header in headers if header.upright_size != header.stored_size}


def _read(folder: Folder, name: str) -> ImageHeader | None:
    """Returns an image's header from its first bytes, or from all of them; None where it cannot be read."""
    for read in (partial(folder.read_start, name, _HEADER_BYTES), partial(folder.read, name)):
        try:
            return image_header(read())
        except StoreError:
            return None
        except ImageError:
            continue
    return None
