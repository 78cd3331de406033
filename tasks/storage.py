"""The only module that opens a URI, and the only door to fsspec.

A folder is a local directory or a prefix in an object store, named by any fsspec URI or plain path. Objects are put
whole and once: `create` never overwrites, so that whoever reads an object reads all of it. Every call is patient with
passing faults (`tasks/faults.py`). What the objects mean is not known here (see `tasks/artifacts.py`).
"""

import errno
import math
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from refseg_core.errors import NotFoundError, StoreError
from tasks.addresses import check_address, redact, redact_text, scheme
from tasks.faults import NOT_FOUND, explain, patiently

Result = TypeVar("Result")

_creating_in_memory = Lock()
_PROBE = ".refseg-may-write"
_AT_ONCE = 16  # requests under way when many objects are read

# Listings are never cached: another process may have added objects since.
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"use_listings_cache": False, "default_fill_cache": False}}
_CLIENT_SETTINGS: dict[str, dict[str, Any]] = {"s3": {"retries": {"total_max_attempts": 1}}}  # we are patient enough
# s3fs would ask for an object's size first, to fetch large ones in parts: two requests for each image.
_READ_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}

_UPLOAD_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 2}}  # parts of at least 50 MB in memory


class FileInfo(NamedTuple):
    """A listed file: name below the folder, size in bytes (-1 unknown), what changes with its content, and when it was
    written (seconds since 1970; infinity where unknown).
    """

    name: str
    size: int
    version: str
    modified: float = math.inf


def open_uri(uri: str) -> BinaryIO:
    """Opens one object for reading, seekable. Raises StoreError where it is absent or may not be read."""
    filesystem, path = _resolve(uri)
    try:
        return cast(BinaryIO, patiently(lambda: filesystem.open(path, "rb"), uri))
    except ValueError as error:
        raise StoreError(f"{redact(uri)}: names no object ({error}).") from error


def uri_size(uri: str) -> int:
    """Bytes of one object. Raises StoreError where it is absent or may not be read."""
    filesystem, path = _resolve(uri)
    return int(patiently(lambda: filesystem.size(path), uri))


def read_uri(uri: str) -> bytes:
    """The bytes of one object. Raises StoreError where it is absent or may not be read."""
    filesystem, path = _resolve(uri)
    return _read(filesystem, path, uri)


def write_uri(uri: str, chunks: Iterable[bytes]) -> None:
    """Writes one object from its parts, whole or not at all, replacing what was there; never holds all of it."""
    filesystem, path = _resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        with _explained(uri):
            _replace_local(Path(path), chunks)
        return
    with tempfile.NamedTemporaryFile() as local:
        with _explained(tempfile.gettempdir()):
            local.writelines(chunks)
            local.flush()
        options = _UPLOAD_OPTIONS.get(_kind(uri), {})
        # Not `open` and `write`: closing after a failure, that makes an object of what came so far.
        patiently(lambda: filesystem.put_file(local.name, path, **options), uri)


class Folder:
    """A directory or prefix."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._filesystem, self._path = _resolve(uri)

    @property
    def can_be_listed(self) -> bool:
        """Whether the place can say what it holds; web servers cannot."""
        return not {"http", "https"} & _protocols(self._filesystem)

    def join(self, name: str) -> str:
        """The URI of an object in the folder."""
        return f"{self.uri.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises StoreError where it is absent or may not be read."""
        return _read(self._filesystem, self._at(name), self.join(name))

    def read_if_there(self, name: str) -> bytes | None:
        """An object's bytes, or None where it is absent."""
        try:
            return self.read(name)
        except NotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The bytes of each object, or None where it is absent, in order; several are fetched at once, a few ahead."""
        return ahead(self.read_if_there, names, _AT_ONCE)

    def create(self, name: str, data: bytes) -> bool:
        """Puts an object unless one of that name is there; says whether it is now ours.

        Whole or not at all, also when the process is killed; of several writers exactly one creates it. Where an
        equal object is already there (an acknowledgement was lost) it counts as ours.
        """
        return patiently(partial(self._create, name, data), self.join(name))

    def replace(self, name: str, data: bytes) -> None:
        """Puts an object whatever was there: for what people look at, never for artifacts."""
        patiently(partial(self._replace, name, data), self.join(name))

    def delete(self, name: str) -> None:
        """Removes an object; one that is gone already counts as removed."""
        try:
            patiently(partial(self._filesystem.rm_file, self._at(name)), self.join(name))
        except NotFoundError:
            return

    def overlaps(self, other: "Folder") -> bool:
        """Whether one of the two lies in the other, or both are one."""
        if type(self._filesystem) is not type(other._filesystem):
            return False
        own, theirs = (f"{folder._real_path()}/" for folder in (self, other))
        return own.startswith(theirs) or theirs.startswith(own)

    def check_readable(self) -> None:
        """Raises StoreError where the folder is absent or may not be read."""
        patiently(self._check_folder, self.uri)

    def check_writable(self) -> None:
        """Raises StoreError where nothing may be written. Leaves nothing behind, unless it may not delete."""
        self.replace(_PROBE, b"")
        with suppress(StoreError):
            self.delete(_PROBE)

    def holds_files(self, suffixes: tuple[str, ...]) -> bool:
        """Whether any file at any depth has a name that ends so; stops at the first."""
        self.check_readable()
        with _explained(self.uri):
            return any(file.name.lower().endswith(suffixes) for file in self._walk())

    def list_files(self, suffixes: tuple[str, ...] = ("",)) -> list[FileInfo]:
        """Every file at any depth whose name ends so (in lower case), by name.

        Raises StoreError where the folder is absent or may not be listed.
        """
        with _explained(self.uri):
            found = [file for file in self._walk() if file.name.lower().endswith(suffixes)]
        if not found:
            self.check_readable()
        return sorted(found)

    def list_folders(self) -> list[str]:
        """Names of the folders directly below, sorted; empty where there is nothing yet."""
        try:
            entries = patiently(lambda: self._filesystem.ls(self._path, detail=True), self.uri)
        except NotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if _is_folder(entry))

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _real_path(self) -> str:
        is_local = isinstance(self._filesystem, LocalFileSystem)
        return (str(Path(self._path).resolve()) if is_local else self._path).rstrip("/")

    def _create(self, name: str, data: bytes) -> bool:
        try:
            if isinstance(self._filesystem, LocalFileSystem):
                _create_local(Path(self._at(name)), data)
            else:
                with _creating_in_memory if isinstance(self._filesystem, MemoryFileSystem) else nullcontext():
                    self._filesystem.pipe_file(self._at(name), data, mode="create")
        except Exception:
            # The reply may be lost, and some servers answer a lost race with a general error: look what is there.
            # Once: whoever waits for the server waits in `create`, not again in every look.
            there = self._look(name)
            if there is None:
                raise
            return there == data
        return True

    def _look(self, name: str) -> bytes | None:
        """As `read_if_there`, but impatient: raises faults as they come."""
        try:
            return _read_once(self._filesystem, self._at(name), self.join(name))
        except NOT_FOUND:
            return None

    def _replace(self, name: str, data: bytes) -> None:
        if isinstance(self._filesystem, LocalFileSystem):
            _replace_local(Path(self._at(name)), [data])
        else:
            self._filesystem.pipe_file(self._at(name), data)

    def _check_folder(self) -> None:
        # Not `exists`, for which s3fs takes a bucket that it may not ask for, or cannot reach, to be absent.
        if self._filesystem.info(self._path)["type"] != "directory":  # locally there are also devices
            raise NotADirectoryError(self.uri)

    def _walk(self) -> Iterator[FileInfo]:
        """Every file at any depth, page by page, in no particular order."""
        if isinstance(self._filesystem, LocalFileSystem):
            return _walk_local(self._path)
        if "s3" in _protocols(self._filesystem):
            return _walk_s3(self._filesystem, self._path, self.uri)
        return _walk_any(self._filesystem, self._path)


def ahead(action: Callable[[Any], Result], items: Iterable[Any], at_once: int) -> Iterator[Result]:
    """What the action returns for each item, in order, while threads work on the next few."""
    left = iter(items)
    with ThreadPoolExecutor(at_once, thread_name_prefix="store") as threads:
        waiting = [threads.submit(action, item) for item in islice(left, at_once)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [threads.submit(action, item) for item in islice(left, 1)]


def _resolve(uri: str) -> tuple[Any, str]:
    try:
        uri.encode()
        check_address(uri)
        filesystem, path = fsspec.core.url_to_fs(uri, **_options(_kind(uri)))
        if isinstance(filesystem, LocalFileSystem) and (reason := _misread(uri)):
            raise ValueError(reason)
    except (ValueError, ImportError, OSError) as error:
        raise StoreError(
            f"{_shown(uri)}: cannot be opened: {redact_text(str(error))}. Use a path or a URI such as file:///folder "
            "or s3://bucket/prefix."
        ) from error
    return filesystem, path


def _kind(uri: str) -> str:
    """The scheme, one name for each kind of place."""
    name = scheme(uri)
    return "s3" if name == "s3a" else name


def _options(name: str) -> dict[str, Any]:
    options = dict(_OPTIONS.get(name, {}))
    if name in _CLIENT_SETTINGS:
        of_the_user = fsspec.config.conf.get(name, {}).get("config_kwargs", {})
        options["config_kwargs"] = {**of_the_user, **_CLIENT_SETTINGS[name]}
    return options


def _misread(uri: str) -> str | None:
    """Why fsspec would take the address for a local path that nobody meant, or None."""
    if not uri or "\0" in uri:
        return "it is empty or holds a NUL character"
    if "::" in uri:
        return "'::' joins the names of file systems, as in simplecache::s3://bucket, and no path may hold it"
    if scheme(uri) == "file" and not uri.removeprefix("file://").startswith("/"):
        return "file:// needs a whole path, and no host"
    return None


def _shown(uri: str) -> str:
    """The address as a message can hold it: printable and without secrets."""
    return redact(uri).encode("unicode_escape" if "\0" in uri else "utf-8", "backslashreplace").decode()


def _protocols(filesystem: Any) -> set[str]:
    named = filesystem.protocol
    return {named} if isinstance(named, str) else set(named)


def _read(filesystem: Any, path: str, uri: str) -> bytes:
    return patiently(lambda: _read_once(filesystem, path, uri), uri)


def _read_once(filesystem: Any, path: str, uri: str) -> bytes:
    return bytes(filesystem.cat_file(path, **_READ_OPTIONS.get(_kind(uri), {})))


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """For what may not be repeated: lasting faults say what to do, passing ones come as they are."""
    try:
        yield
    except Exception as error:
        explained = explain(error, uri)
        if explained is error:
            raise
        raise explained from error


# Local files.


def _create_local(path: Path, data: bytes) -> None:
    """The link either appears with the whole content or fails where a file exists."""
    with _written_beside(path, [data]) as unfinished:
        os.link(unfinished, path)
        _flush_folder(path.parent)


def _replace_local(path: Path, chunks: Iterable[bytes]) -> None:
    with _written_beside(path, chunks) as unfinished:
        unfinished.replace(path)


@contextmanager
def _written_beside(path: Path, chunks: Iterable[bytes]) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}")  # no longer than a name may be
    try:
        with unfinished.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Without this a machine that loses power may keep a manifest and lose the parts it names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Listings. fsspec's own gathers a million dictionaries before the first is seen.


def _walk_local(path: str) -> Iterator[FileInfo]:
    pending, seen = [(path, "")], set()
    while pending:
        folder, prefix = pending.pop()
        status = os.stat(folder)  # noqa: PTH116 a Path per file would double the time of a million
        if (status.st_dev, status.st_ino) in seen:  # a link back into its own folder
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_dir():
                        pending.append((entry.path, f"{prefix}{entry.name}/"))
                    elif entry.is_file():
                        status = entry.stat()
                        yield FileInfo(prefix + entry.name, status.st_size, str(status.st_mtime_ns), status.st_mtime)
                    elif entry.is_symlink():
                        yield FileInfo(prefix + entry.name, -1, "")  # it leads nowhere, as reading it will tell
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    yield FileInfo(prefix + entry.name, -1, "")


def _walk_s3(filesystem: Any, path: str, uri: str) -> Iterator[FileInfo]:
    """Patient page by page: a fault at the thousandth does not ask for the others again."""
    bucket, key, _ = filesystem.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = patiently(partial(filesystem.call_s3, "list_objects_v2", **request), uri)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):  # some programs mark folders so
                name, version = entry["Key"][len(prefix) :], entry["ETag"].strip('"')
                yield FileInfo(name, int(entry["Size"]), version, entry["LastModified"].timestamp())
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _walk_any(filesystem: Any, path: str) -> Iterator[FileInfo]:
    if filesystem.isfile(path):
        raise NotADirectoryError(path)
    prefix = path.rstrip("/") + "/"
    for _, _, files in filesystem.walk(path, detail=True, on_error="raise"):
        for entry in files.values():
            size = _size(entry)
            version = _version(entry) or f"{size} bytes"
            yield FileInfo(entry["name"].removeprefix(prefix), size, version, _modified(entry))


def _size(entry: dict[str, Any]) -> int:
    size = entry.get("size")
    return -1 if size is None else int(size)


def _version(entry: dict[str, Any]) -> str:
    for name in ("ETag", "etag", "mtime", "LastModified", "updated", "created"):
        if entry.get(name) is not None:
            return str(entry[name]).strip('"')
    return ""


def _modified(entry: dict[str, Any]) -> float:
    for name in ("mtime", "LastModified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, datetime | str):
            return datetime.fromisoformat(str(value)).timestamp()
    return math.inf


def _is_folder(entry: dict[str, Any]) -> bool:
    return entry.get("type") == "directory"
