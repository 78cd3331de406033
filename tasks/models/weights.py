"""Model weights: finding, checking, listing and loading their files.

Downloading them is in `download.py`, what is published where in `refseg_core/models/registry.py`, and reading and
fitting parameters in `refseg_core/models/checkpoints.py`. Files are identified by the sha256 of their bytes,
wherever they came from.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

from torch import Tensor

from refseg_core.errors import StoreError, WeightsError, counted
from refseg_core.models.checkpoints import read_state
from refseg_core.models.registry import REGISTRY, ModelSpec, model_spec
from tasks.datasets.demo_files import demo_weights
from tasks.specs import Models
from tasks.storage.objects import open_uri, read_uri, uri_size
from tasks.storage.retry import reason
from tasks.storage.uris import redact, scheme

FOLDER_VARIABLE = "REFSEG_WEIGHTS"
_DEFAULT_FOLDER = "~/.cache/refseg/weights"
_CHUNK = 1 << 20  # bytes read at once
_HALF, _NEARLY = 0.5, 0.02  # of the published size
_LASTING_STATUSES = (401, 403, 404, 410)
_LASTING_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


@dataclass(frozen=True, eq=False)
class LoadedWeights:
    """Parameters by their official names, on the CPU; the sha256 of the file's bytes; where it lay (no secrets)."""

    state: Mapping[str, Tensor]
    sha256: str
    source: str


@dataclass(frozen=True)
class ListedWeights:
    """A model's weights, and whether they can be loaded without a download.

    `size` in bytes. `state` is 'packaged' (comes with refseg), 'present', 'wrong size' or 'missing'; `location` is the
    file that null as a source stands for, there or not.
    """

    spec: ModelSpec
    size: int | None
    state: Literal["packaged", "present", "wrong size", "missing"]
    location: str


def weights_folder() -> str:
    """Returns the folder or URI prefix of published weights: REFSEG_WEIGHTS, else ~/.cache/refseg/weights."""
    return os.environ.get(FOLDER_VARIABLE) or str(Path(_DEFAULT_FOLDER).expanduser())


def load_weights(model: str, source: str | None = None) -> LoadedWeights:
    """Reads the weights of a model.

    `source` is a path or URI; null stands for the published file in the weights folder, which must then have the
    published sha256, or for the file that comes with refseg. A file of the user's own needs no known checksum.

    Raises WeightsError where the file is missing (saying what to put where), is not the published one, or holds
    anything but tensors by name; faults of the network as they come, since they may pass.
    """
    with _located(model, source) as (spec, uri), _opened(uri) as file:
        sha256 = sha256_of(file)
        if not source and spec.sha256 not in (None, sha256):
            fault = f"its size is the same, but its sha256 is {sha256}, not {spec.sha256}"
            raise WeightsError(_not_the_published(spec, uri, fault))
        file.seek(0)
        return LoadedWeights(read_state(file, name=redact(uri)), sha256, redact(uri))


def sha256_of_models(models: Models) -> dict[str, str]:
    """Returns the sha256 of each model's weights, as recipes name them. Raises WeightsError."""
    named = {"segmenter": models.segmenter, "encoder": models.encoder}
    return {kind: weights_sha256(model.model, model.weights) for kind, model in named.items()}


@lru_cache(maxsize=8)
def weights_sha256(model: str, source: str | None = None) -> str:
    """Returns the sha256 of the file that `load_weights` would load, without loading it.

    That of a published file is known, and compared when it is loaded; any other file is read once in a process.
    Raises WeightsError where it cannot be.
    """
    with _located(model, source) as (spec, uri):
        if not source and spec.sha256 is not None:
            return spec.sha256
        with _opened(uri) as file:
            return sha256_of(file)


def locate_weights(model: str, source: str | None = None) -> str:
    """Returns the path or URI that `load_weights` would read. Reads nothing, so that mistakes show in seconds.

    Raises WeightsError where the file cannot be opened, or has not the size of the published one it stands for.
    """
    with _located(model, source) as (spec, uri):
        open_uri(uri).close()
        size = uri_size(uri)
    if not source and spec.size is not None and size != spec.size:
        raise WeightsError(_not_the_published(spec, uri, _sizes(size, spec.size)))
    return uri


def unfit_weights(models: Models) -> list[str]:
    """Returns why weights cannot be used, for each model where that is so.

    Published files are known by their size; local files of the user's own are read, and compared with the model by the
    names and shapes of their tensors. No model is built.
    """
    found = []
    for model in (models.segmenter, models.encoder):
        try:
            _check_fit(model.model, model.weights)
        except WeightsError as error:
            found.append(str(error))
    return found


def _check_fit(model: str, source: str | None) -> None:
    uri, spec = locate_weights(model, source), model_spec(model)
    if not source or not is_local(uri):
        return
    with _located(model, source), _opened(uri) as file:
        state = read_state(file, name=f"{spec.kind}.weights: {redact(uri)}")
    if not spec.code.fits(spec.architecture, state):
        raise WeightsError(
            f"{spec.kind}.weights: {redact(uri)} holds {counted(len(state), 'tensor')} of other names or shapes than "
            f"{model!r} has. Correct {spec.kind}.weights, or {spec.kind}.model."
        )


@contextmanager
def _located(model: str, source: str | None) -> Iterator[tuple[ModelSpec, str]]:
    """Yields a model's entry and the place of its weights. Errors of the place are raised as WeightsError."""
    spec = model_spec(model)
    try:
        yield spec, source or published_location(spec)
    except StoreError as error:
        raise WeightsError(_unreadable(spec, source, error)) from error


def list_weights() -> list[ListedWeights]:
    """Returns every known model, in the registry's order. Raises WeightsError if the weights folder cannot be read."""
    return [_listed(spec) for spec in REGISTRY.values()]


def published_location(spec: ModelSpec) -> str:
    """Returns the path or URI of the published file, present or not, in the weights folder or among refseg's files."""
    if spec.is_packaged:
        return str(demo_weights(spec.file_name))
    return f"{weights_folder().rstrip('/')}/{spec.file_name}"


def is_local(uri: str) -> bool:
    """Returns whether it is a path or a file:// URI."""
    # A scheme of one letter is a drive.
    return scheme(uri) == "file" or len(scheme(uri)) < len("s3")


def _listed(spec: ModelSpec) -> ListedWeights:
    location = published_location(spec)
    try:
        size = uri_size(location)
    except StoreError as error:
        if not _is_absent(error):
            raise WeightsError(f"The weights folder cannot be read: {error}") from error
        size = None
    state: Literal["packaged", "present", "wrong size", "missing"]
    if size is None:
        state = "missing"
    elif spec.is_packaged:
        state = "packaged"
    else:
        state = "present" if spec.size in (None, size) else "wrong size"
    return ListedWeights(spec, size if spec.is_packaged else spec.size, state, redact(location))


def _is_absent(error: StoreError) -> bool:
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError) and not is_transient_cause(error)


def is_transient_cause(error: StoreError) -> bool:
    """As `is_transient_error`, of the first cause: fsspec reports every failure of a web server as a missing file."""
    root = _root_cause(error)
    status = getattr(root, "status", None)
    if status is not None:
        return status not in _LASTING_STATUSES
    return isinstance(root, OSError) and not isinstance(root, _LASTING_ERRORS)


def first_reason(error: BaseException) -> str:
    """As `reason`, of the first cause: the server's status, or the innermost error."""
    root = _root_cause(error)
    status = getattr(root, "status", None)
    return reason(root) if status is None else f"the server answered with status {status}"


def _root_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root_cause(error.__cause__)


def _unreadable(spec: ModelSpec, source: str | None, error: StoreError) -> str:
    if is_transient_cause(error):
        uri = source or published_location(spec)
        return f"{spec.kind}.weights: {redact(uri)} cannot be read: {first_reason(error)}."
    if source:
        return f"{spec.kind}.weights: {error}"
    if not _is_absent(error):
        return f"The weights of {spec.name!r} cannot be read: {error}"
    missing = f"The weights of {spec.name!r} are missing: {redact(published_location(spec))} does not exist."
    if spec.is_packaged:
        return f"{missing} The file comes with refseg; install refseg again."
    return f"{missing} {remedies_for(spec, weights_folder())}"


def remedies_for(spec: ModelSpec, folder: str | Path) -> str:
    """Returns what to do so that the weights are found."""
    return (
        f"Run `refseg weights pull {spec.name}`, or put the file {spec.file_name} from {spec.url} "
        f"into {redact(str(folder))}, or set {spec.kind}.weights to a path or URI."
    )


def _opened(uri: str) -> BinaryIO:
    """Opens a local file; reads anything else into memory, since it is read twice: checked, then loaded."""
    return open_uri(uri) if is_local(uri) else io.BytesIO(read_uri(uri))


def sha256_of(file: BinaryIO) -> str:
    """Returns the sha256 of the rest of the file, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _sizes(size: int, published: int) -> str:
    """Returns what a file's size tells, in bytes."""
    share = size / published
    precise = ", about half, as with parameters of 16 bits" if abs(share - _HALF) < _NEARLY else ""
    return f"it has {size:,} bytes, the published one {published:,}{precise}"


def _not_the_published(spec: ModelSpec, uri: str, fault: str) -> str:
    said = f"{redact(uri)} is not the published file of {spec.name!r}: {fault}."
    again = f"delete it and run `refseg weights pull {spec.name}`."
    on_purpose = (
        f"To use it as it is, set {spec.kind}.weights to {redact(uri)}; its labels are then kept apart from those of "
        "the published file."
    )
    if not is_local(uri):  # it may be large, and far away
        return f"{said} If it is damaged, {again} {on_purpose}"
    held, fits = _held(spec, uri)
    return f"{said} {held} " + (f"{on_purpose} Else {again}" if fits else again[0].upper() + again[1:])


def _held(spec: ModelSpec, uri: str) -> tuple[str, bool]:
    """Returns what a file holds, as sentences, and whether the model can be built from it."""
    try:
        with _opened(uri) as file:
            state = read_state(file, name="It")
        spec.code.build(spec.architecture, state, model=spec.name)
    except WeightsError as error:
        return str(error), False
    counted = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    kinds = " and ".join(f"{number:,} of {kind}" for kind, number in counted.most_common())
    numbers = sum(tensor.numel() for tensor in state.values())
    held = f"It holds tensors of the names and shapes that the model needs, {kinds}, {numbers:,} numbers in all"
    return held + ("." if set(counted) == {"float32"} else "; they are computed with as float32."), True
