"""Model weights: finding, checking, loading and downloading their files.

What is published where is in `refseg_core/registry.py`; fitting parameters to a model is in
`refseg_core/checkpoints.py`. Files are identified by the sha256 of their bytes, wherever they came from.
"""

import errno
import hashlib
import io
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor

from refseg_core.errors import StoreError, WeightsError
from refseg_core.registry import REGISTRY, Kind, PublishedWeights, published_weights
from tasks.storage import open_uri, read_uri, redact, uri_size

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)

FOLDER_VARIABLE = "REFSEG_WEIGHTS"
_DEFAULT_FOLDER = "~/.cache/refseg/weights"
_CHUNK = 1 << 20
_ATTEMPTS = 5  # in a row without a single new byte
_FIRST_PAUSE_SECONDS = 0.5
_LASTING_STATUSES = (401, 403, 404, 410)
_LASTING_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""


@dataclass(frozen=True, eq=False)
class LoadedWeights:
    """Parameters by their official names, on the CPU; the sha256 of the file's bytes; where it lay (no secrets)."""

    state: Mapping[str, Tensor]
    sha256: str
    source: str


@dataclass(frozen=True)
class ListedWeights:
    """What is known of a model's weights, and whether they can be loaded without a download.

    `state` is 'packaged' (comes with refseg), 'present', 'wrong size' or 'missing'; `location` is the file that null
    as a source stands for, there or not.
    """

    model: str
    kind: Kind
    size: int | None
    is_pinned: bool
    licence: str
    url: str | None
    state: Literal["packaged", "present", "wrong size", "missing"]
    location: str


def weights_folder() -> str:
    """The folder or URI prefix where published weights are kept: REFSEG_WEIGHTS, else ~/.cache/refseg/weights."""
    return os.environ.get(FOLDER_VARIABLE) or str(Path(_DEFAULT_FOLDER).expanduser())


def load_weights(model: str, source: str | None = None) -> LoadedWeights:
    """Reads the weights of a model.

    `source` is a path or URI; null stands for the published file in the weights folder, which must then have the
    published sha256, or for the file that comes with refseg. A file of the user's own needs no known checksum.

    Raises WeightsError where the file is missing (saying what to put where), is not the published one, or holds
    anything but tensors by name; faults of the network as they come, since they may pass.
    """
    published = published_weights(model)
    uri = source or _location(published)
    try:
        file = _opened(uri)
    except StoreError as error:
        raise WeightsError(_unreadable(published, source, error)) from error
    with file:
        sha256 = _sha256(file)
        if not source:
            _check_sha256(published, sha256, uri)
        file.seek(0)
        return LoadedWeights(_read_state(file, redact(uri)), sha256, redact(uri))


def locate_weights(model: str, source: str | None = None) -> str:
    """The path or URI that `load_weights` would read. Reads nothing, so that mistakes show in seconds.

    Raises WeightsError where the file cannot be opened, or has not the size of the published one it stands for.
    """
    published = published_weights(model)
    uri = source or _location(published)
    try:
        open_uri(uri).close()
        size = uri_size(uri)
    except StoreError as error:
        raise WeightsError(_unreadable(published, source, error)) from error
    if not source and published.size not in (None, size):
        raise WeightsError(_not_the_published(published, uri, f"it has {size} bytes, expected {published.size}"))
    return uri


def list_weights() -> list[ListedWeights]:
    """Every known model, in the registry's order. Raises WeightsError where the weights folder cannot be read."""
    return [_listed(published) for published in REGISTRY.values()]


def pull_weights(
    model: str,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Downloads the published weights into a local folder, by default the weights folder; returns the file.

    A file that is already there and right is kept. A download that was cut goes on where it stopped (in
    `<file>.part`); faults of the network are retried with growing pauses; the file appears under its name only when
    its size and sha256 are right. Of several processes one downloads and the others wait for it.

    Raises WeightsError where the download fails for good, saying what to put where.
    """
    published = published_weights(model)
    if published.url is None:
        return Path(_location(published))
    target = _local_folder(folder) / published.file_name
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f".{target.name}.lock")):
            if not _is_right(target, published):
                part = target.with_name(f"{target.name}.part")
                _download(published, part, progress or _no_progress, pause)
                part.replace(target)
    return target


# --- where the files lie -------------------------------------------------------------------------------------------


def _location(published: PublishedWeights) -> str:
    if published.is_packaged:
        return str(resources.files("refseg_core.demo").joinpath("weights", published.file_name))
    return f"{weights_folder().rstrip('/')}/{published.file_name}"


def _is_local(uri: str) -> bool:
    # A scheme of one letter is a drive.
    return urlsplit(uri).scheme == "file" or len(urlsplit(uri).scheme) < len("s3")


def _local_folder(folder: str | Path | None) -> Path:
    named = str(folder or weights_folder())
    if not _is_local(named):
        raise WeightsError(
            f"Weights are downloaded to a local folder, and {redact(named)} is none. Give a folder to download to, "
            "and copy the file from there."
        )
    return Path(named.removeprefix("file://")).expanduser()


def _listed(published: PublishedWeights) -> ListedWeights:
    location = _location(published)
    size = _size_if_there(location)
    state: Literal["packaged", "present", "wrong size", "missing"]
    if size is None:
        state = "missing"
    elif published.is_packaged:
        state = "packaged"
    else:
        state = "present" if published.size in (None, size) else "wrong size"
    return ListedWeights(
        model=published.model,
        kind=published.kind,
        size=size if published.is_packaged else published.size,
        is_pinned=published.sha256 is not None,
        licence=published.licence,
        url=published.url,
        state=state,
        location=redact(location),
    )


def _size_if_there(uri: str) -> int | None:
    try:
        return uri_size(uri)
    except StoreError as error:
        if _is_absent(error):
            return None
        raise WeightsError(f"The weights folder cannot be read: {error}") from error


def _is_absent(error: StoreError) -> bool:
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError) and not _is_passing(error)


def _is_passing(error: StoreError) -> bool:
    """Whether it may go away by itself: fsspec reports every failure of a web server as a file that is not found."""
    root = _root_cause(error)
    status = getattr(root, "status", None)
    if status is not None:
        return status not in _LASTING_STATUSES
    return isinstance(root, OSError) and not isinstance(root, _LASTING_ERRORS)


def _root_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root_cause(error.__cause__)


def _unreadable(published: PublishedWeights, source: str | None, error: StoreError) -> str:
    if _is_passing(error):
        return f"{published.kind}.weights: {redact(source or _location(published))} cannot be read: {_reason(error)}."
    if source:
        return f"{published.kind}.weights: {error}"
    if not _is_absent(error):
        return f"The weights of {published.model!r} cannot be read: {error}"
    missing = f"The weights of {published.model!r} are missing: {redact(_location(published))} does not exist."
    if published.is_packaged:
        return f"{missing} The file comes with refseg; install refseg again."
    return f"{missing} {_remedies(published, weights_folder())}"


def _remedies(published: PublishedWeights, folder: str | Path) -> str:
    return (
        f"Run `refseg weights pull {published.model}`, or put the file {published.file_name} from {published.url} "
        f"into {redact(str(folder))}, or set {published.kind}.weights to a path or URI."
    )


# --- reading -------------------------------------------------------------------------------------------------------


def _opened(uri: str) -> BinaryIO:
    """A local file as it is; anything else read once into memory, since it is read twice: checked, then loaded."""
    return open_uri(uri) if _is_local(uri) else io.BytesIO(read_uri(uri))


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _check_sha256(published: PublishedWeights, sha256: str, uri: str) -> None:
    if published.sha256 not in (None, sha256):
        fault = f"its sha256 is {sha256}, expected {published.sha256}"
        raise WeightsError(_not_the_published(published, uri, fault))


def _not_the_published(published: PublishedWeights, uri: str, fault: str) -> str:
    return (
        f"{redact(uri)} is damaged or not the published file of {published.model!r}: {fault}. Delete it and run "
        f"`refseg weights pull {published.model}`; weights of your own are given as {published.kind}.weights."
    )


def _read_state(file: BinaryIO, shown: str) -> dict[str, Tensor]:
    """Unpacks a file of parameters, plain or below the key 'model' (the two official forms)."""
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise WeightsError(
            f"{shown} is not a file of PyTorch weights, or is damaged: it cannot be unpacked as tensors by name "
            f"({type(error).__name__})."
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{shown} holds {_described(loaded)}, not tensors by name.")
    strange = [name for name, value in loaded.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsError(
            f"{shown} holds more than tensors by name: {', '.join(map(repr, strange[:5]))}. Save the model's "
            "state_dict() alone, or below the key 'model'."
        )
    return dict(loaded)


def _described(value: object) -> str:
    return "nothing" if isinstance(value, Mapping) else f"a {type(value).__name__}"


# --- downloading ---------------------------------------------------------------------------------------------------


def _download(published: PublishedWeights, part: Path, progress: Progress, pause: Callable[[float], None]) -> None:
    """Completes `part` and checks it. Raises WeightsError."""
    failures = 0
    while True:
        before = _length(part)
        try:
            _fetch(published, part, progress)
            break
        except WeightsError:
            raise
        except Exception as error:  # libraries have no common class for faults of the network
            failures = 1 if _length(part) > before else failures + 1
            if failures == _ATTEMPTS or (isinstance(error, StoreError) and not _is_passing(error)):
                raise _unreachable(published, part, error) from error
            _log.warning("%s: stopped at byte %d (%s), trying again", published.url, _length(part), _reason(error))
            pause(_FIRST_PAUSE_SECONDS * 2 ** (failures - 1) * random.uniform(0.5, 1))
    _check_download(published, part)


def _fetch(published: PublishedWeights, part: Path, progress: Progress) -> None:
    """Appends to `part` what it lacks. Raises whatever the connection raises."""
    assert published.url is not None
    size = uri_size(published.url)
    if published.size not in (None, size):
        raise WeightsError(
            f"{published.url} is not the published file of {published.model!r}: it has {size} bytes, expected "
            f"{published.size}. Look whether a proxy answers in its place."
        )
    done = _length(part)
    if done > size:
        _log.warning("%s is longer than the file it should be a part of, starting again", part)
        done = 0
    try:
        with open_uri(published.url) as source:
            source.seek(done)
            _copy(source, part, done, size, progress)
    except ValueError:
        _log.warning("%s: the server does not send parts of files, taking the whole at once", published.url)
        _copy(io.BytesIO(read_uri(published.url)), part, 0, size, progress)


def _copy(source: BinaryIO, part: Path, done: int, size: int, progress: Progress) -> None:
    with _opened_at(part, done) as sink:
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


def _opened_at(part: Path, position: int) -> BinaryIO:
    with _writing(part):
        sink = part.open("ab")
        sink.truncate(position)
        return sink


def _check_download(published: PublishedWeights, part: Path) -> None:
    if published.sha256 is None:
        _log.warning("%s: nobody has published a checksum, so only the size was checked", published.url)
        return
    with part.open("rb") as file:
        sha256 = _sha256(file)
    if sha256 != published.sha256:
        part.unlink()
        raise WeightsError(
            f"The download of {published.url} is damaged: its sha256 is {sha256}, expected {published.sha256}. "
            f"{part} was deleted; run `refseg weights pull {published.model}` again."
        )


def _is_right(target: Path, published: PublishedWeights) -> bool:
    if not target.exists():
        return False
    if published.size not in (None, _length(target)):
        is_right = False
    else:
        with target.open("rb") as file:
            is_right = published.sha256 in (None, _sha256(file))
    if not is_right:
        _log.warning("%s is not the published file of %r and is replaced", target, published.model)
    return is_right


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    root = _root_cause(error)
    status = getattr(root, "status", None)
    if status is not None:
        return f"the server answered with status {status}"
    return f"{type(root).__name__}: {root}".rstrip(": ").splitlines()[0]


def _unreachable(published: PublishedWeights, part: Path, error: Exception) -> WeightsError:
    kept = f" {_length(part)} bytes are kept in {part} and need not come again." if _length(part) else ""
    return WeightsError(
        f"The weights of {published.model!r} could not be downloaded ({_reason(error)}).{kept} If this machine has no "
        f"network, fetch the file elsewhere. {_remedies(published, part.parent)}"
    )


def _no_progress(_done: int, _total: int) -> None:
    """Nobody watches."""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written ({error.strerror or error}). Make room or give another folder, also as "
            f"{FOLDER_VARIABLE}; the download will go on where it stopped."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of that file, waiting until it is free; the system frees it when the process ends."""
    with path.open("ab") as file:
        _lock(file)
        yield


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("%s: waiting for another process that downloads the same file", file.name)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        # Some cluster file systems have no locks; the checksum still catches two writers at once.
        _log.warning("%s: this file system has no locks (%s)", file.name, error.strerror)
