"""The images that references lie in: read, and identified by their content."""

import hashlib
from collections.abc import Collection, Iterable
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from refseg_core.errors import DatasetError, ImageError, NotFoundError, StoreError, listed
from refseg_core.table_schema import Array
from refseg_core.tables import Images, References
from tasks.datasets.image_reader import read_image
from tasks.storage.folder import Folder
from tasks.storage.prefetch import prefetch
from tasks.storage.uris import redact
from tasks.store.store import Store

IN_STORE = "store:"
"""How the names of pictures begin that were added to the store; the rest is their place in it."""

_MAX_PIXELS = 400_000_000
_AT_ONCE, _SHOWN = 16, 8
_PER_PAGE = 1_000  # files that an object store lists at once


class ReferenceFolder(Folder):
    """A folder of reference images, and with it the pictures that were added to the store."""

    def __init__(self, uri: str, store: Store) -> None:
        super().__init__(uri)
        self._store = store

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image. Raises StoreError where it is absent or may not be read."""
        if name.startswith(IN_STORE):
            return self._store.folder.read(name.removeprefix(IN_STORE))
        return super().read(name)


def missing_images(folder: Folder, names: Iterable[str]) -> list[str]:
    """Returns those of the named images that are not in the folder, each once.

    A listing tells of most, as far as it takes no longer than the requests that it saves, several of which go at once;
    the others are looked for one by one.
    """
    wanted = list(dict.fromkeys(names))
    listed_names = _listed(folder, wanted)
    others = [name for name in wanted if name not in listed_names]
    are_there = prefetch(partial(_is_there, folder), others, _AT_ONCE)
    return [name for name, is_there in zip(others, are_there, strict=True) if not is_there]


def _listed(folder: Folder, names: Collection[str]) -> set[str]:
    try:
        return folder.find_listed(names, len(names) * _PER_PAGE // _AT_ONCE) if folder.can_be_listed else set()
    except (StoreError, OSError):  # who may read a folder often may not list it
        return set()


def _is_there(folder: Folder, name: str) -> bool:
    try:
        folder.read_start(name, 1)
    except NotFoundError:
        return False
    except (StoreError, OSError):  # whoever reads it says what is wrong
        return True
    return True


class ReferenceImages:
    """The images of a reference set."""

    def __init__(self, folder: Folder, images: Images, references: References) -> None:
        self._folder, self._references = folder, references
        self._file_names = sorted(set(references.file_name))
        self._images = images
        self._row_of = {str(name): row for row, name in enumerate(images.file_name)}

    @cached_property
    def _sha256_of(self) -> dict[str, str]:
        try:
            return {name: hashlib.sha256(self._folder.read(name)).hexdigest() for name in self._file_names}
        except NotFoundError as error:
            raise DatasetError(self._what_is_missing()) from error

    def _what_is_missing(self) -> str:
        missing = missing_images(self._folder, self._file_names)
        ids = self._references.annotation_id[np.isin(self._references.file_name, missing)].tolist()
        drops = " ".join(f"--drop {reference_id}" for reference_id in ids[:_SHOWN])
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        return (
            f"{len(ids)} of {len(self._references)} references lie in images that are not in "
            f"{redact(self._folder.uri)}: {listed(missing)}. Put them there, correct references.images, or leave these "
            f"references out: `refseg bank CONFIG {drops}`{more}."
        )

    def content(self) -> str:
        """Returns the hash of all the images' bytes: what is made from them follows it."""
        digest = hashlib.sha256()
        for name in self._file_names:
            digest.update(bytes.fromhex(self._sha256_of[name]))
        return digest.hexdigest()

    def sha256(self, file_name: str) -> str:
        """Returns the hash of one image's bytes."""
        return self._sha256_of[file_name]

    def sources(self, references: References) -> Array:
        """Returns the hash of each reference's image, frame, box and mask, as text [N]: what is made of it follows it.

        Neither its category counts nor what else is referenced.
        """
        named = zip(references.file_name, references.box_xyxy.tolist(), references.mask_rle, strict=True)
        parts = [(self.sha256(name), self.frame(name), box, mask and tuple(mask)) for name, box, mask in named]
        return np.array([hashlib.sha256(repr(part).encode()).hexdigest() for part in parts], dtype=object)

    def frame(self, file_name: str) -> list[int | str]:
        """Returns what decides an image besides its bytes: declared height and width, px, frame, and white."""
        row, images = self._row_of[file_name], self._images
        return [int(images.height[row]), int(images.width[row]), str(images.frame[row]), int(images.white[row])]

    def read(self, file_name: str) -> npt.NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises DatasetError if it cannot be read, which stops the run."""
        try:
            return read_image(self._folder, self._images, self._row_of[file_name], max_pixels=_MAX_PIXELS)
        except ImageError as error:
            raise DatasetError(
                f"The reference image {file_name} cannot be read: {error} Repair it, or choose references from others."
            ) from error
