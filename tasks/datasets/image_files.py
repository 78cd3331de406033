"""The files of a folder of images: which of them are images, and what their headers say, from the first bytes of each.

Not here: what headers mean for a dataset (`refseg_core/datasets/checks/frames.py`), and decoding (`image_reader.py`).
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property, partial
from posixpath import splitext

from refseg_core.datasets.image_files.names import UNUSABLE, ListedNames, check_file_name, is_hidden
from refseg_core.datasets.oddities import EXAMPLES, Oddity, OddityCounter
from refseg_core.errors import ImageError, StoreError
from refseg_core.images import (
    HEIF_SUFFIXES,
    IMAGE_SUFFIXES,
    WHITE,
    ImageHeader,
    image_header,
    is_image,
    largest_gray,
    may_have_16_bits,
)
from tasks.storage.folder import Folder
from tasks.storage.listing import FileInfo
from tasks.storage.prefetch import prefetch
from tasks.storage.recent import Recent

_AT_ONCE = 16  # files under way
_KEPT = 20_000  # headers that a process keeps, of the files that it looked into last
_HEADER_BYTES, _SIGNATURE_BYTES = 1 << 16, 64
_MOST_READ, _SAMPLE = 2_000, 1_000  # of more images than that, so many are looked at
_SUFFIXES_SHOWN = 6
_MAYBE_DEEP = {".png", ".tif", ".tiff", ".pgm", ".jp2", ".j2k", ""}  # suffixes of files that may have 16 bits
_LOOKED_AT, _MOST_PIXELS = 8, 400_000_000
_WHITES = (1023, 4095, 16383, WHITE)  # of 10, 12, 14 and 16 bits


_headers = Recent[ImageHeader](_KEPT)
_whites = Recent[int | None](_KEPT)


class ImageFiles:
    """The files of a folder of images, listed once and each header read once.

    Where files are listed, as they are first of all with `by_version`, headers are read once in a process as long as
    the files stay the same.
    """

    def __init__(self, folder: Folder, *, by_version: bool = False) -> None:
        self.folder = folder
        self._by_version = by_version and folder.can_be_listed
        self._known: dict[str, ImageHeader | None] = {}

    # What there is.

    @cached_property
    def listed(self) -> list[FileInfo]:
        """Every file at any depth, by name, without what file managers and archives leave behind.

        Nor those that have no name that means the same everywhere.
        """
        return [file for file in self._found if check_file_name(file.name) is None]

    @cached_property
    def _found(self) -> list[FileInfo]:
        return [file for file in self.folder.list_files() if not is_hidden(file.name)]

    @property
    def unusable(self) -> list[str]:
        """The files that are not listed since their names cannot be used, by name."""
        return [file.name for file in self._found if check_file_name(file.name) is not None]

    @cached_property
    def images(self) -> list[FileInfo]:
        """The images among them: by what their names end in, or by how they begin where names have no suffix."""
        unnamed = [file.name for file in self.listed if not _suffix(file.name)]
        starts = prefetch(partial(self.folder.read_start, num_bytes=_SIGNATURE_BYTES), unnamed, _AT_ONCE)
        by_content = {name for name, start in zip(unnamed, starts, strict=True) if is_image(start)}
        return [file for file in self.listed if _suffix(file.name) in IMAGE_SUFFIXES or file.name in by_content]

    def oddities(self, known_suffixes: Iterable[str] = ()) -> tuple[Oddity, ...]:
        """Returns what is left out of the images: all other files, but for those with the suffixes of annotations.

        Images whose names cannot be used are told whatever their suffix.
        """
        images = {file.name for file in self.images}
        others = [file.name for file in self.listed if file.name not in images]
        known = tuple(known_suffixes)
        others = [name for name in others if not name.lower().endswith(known)]
        heif = [name for name in others if _suffix(name) in HEIF_SUFFIXES]
        rest = [name for name in others if _suffix(name) not in HEIF_SUFFIXES]
        what = f"files in no format of images that is read ({_suffixes(rest)}): left out"
        needs = "HEIC files, which are read after `pip install 'refseg[heif]'`: left out"
        found = [(needs, heif), (what, rest)]
        counter = OddityCounter()
        for name in self.unusable:
            if _suffix(name) in IMAGE_SUFFIXES or not name.lower().endswith(known):
                counter.add(UNUSABLE, f"{name} {check_file_name(name)}")
        left_out = (Oddity(what, len(names), tuple(names[:EXAMPLES])) for what, names in found if names)
        return (*left_out, *counter.found())

    @cached_property
    def _names(self) -> ListedNames:
        try:
            return ListedNames(file.name for file in self.listed)
        except StoreError:  # what cannot be listed is named where its images are opened
            return ListedNames(())

    def find(self, name: str) -> str:
        """Returns the name of the file that a name means, which may be written otherwise; or the name itself."""
        return self._names.find(name) if self.folder.can_be_listed else name

    def resembling(self, name: str) -> list[str]:
        """Returns the files that a name may mean that no file has; nothing where it is one's, or none is like it."""
        if not self.folder.can_be_listed:
            return []
        others = self._names.resembling(name)
        return [] if name in others else others

    # What their headers say.

    @cached_property
    def _version_of(self) -> dict[str, tuple[int, str]]:
        return {file.name: (file.size, file.version) for file in self.listed if file.version}

    def _key(self, name: str) -> tuple[str, str, int, str] | None:
        """Returns what tells a file from all others and from itself when it is changed; None where that is not known.

        A listing is not made for it alone.
        """
        is_listed = self._by_version or "listed" in vars(self)
        version = self._version_of.get(name) if is_listed else None
        return None if version is None else (self.folder.uri, name, *version)

    def _header(self, name: str, key: Hashable | None) -> ImageHeader | None:
        """Returns an image's header, None where it cannot be read; it is kept by its key."""
        find = partial(_read_header, self.folder, name)
        try:
            return find() if key is None else _headers.get(key, find)
        except (ImageError, StoreError, OSError):
            return None

    def read(self, names: Iterable[str]) -> dict[str, ImageHeader]:
        """Returns the headers of these images, several read at once; without those that cannot be read."""
        wanted = list(dict.fromkeys(names))
        new = [name for name in wanted if name not in self._known]
        finders = [partial(self._header, name, self._key(name)) for name in new]
        self._known |= zip(new, prefetch(lambda find: find(), finders, _AT_ONCE), strict=True)
        return {name: header for name in wanted if (header := self._known[name]) is not None}

    def some(self, names: Sequence[str]) -> list[str]:
        """Returns these images or, of very many, some throughout and those whose headers are known."""
        wanted = list(dict.fromkeys(names))
        if len(wanted) <= _MOST_READ:
            return wanted
        return [*wanted[:: len(wanted) // _SAMPLE], *(name for name in wanted if name in self._known)]

    def sizes(self, names: Iterable[str], *, as_stored: bool = False) -> dict[str, tuple[int, int]]:
        """Returns (height, width) of each image as people see it, or its pixels; (0, 0) where it cannot be read."""
        wanted = list(names)
        sizes = {
            name: header.stored_size if as_stored else header.upright_size for name, header in self.read(wanted).items()
        }
        return {name: sizes.get(name, (0, 0)) for name in wanted}

    def upright_sizes(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Returns (height, width) as people see them of those images whose orientation swaps their sides."""
        headers = self.read(names).items()
        return {name: header.upright_size for name, header in headers if header.upright_size != header.stored_size}

    def find_white(self, names: Sequence[str]) -> int:
        """Returns the value that is white in the images' 16-bit grayscale: by the largest of some of their files."""
        deep = _maybe_deep(names)
        some = deep[:: max(1, len(deep) // _LOOKED_AT)][:_LOOKED_AT]
        values = [value for value in map(self._largest_gray, some) if value is not None]
        return next(white for white in _WHITES if white >= max(values, default=WHITE))

    def deep_images(self, names: Sequence[str]) -> list[str]:
        """Returns which of the images are 16-bit grayscale; of very many images, those among some throughout."""
        some = self.some(_maybe_deep(names))
        deep = [name for name, is_deep in zip(some, prefetch(self._is_deep, some, _AT_ONCE), strict=True) if is_deep]
        readable = self.read(deep)
        return [name for name in deep if name in readable]

    def _is_deep(self, name: str) -> bool:
        try:
            return may_have_16_bits(self.folder.read_start(name, _HEADER_BYTES))
        except (StoreError, OSError):
            return False

    def _largest_gray(self, name: str) -> int | None:
        key, find = self._key(name), partial(_read_largest_gray, self.folder, name)
        try:
            return find() if key is None else _whites.get(key, find)
        except (ImageError, StoreError, OSError):
            return None


def _read_header(folder: Folder, name: str) -> ImageHeader:
    """Returns an image's header from its first bytes, or from all of them. Raises what reading raises, ImageError."""
    try:
        return image_header(folder.read_start(name, _HEADER_BYTES))
    except ImageError:
        return image_header(folder.read(name))


def _read_largest_gray(folder: Folder, name: str) -> int | None:
    """Returns the largest value of a file of 16-bit grayscale, None for any other. Raises as `_read_header` does."""
    if not may_have_16_bits(folder.read_start(name, _HEADER_BYTES)):
        return None
    return largest_gray(folder.read(name), max_pixels=_MOST_PIXELS)


def _maybe_deep(names: Sequence[str]) -> list[str]:
    return [name for name in names if _suffix(name) in _MAYBE_DEEP]


def _suffix(name: str) -> str:
    return splitext(name)[1].lower()


def _suffixes(names: Sequence[str]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[_suffix(name) or "without suffix"] += 1
    most = sorted(counts, key=lambda suffix: -counts[suffix])
    return ", ".join(most[:_SUFFIXES_SHOWN]) + (" and others" if len(most) > _SUFFIXES_SHOWN else "")
