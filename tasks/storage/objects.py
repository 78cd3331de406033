"""Single objects by their URI: opened, read, measured, written whole."""

import errno
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem

from refseg_core.errors import StoreError
from tasks.storage.filesystems import kind_of, resolve
from tasks.storage.local_files import replace_local
from tasks.storage.retry import explained, with_retries
from tasks.storage.uris import redact

# s3fs would request an object's size first, to fetch large ones in parts: two requests for each image.
_READ_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
_UPLOAD_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 2}}  # parts of at least 50 MB in memory


def open_uri(uri: str) -> BinaryIO:
    """Opens one object for reading, seekable. Raises StoreError where it is absent or may not be read."""
    filesystem, path = resolve(uri)
    try:
        return cast(BinaryIO, with_retries(lambda: filesystem.open(path, "rb"), uri))
    except ValueError as error:
        raise StoreError(f"{redact(uri)}: names no object ({error}).") from error


def uri_size(uri: str) -> int:
    """Returns the size of one object in bytes. Raises StoreError where it is absent or may not be read."""
    filesystem, path = resolve(uri)
    return int(with_retries(lambda: filesystem.size(path), uri))


def read_uri(uri: str) -> bytes:
    """Returns the bytes of one object. Raises StoreError where it is absent or may not be read."""
    filesystem, path = resolve(uri)
    return read(filesystem, path, uri)


def write_uri(uri: str, chunks: Iterable[bytes]) -> None:
    """Writes one object from its parts, whole or not at all, replacing what was there; never holds all of it."""
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        with explained(uri):
            replace_local(Path(path), chunks)
        return
    with tempfile.NamedTemporaryFile() as local:
        with explained(tempfile.gettempdir()):
            local.writelines(chunks)
            local.flush()
        options = _UPLOAD_OPTIONS.get(kind_of(uri), {})
        # Not `open` and `write`: closing after a failure, that makes an object of what came so far.
        with_retries(lambda: filesystem.put_file(local.name, path, **options), uri)


def read(filesystem: Any, path: str, uri: str) -> bytes:
    """Returns an object's bytes, with retries."""
    return with_retries(lambda: read_once(filesystem, path, uri), uri)


def read_start(filesystem: Any, path: str, uri: str, num_bytes: int) -> bytes:
    """Returns an object's first bytes, with retries."""
    return with_retries(lambda: _read_start_once(filesystem, path, uri, num_bytes), uri)


def _read_start_once(filesystem: Any, path: str, uri: str, num_bytes: int) -> bytes:
    try:
        return bytes(filesystem.cat_file(path, start=0, end=num_bytes))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return read_once(filesystem, path, uri)  # S3 has no range of an empty object


def read_once(filesystem: Any, path: str, uri: str) -> bytes:
    """Returns an object's bytes; raises every error unchanged."""
    return bytes(filesystem.cat_file(path, **_READ_OPTIONS.get(kind_of(uri), {})))
