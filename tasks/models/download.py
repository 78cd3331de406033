"""Downloading the published weights into a local folder, whole and verified.

Where they lie and what is right about them is in `tasks/models/weights.py`.
"""

import errno
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tenacity import RetryCallState, Retrying, retry_if_exception

from refseg_core.errors import StoreError, WeightsError
from refseg_core.models.registry import ModelSpec, model_spec
from tasks.models.weights import (
    FOLDER_VARIABLE,
    first_reason,
    is_local,
    is_transient_cause,
    published_location,
    remedies_for,
    sha256_of,
    weights_folder,
)
from tasks.storage.objects import open_uri, read_uri, uri_size
from tasks.storage.retry import error_of, pause_seconds
from tasks.storage.uris import redact

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes written, and reported, at once
_ATTEMPTS = 5  # in a row without a single new byte
_FIRST_PAUSE_SECONDS = 0.4

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""


def pull_weights(
    model: str,
    *,
    folder: str | Path | None = None,
    progress: Progress = lambda done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Downloads the published weights into a local folder, by default the weights folder; returns the file.

    A file that is already there and right is kept. An interrupted download continues where it stopped (in
    `<file>.part`); network errors are retried with growing pauses; the file appears under its name only when
    its size and sha256 are right. Of several processes one downloads and the others wait for it.

    Raises WeightsError where the download fails permanently, saying which file to put where.
    """
    spec = model_spec(model)
    if spec.url is None:
        return Path(published_location(spec))
    target = _local_folder(folder) / spec.file_name
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f".{target.name}.lock")):
            if not _is_right(target, spec):
                part = target.with_name(f"{target.name}.part")
                _download(spec, part, progress, pause)
                part.replace(target)
    return target


def _local_folder(folder: str | Path | None) -> Path:
    named = str(folder or weights_folder())
    if not is_local(named):
        raise WeightsError(
            f"Weights are downloaded to a local folder, and {redact(named)} is none. Give a folder to download to, "
            "and copy the file from there."
        )
    return Path(named.removeprefix("file://")).expanduser()


def _download(spec: ModelSpec, part: Path, progress: Progress, pause: Callable[[float], None]) -> None:
    """Completes `part` and checks it. Raises WeightsError."""
    stalls = _Stalls(part)

    def log_error(state: RetryCallState) -> None:
        reason = first_reason(error_of(state))
        _log.warning("%s: stopped at byte %d (%s), trying again", spec.url, _length(part), reason)

    retrying = Retrying(
        wait=lambda _: pause_seconds(stalls.failures, first=_FIRST_PAUSE_SECONDS),
        retry=retry_if_exception(stalls.should_retry),
        before_sleep=log_error,
        sleep=pause,
        reraise=True,
    )
    try:
        retrying(_fetch, spec, part, progress)
    except WeightsError:
        raise
    except Exception as error:  # libraries have no common class for faults of the network
        raise _unreachable(spec, part, error) from error
    _check_download(spec, part)


class _Stalls:
    """Counts failures in a row that brought not a single new byte."""

    def __init__(self, part: Path) -> None:
        self._part, self._length = part, _length(part)
        self.failures = 0

    def should_retry(self, error: BaseException) -> bool:
        """Counts a failure, and returns whether it may be otherwise the next time."""
        before, self._length = self._length, _length(self._part)
        self.failures = 1 if self._length > before else self.failures + 1
        may_pass = is_transient_cause(error) if isinstance(error, StoreError) else not isinstance(error, WeightsError)
        return self.failures < _ATTEMPTS and may_pass and isinstance(error, Exception)


def _fetch(spec: ModelSpec, part: Path, progress: Progress) -> None:
    """Appends to `part` what it lacks. Raises whatever the connection raises."""
    assert spec.url is not None
    size = uri_size(spec.url)
    if spec.size not in (None, size):
        raise WeightsError(
            f"{spec.url} is not the published file of {spec.name!r}: it has {size} bytes, expected "
            f"{spec.size}. Look whether a proxy answers in its place."
        )
    done = _length(part)
    if done > size:
        _log.warning("%s is longer than the file it should be a part of, starting again", part)
        done = 0
    try:
        with open_uri(spec.url) as source:
            source.seek(done)
            _copy(source, part, done, size, progress)
    except ValueError:
        _log.warning("%s: the server does not send parts of files, taking the whole at once", spec.url)
        _copy(io.BytesIO(read_uri(spec.url)), part, 0, size, progress)


def _copy(source: BinaryIO, part: Path, done: int, size: int, progress: Progress) -> None:
    with _writing(part):
        sink = part.open("ab")
        sink.truncate(done)
    with sink:
        progress(done, size)
        while chunk := source.read(min(_CHUNK, size - done)):
            with _writing(part):
                sink.write(chunk)
                sink.flush()
            done += len(chunk)
            progress(done, size)
        with _writing(part):
            os.fsync(sink.fileno())
    if done < size:
        raise ConnectionError(f"the connection ended after {done} of {size} bytes")


def _check_download(spec: ModelSpec, part: Path) -> None:
    if spec.sha256 is None:
        _log.warning("%s: no checksum is published, so only the size was checked", spec.url)
        return
    with part.open("rb") as file:
        sha256 = sha256_of(file)
    if sha256 != spec.sha256:
        part.unlink()
        raise WeightsError(
            f"The download of {spec.url} is damaged: its sha256 is {sha256}, expected {spec.sha256}. "
            f"{part} was deleted; run `refseg weights pull {spec.name}` again."
        )


def _is_right(target: Path, spec: ModelSpec) -> bool:
    if not target.exists():
        return False
    if spec.size not in (None, _length(target)):
        is_right = False
    else:
        with target.open("rb") as file:
            is_right = spec.sha256 in (None, sha256_of(file))
    if not is_right:
        _log.warning("%s is not the published file of %r and is replaced", target, spec.name)
    return is_right


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unreachable(spec: ModelSpec, part: Path, error: Exception) -> WeightsError:
    kept = f" {_length(part)} bytes are kept in {part} and need not come again." if _length(part) else ""
    return WeightsError(
        f"The weights of {spec.name!r} could not be downloaded ({first_reason(error)}).{kept} If this machine has "
        f"no network, fetch the file elsewhere. {remedies_for(spec, part.parent)}"
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written ({error.strerror or error}). Make room or give another folder, also as "
            f"{FOLDER_VARIABLE}; the download will continue where it stopped."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of that file, waiting until it is free; the system frees it when the process ends."""
    with path.open("ab") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("%s: waiting for another process that downloads the same file", path)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                # Some cluster file systems have no locks; the checksum still catches two writers at once.
                _log.warning("%s: this file system has no locks (%s)", path, error.strerror)
        yield
