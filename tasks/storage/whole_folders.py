"""Folders that are written whole: locally one appears at once, or not at all, in the place of an earlier one.

An object store has no such thing: there objects appear one by one, and what an earlier folder held besides is removed
last. Not here: single objects (`objects.py`), and whether a folder may be replaced.
"""

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fsspec.implementations.local import LocalFileSystem

from refseg_core.errors import NotFoundError, StoreError
from tasks.storage.filesystems import resolve
from tasks.storage.folder import Folder
from tasks.storage.leftovers import unfinished_beside, unfinished_folder
from tasks.storage.listing import FileInfo
from tasks.storage.objects import write_uri
from tasks.storage.retry import explained

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE, as Linux numbers them


class NewFolder(Protocol):
    """A folder that is being written."""

    def put(self, name: str, chunks: Iterable[bytes]) -> None:
        """Writes a file from its parts."""

    def link(self, name: str, target: Path) -> None:
        """Makes a link to a local file. Raises StoreError where the place has no links."""


def local_path(uri: str) -> Path | None:
    """Returns the path of a local place, or None of another."""
    filesystem, path = resolve(uri)
    return Path(path) if isinstance(filesystem, LocalFileSystem) else None


def holds_anything(uri: str) -> bool:
    """Returns whether there is a file at a place, or a folder that holds some."""
    path = local_path(uri)
    if path is not None:
        return path.is_file() or (path.is_dir() and any(path.iterdir()))
    try:
        return Folder(uri).holds_files(("",))
    except NotFoundError:
        return False


def is_file(uri: str) -> bool:
    """Returns whether there is a file or object of that very name."""
    filesystem, path = resolve(uri)
    return bool(filesystem.isfile(path))


def list_entries(uri: str) -> list[FileInfo]:
    """Returns the files of a folder at any depth, by name; a local link is one too, whatever it leads to."""
    path = local_path(uri)
    if path is None:
        return Folder(uri).list_files()
    with explained(uri):
        return sorted(_entry(path, one) for one in path.rglob("*") if one.is_symlink() or not one.is_dir())


def _entry(folder: Path, path: Path) -> FileInfo:
    status = path.lstat()
    return FileInfo(path.relative_to(folder).as_posix(), status.st_size, str(status.st_mtime_ns), status.st_mtime)


@contextmanager
def written_whole(uri: str) -> Iterator[NewFolder]:
    """Yields a folder to write, which takes the place of what was there when the block ends without an error."""
    path = local_path(uri)
    if path is None:
        remote = _RemoteFolder(uri)
        yield remote
        remote.remove_others()
        return
    with explained(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(path) as unfinished:
            yield _LocalFolder(unfinished)
            _take_the_place(unfinished, path)


def _take_the_place(finished: Path, path: Path) -> None:
    """Renames a folder, or exchanges it with one that is there already, which the caller then removes.

    Where the file system cannot exchange them, the earlier one is moved away first: for that moment none is there.
    """
    if not path.exists():
        finished.rename(path)
    elif not _exchanged(finished, path):
        earlier = unfinished_beside(path)
        path.rename(earlier)
        finished.rename(path)
        earlier.rename(finished)


def _exchanged(first: Path, second: Path) -> bool:
    """Gives two folders each other's name in one step; returns whether the system can do that, as Linux can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done: int = rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE)
    return done == 0


@contextmanager
def _telling_long_names(name: str) -> Iterator[None]:
    """Raises StoreError that names the file where the place takes no name as long as its own."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        longest = max(name.split("/"), key=lambda part: len(os.fsencode(part)))
        raise StoreError(
            f"{longest!r}: its name of {len(os.fsencode(longest))} bytes is too long for the place, which takes 255 as "
            "a rule. Shorten the name of the image, or choose a format that is one file, such as coco or cvat."
        ) from error


class _LocalFolder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, chunks: Iterable[bytes]) -> None:
        with _telling_long_names(name), self._within(name).open("xb") as file:
            file.writelines(chunks)

    def link(self, name: str, target: Path) -> None:
        with _telling_long_names(name):
            self._within(name).symlink_to(target)

    def _within(self, name: str) -> Path:
        """Returns the path of a file, whose folder exists then. Raises StoreError if it is not below this one."""
        path = self._path / name
        if not path.resolve().is_relative_to(self._path.resolve()):
            raise StoreError(f"{name!r}: leads out of the folder that is written. Rename what has this name.")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class _RemoteFolder:
    def __init__(self, uri: str) -> None:
        self._folder = Folder(uri)
        self._before = {file.name for file in self._folder.list_files()} if holds_anything(uri) else set()
        self._written: set[str] = set()

    def put(self, name: str, chunks: Iterable[bytes]) -> None:
        if ".." in name.split("/") or name.startswith("/"):
            raise StoreError(f"{name!r}: leads out of the prefix that is written. Rename what has this name.")
        write_uri(self._folder.join(name), chunks)
        self._written.add(name)

    def link(self, name: str, target: Path) -> None:
        raise StoreError(f"{name}: an object store has no links to {target.parent}. Copy the images instead.")

    def remove_others(self) -> None:
        for name in sorted(self._before - self._written):
            self._folder.delete(name)
