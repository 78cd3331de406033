"""What a folder holds, file by file: fsspec's own listing gathers a million dictionaries before the first is seen."""

import errno
import math
import os
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from tasks.storage.filesystems import protocols
from tasks.storage.retry import with_retries


class FileInfo(NamedTuple):
    """A listed file: name below the folder, size in bytes (-1 unknown), what changes with its content, and when it was
    written (seconds since 1970; infinity where unknown).
    """

    name: str
    size: int
    version: str
    modified: float = math.inf


def walk(filesystem: Any, path: str, uri: str) -> Iterator[FileInfo]:
    """Yields every file at any depth, page by page, in no particular order."""
    if isinstance(filesystem, LocalFileSystem):
        return _walk_local(path)
    if "s3" in protocols(filesystem):
        return _walk_s3(filesystem, path, uri)
    return _walk_any(filesystem, path)


def names_in(filesystem: Any, path: str, uri: str) -> Iterator[str]:
    """Yields the names of the files directly in a folder, in no particular order; looks at none of them."""
    if isinstance(filesystem, LocalFileSystem):
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries if not entry.is_dir())
    else:
        yield from (file.name for file in walk(filesystem, path, uri) if "/" not in file.name)


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
                        yield FileInfo(
                            prefix + entry.name, -1, ""
                        )  # it leads nowhere, which is an error where it is read
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    yield FileInfo(prefix + entry.name, -1, "")


def _walk_s3(filesystem: Any, path: str, uri: str) -> Iterator[FileInfo]:
    """Retries page by page: an error at the thousandth does not read the others again."""
    bucket, key, _ = filesystem.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = with_retries(partial(filesystem.call_s3, "list_objects_v2", **request), uri)
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
            size = -1 if entry.get("size") is None else int(entry["size"])
            version = _version(entry) or f"{size} bytes"
            yield FileInfo(entry["name"].removeprefix(prefix), size, version, _modified(entry))


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
