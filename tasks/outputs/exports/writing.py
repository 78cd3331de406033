"""The files of an export that is a folder, and how they get there, with the images if these are wanted.

Names of images and categories come from others: none leads out of the folder, and no two of them meet in one file.
"""

import itertools
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape
from posixpath import splitext
from typing import NamedTuple

import numpy as np

from refseg_core.errors import ConfigurationError, listed
from refseg_core.tables import Images
from tasks.outputs.exports.formats import SPLIT_NAMES, ImageMode
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.storage.whole_folders import NewFolder, local_path, written_whole

_COPIES_AT_ONCE = 8
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_EXPORT_IMAGES = "Export the images too (--images link or copy), which are renamed then."
_LONGEST_FOLDER = 100  # bytes of a category's name
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


class File(NamedTuple):
    """A file by its name in the folder, and the pieces of its content."""

    name: str
    chunks: Iterable[bytes]


class ImageFile(NamedTuple):
    """An image by its name in the folder, and its path below the image folder."""

    name: str
    source: str


class ImageNames:
    """What the images of an export are called in it.

    Tools find an image's labels by its name without suffix. Where several images share that, such as a.jpg and a.png,
    or A.jpg where capitals are no others, their suffix becomes a part of it; this needs the images in the export, under
    their new names. `advice`: what to do where it has none.
    """

    def __init__(self, images: Images, *, may_rename: bool, advice: str = _EXPORT_IMAGES) -> None:
        names = [str(name) for name in images.file_name]
        shared = Counter(splitext(name)[0].lower() for name in names)
        taken = set(shared)
        self._stems: list[str] = []
        self.renamed: list[str] = []
        for name in names:
            stem, suffix = splitext(name)
            if shared[stem.lower()] > 1:
                self.renamed.append(name)
                stem = _unused(f"{stem}_{suffix.lstrip('.')}", taken)
            self._stems.append(stem)
        self._suffixes = [splitext(name)[1] for name in names]
        if self.renamed and not may_rename:
            raise ConfigurationError(
                f"{len(self.renamed)} images share their name but for the suffix or capitals "
                f"({listed(self.renamed, 5)}), and so would their labels. {advice}"
            )

    def stem(self, row: int) -> str:
        """Returns the path of an image without its suffix, which no other image has."""
        return self._stems[row]

    def image(self, row: int) -> str:
        """Returns the path of an image."""
        return self._stems[row] + self._suffixes[row]


class Splits:
    """Which images are for training, validation and test: drawn by seed, by the shares of them all."""

    def __init__(self, num_images: int, shares: Sequence[float], seed: int) -> None:
        self.names = SPLIT_NAMES[: max(len(shares), 1)]
        bounds = np.round(np.cumsum([0, *(shares or (1,))]) * num_images).astype(np.int64)
        self._split_of = np.zeros(num_images, dtype=np.int64)
        order = np.random.default_rng(seed).permutation(num_images)
        for split, (first, last) in enumerate(itertools.pairwise(bounds.tolist())):
            self._split_of[order[first:last]] = split

    def name_of(self, row: int) -> str:
        """Returns the name of an image's split."""
        return self.names[int(self._split_of[row])]


def _unused(stem: str, taken: set[str]) -> str:
    found, number = stem, 1
    while found.lower() in taken:
        number += 1
        found = f"{stem}_{number}"
    taken.add(found.lower())
    return found


def folder_names(names: Iterable[str]) -> list[str]:
    """Returns a name for a folder for each name of a category, no two alike; most are as they were."""
    taken: set[str] = set()
    return [_unused(_cut(_NOT_IN_NAMES.sub("_", name).strip(" .")) or "_", taken) for name in names]


def _cut(name: str) -> str:
    return name.encode()[:_LONGEST_FOLDER].decode(errors="ignore").strip(" .")


def xml_text(text: str) -> str:
    """Returns a text as it stands in XML, in an attribute too; what XML cannot hold becomes a question mark."""
    return escape(_CONTROL.sub("?", text), quote=True)


def write_folder(uri: str, files: Iterable[File | ImageFile], images_uri: str, mode: ImageMode) -> None:
    """Writes all files, locally whole or not at all. Several images are copied at a time."""
    source = Folder(images_uri)
    root = None if mode == "copy" or local_path(uri) is None else local_path(images_uri)
    if mode == "link" and root is None:
        raise ConfigurationError(
            f"Images in {redact(images_uri)} cannot be linked from {redact(uri)}: links need both to be local folders. "
            "Choose --images copy, or none."
        )
    copies: deque[Future[None]] = deque()
    with written_whole(uri) as folder, ThreadPoolExecutor(_COPIES_AT_ONCE) as threads:
        for file in files:
            if isinstance(file, File):
                folder.put(file.name, file.chunks)
            elif root is not None:
                folder.link(file.name, (root / file.source).resolve())
            else:
                copies.append(threads.submit(_copy, folder, source, file))
                if len(copies) > 2 * _COPIES_AT_ONCE:
                    copies.popleft().result()
        for copy in copies:
            copy.result()


def _copy(folder: NewFolder, source: Folder, file: ImageFile) -> None:
    folder.put(file.name, [source.read(file.source)])
