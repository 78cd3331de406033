"""The only module that opens a URI, and the only door to fsspec and to Parquet.

A folder is a local directory or a prefix in an object store, named by any fsspec URI or plain path. Objects are put
whole and once: `create` never overwrites, so that whoever reads an object reads all of it. What the objects mean is
not known here (see `tasks/artifacts.py`).
"""

import errno
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from refseg_core.columns import Table
from refseg_core.errors import NotFoundError, StoreError
from tasks.addresses import redact

AnyTable = TypeVar("AnyTable", bound=Table)

_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "EROFS")
_NO_CREDENTIALS = "no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or whatever the store asks for."
_UNUSABLE = {
    "ENOSPC": "no space left. Make room, or choose another place; what is done is kept.",
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
}

_creating_in_memory = Lock()

# Listings are never cached: another process may have added objects since.
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"use_listings_cache": False, "default_fill_cache": False}}


@dataclass(frozen=True)
class FileInfo:
    """A listed file: name below the folder, size in bytes (-1 unknown), and what changes with its content."""

    name: str
    size: int
    version: str


def open_uri(uri: str) -> BinaryIO:
    """Opens one object for reading, seekable. Raises StoreError where it is absent or may not be read."""
    filesystem, path = _resolve(uri)
    with _explained(uri):
        return cast(BinaryIO, filesystem.open(path, "rb"))


def uri_size(uri: str) -> int:
    """Bytes of one object. Raises StoreError where it is absent or may not be read."""
    filesystem, path = _resolve(uri)
    with _explained(uri):
        return int(filesystem.size(path))


def read_uri(uri: str) -> bytes:
    """The bytes of one object. Raises StoreError where it is absent or may not be read."""
    filesystem, path = _resolve(uri)
    with _explained(uri):
        return bytes(filesystem.cat_file(path))


def write_uri(uri: str, chunks: Iterable[bytes]) -> None:
    """Writes one object from its parts, whole or not at all, replacing what was there; never holds all of it."""
    filesystem, path = _resolve(uri)
    with _explained(uri):
        if isinstance(filesystem, LocalFileSystem):
            _replace_local(Path(path), chunks)
            return
        with tempfile.TemporaryFile() as local:
            local.writelines(chunks)
            local.seek(0)
            with filesystem.open(path, "wb") as remote:
                shutil.copyfileobj(local, remote)


class Folder:
    """A directory or prefix."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._filesystem, self._path = _resolve(uri)

    def join(self, name: str) -> str:
        """The URI of an object in the folder."""
        return f"{self.uri.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises StoreError where it is absent or may not be read."""
        with _explained(self.join(name)):
            return bytes(self._filesystem.cat_file(self._at(name)))

    def read_if_there(self, name: str) -> bytes | None:
        """An object's bytes, or None where it is absent."""
        try:
            return self.read(name)
        except NotFoundError:
            return None

    def create(self, name: str, data: bytes) -> bool:
        """Puts an object unless one of that name is there; says whether it is now ours.

        Whole or not at all, also when the process is killed; of several writers exactly one creates it. Where an
        equal object is already there (an acknowledgement was lost) it counts as ours.
        """
        try:
            if isinstance(self._filesystem, LocalFileSystem):
                _create_local(Path(self._at(name)), data)
            else:
                with _creating_in_memory if isinstance(self._filesystem, MemoryFileSystem) else nullcontext():
                    self._filesystem.pipe_file(self._at(name), data, mode="create")
        except Exception as error:
            # Some servers answer a lost race with a general error, so look whether an object is there.
            there = self.read_if_there(name)
            if there is None:
                raise _explain(error, self.join(name)) from error
            return there == data
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Puts an object whatever was there: for what people look at, never for artifacts."""
        with _explained(self.join(name)):
            if isinstance(self._filesystem, LocalFileSystem):
                _replace_local(Path(self._at(name)), [data])
            else:
                self._filesystem.pipe_file(self._at(name), data)

    def check_readable(self) -> None:
        """Raises StoreError where the folder is absent or may not be read."""
        with _explained(self.uri):
            if not self._filesystem.exists(self._path):
                raise FileNotFoundError(self.uri)
            if self._filesystem.isfile(self._path):
                raise NotADirectoryError(self.uri)

    def holds_files(self, suffixes: tuple[str, ...]) -> bool:
        """Whether any file at any depth has a name that ends so; stops at the first."""
        self.check_readable()
        with _explained(self.uri):
            walk = self._filesystem.walk(self._path)
            return any(name.lower().endswith(suffixes) for _, _, files in walk for name in files)

    def list_files(self, suffixes: tuple[str, ...] = ("",)) -> list[FileInfo]:
        """Every file at any depth whose name ends so (in lower case), by name.

        Raises StoreError where the folder is absent or may not be listed.
        """
        self.check_readable()
        with _explained(self.uri):
            found: dict[str, dict[str, Any]] = self._filesystem.find(self._path, detail=True)
        prefix = self._path.rstrip("/") + "/"
        names = {path: path.removeprefix(prefix) for path in found if path.lower().endswith(suffixes)}
        return sorted(
            (FileInfo(name, _size(found[path]), _version(found[path])) for path, name in names.items()),
            key=lambda file: file.name,
        )

    def list_folders(self) -> list[str]:
        """Names of the folders directly below, sorted; empty where there is nothing yet."""
        try:
            with _explained(self.uri):
                entries = self._filesystem.ls(self._path, detail=True)
        except NotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if _is_folder(entry))

    def read_table(self, name: str, table: type[AnyTable]) -> AnyTable:
        """Reads a Parquet object as the given table."""
        return table_from_parquet(self.read(name), table)

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"


def table_to_parquet(table: Table) -> bytes:
    """The table as Parquet; equal tables give equal bytes."""
    arrow = table.to_arrow()
    texts = [field.name for field in arrow.schema if pa.types.is_string(field.type)]
    buffer = io.BytesIO()
    # Dictionaries help repeated ids and names; on vectors and masks they only add to the size.
    pq.write_table(arrow, buffer, compression="zstd", use_dictionary=texts)
    return buffer.getvalue()


def table_from_parquet(data: bytes, table: type[AnyTable]) -> AnyTable:
    """Reads a table back."""
    return table.from_arrow(pq.read_table(io.BytesIO(data)))


def _resolve(uri: str) -> tuple[Any, str]:
    scheme = urlsplit(uri).scheme
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **_OPTIONS.get(scheme, {}))
    except (ValueError, ImportError) as error:
        raise StoreError(
            f"{redact(uri)}: cannot be opened: {error}. Use a path or a URI such as file:///folder or s3://bucket/prefix."
        ) from error
    return filesystem, path


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        explained = _explain(error, uri)
        if explained is error:
            raise
        raise explained from error


def _explain(error: Exception, uri: str) -> Exception:
    """Permanent faults as a StoreError that says what to do; passing ones as they came, to be retried."""
    shown, code = redact(uri), _code(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFoundError(f"{shown}: not found. Check the path, or the bucket and prefix.")
    if isinstance(error, PermissionError) or code in _DENIED:
        return StoreError(f"{shown}: access denied. Check the rights of the folder or the credentials of the bucket.")
    if isinstance(error, FileExistsError):
        return StoreError(f"{shown}: a file stands where a folder is needed. Choose another place.")
    if code in _UNUSABLE:
        return StoreError(f"{shown}: {_UNUSABLE[code]}")
    return error


def _code(error: Exception) -> str:
    """A short name of the fault: the system's for files, the service's or the library's for object stores."""
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, "")
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def _create_local(path: Path, data: bytes) -> None:
    """The link either appears with the whole content or fails where a file exists."""
    with _written_beside(path, [data]) as unfinished:
        os.link(unfinished, path)


def _replace_local(path: Path, chunks: Iterable[bytes]) -> None:
    with _written_beside(path, chunks) as unfinished:
        unfinished.replace(path)


@contextmanager
def _written_beside(path: Path, chunks: Iterable[bytes]) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _size(entry: dict[str, Any]) -> int:
    size = entry.get("size")
    return -1 if size is None else int(size)


def _version(entry: dict[str, Any]) -> str:
    for name in ("ETag", "etag", "mtime", "LastModified", "updated", "created"):
        if entry.get(name) is not None:
            return str(entry[name]).strip('"')
    return ""


def _is_folder(entry: dict[str, Any]) -> bool:
    return entry.get("type") == "directory"
