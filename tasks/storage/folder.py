"""A directory or prefix: its objects created once, read, listed and deleted."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock

from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from refseg_core.errors import NotFoundError, StoreError
from tasks.storage.filesystems import protocols, resolve
from tasks.storage.listing import FileInfo, names_in, walk
from tasks.storage.local_files import create_local, replace_local
from tasks.storage.objects import read, read_once, read_start
from tasks.storage.prefetch import prefetch
from tasks.storage.retry import NOT_FOUND, explained, with_retries

_creating_in_memory = Lock()
_PROBE = ".refseg-may-write"
_AT_ONCE = 16  # requests under way when many objects are read


class Folder:
    """A directory or prefix."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._filesystem, self._path = resolve(uri)

    @property
    def can_be_listed(self) -> bool:
        """Whether the place can say what it holds; web servers cannot."""
        return not {"http", "https"} & protocols(self._filesystem)

    def join(self, name: str) -> str:
        """Returns the URI of an object in the folder."""
        return f"{self.uri.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """Returns an object's bytes. Raises StoreError where it is absent or may not be read."""
        return read(self._filesystem, self._at(name), self.join(name))

    def read_start(self, name: str, num_bytes: int) -> bytes:
        """Returns an object's first bytes, or all where it has no more. Raises StoreError as `read` does."""
        return read_start(self._filesystem, self._at(name), self.join(name), num_bytes)

    def read_if_there(self, name: str) -> bytes | None:
        """Returns an object's bytes, or None where it is absent."""
        try:
            return self.read(name)
        except NotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """Returns the bytes of each object, or None where it is absent, in order; several are fetched at once."""
        return prefetch(self.read_if_there, names, _AT_ONCE)

    def create(self, name: str, data: bytes) -> bool:
        """Puts an object unless one of that name is there; says whether it is now ours.

        Whole or not at all, also when the process is killed; of several writers exactly one creates it. Where an
        equal object is already there (an acknowledgement was lost) it counts as ours.
        """
        return with_retries(partial(self._create, name, data), self.join(name))

    def replace(self, name: str, data: bytes) -> None:
        """Puts an object whatever was there: for what people look at, never for artifacts."""
        with_retries(partial(self._replace, name, data), self.join(name))

    def delete(self, name: str) -> None:
        """Removes an object; one that is gone already counts as removed."""
        try:
            with_retries(partial(self._filesystem.rm_file, self._at(name)), self.join(name))
        except NotFoundError:
            return

    def overlaps(self, other: "Folder") -> bool:
        """Returns whether one of the two lies in the other, or both are one."""
        if type(self._filesystem) is not type(other._filesystem):
            return False
        own, theirs = (f"{folder._real_path()}/" for folder in (self, other))
        return own.startswith(theirs) or theirs.startswith(own)

    def check_readable(self) -> None:
        """Raises StoreError where the folder is absent or may not be read."""
        with_retries(self._check_folder, self.uri)

    def check_writable(self) -> None:
        """Raises StoreError where nothing may be written. Leaves nothing behind, unless it may not delete."""
        self.replace(_PROBE, b"")
        with suppress(StoreError):
            self.delete(_PROBE)

    def holds_files(self, suffixes: tuple[str, ...]) -> bool:
        """Returns whether any file at any depth has a name that ends so; stops at the first."""
        self.check_readable()
        with explained(self.uri):
            return any(file.name.lower().endswith(suffixes) for file in self._walk())

    def list_files(self, suffixes: tuple[str, ...] = ("",)) -> list[FileInfo]:
        """Returns every file at any depth whose name ends so (in lower case), by name.

        Raises StoreError where the folder is absent or may not be listed.
        """
        with explained(self.uri):
            found = [file for file in self._walk() if file.name.lower().endswith(suffixes)]
        if not found:
            self.check_readable()
        return sorted(found)

    def list_names(self, suffix: str) -> list[str]:
        """Returns the names of the files directly in the folder that end so, sorted; quicker than `list_files`.

        Raises StoreError where the folder is absent or may not be listed.
        """
        with explained(self.uri):
            found = sorted(one for one in names_in(self._filesystem, self._path, self.uri) if one.endswith(suffix))
        if not found:
            self.check_readable()
        return found

    def find_listed(self, names: Iterable[str], most: int) -> set[str]:
        """Returns those of the names that files have, by a listing that ends with the last of them or after some files.

        `most`: how many files it shows at most. Raises StoreError where the folder is absent or may not be listed.
        """
        missing, found = set(names), set[str]()
        with explained(self.uri):
            for file in islice(self._walk(), most if missing else 0):
                if file.name in missing and file.size >= 0:  # a link that leads nowhere has no size
                    missing.remove(file.name)
                    found.add(file.name)
                if not missing:
                    break
        return found

    def list_folders(self) -> list[str]:
        """Returns the names of the folders directly below, sorted; empty where there is nothing yet."""
        try:
            entries = with_retries(lambda: self._filesystem.ls(self._path, detail=True), self.uri)
        except NotFoundError:
            return []
        folders = [entry for entry in entries if entry.get("type") == "directory"]
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in folders)

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _real_path(self) -> str:
        is_local = isinstance(self._filesystem, LocalFileSystem)
        return (str(Path(self._path).resolve()) if is_local else self._path).rstrip("/")

    def _create(self, name: str, data: bytes) -> bool:
        try:
            if isinstance(self._filesystem, LocalFileSystem):
                create_local(Path(self._at(name)), data)
            else:
                with _creating_in_memory if isinstance(self._filesystem, MemoryFileSystem) else nullcontext():
                    self._filesystem.pipe_file(self._at(name), data, mode="create")
        except Exception:
            # The reply may be lost, and some servers answer a lost race with a general error: look what is there.
            # Once: `create` retries, so that this need not.
            there = self._look(name)
            if there is None:
                raise
            return there == data
        return True

    def _look(self, name: str) -> bytes | None:
        """Returns what `read_if_there` returns, without retries; raises transient errors unchanged."""
        try:
            return read_once(self._filesystem, self._at(name), self.join(name))
        except NOT_FOUND:
            return None

    def _replace(self, name: str, data: bytes) -> None:
        if isinstance(self._filesystem, LocalFileSystem):
            replace_local(Path(self._at(name)), [data])
        else:
            self._filesystem.pipe_file(self._at(name), data)

    def _check_folder(self) -> None:
        # Not `exists`: s3fs takes a bucket that it may not read, or cannot reach, for absent.
        if self._filesystem.info(self._path)["type"] != "directory":  # locally there are also devices
            raise NotADirectoryError(self.uri)

    def _walk(self) -> Iterator[FileInfo]:
        return walk(self._filesystem, self._path, self.uri)
