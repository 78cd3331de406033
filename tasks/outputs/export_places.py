"""Where an export may be written: not over anything but an earlier export, nor among what it is made from.

The provenance that lies beside an export tells it from other files, and what it wrote from what came there later.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refseg_core.errors import ConfigurationError, StoreError
from tasks.storage.folder import Folder
from tasks.storage.objects import read_uri
from tasks.storage.uris import redact
from tasks.storage.whole_folders import holds_anything, is_file, list_entries, local_path

_PROVENANCE = ".provenance"  # json, but not by its name: tools take every .json of a folder for annotations


def provenance_uri(out: str) -> str:
    """Returns where the provenance of an export lies."""
    return out.rstrip("/") + _PROVENANCE


def provenance_at(out: str) -> dict[str, Any]:
    """Returns the provenance of an export, complete or not; empty where there is none to be read."""
    try:
        content = json.loads(read_uri(provenance_uri(out)))
    except (StoreError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def recorded_files(out: str) -> dict[str, int]:
    """Returns the sizes of an export's files in bytes by their names, for the provenance of a folder."""
    return {file.name: file.size for file in list_entries(out)}


def check_place(out: str, sources: Sequence[str], *, is_folder: bool) -> None:
    """Raises ConfigurationError where an export may not be written.

    `sources`: the folders that it is made from. `is_folder`: whether it is a folder, and not one file.
    """
    path = local_path(out)
    is_new = path is not None and not os.path.lexists(path)  # as where no file can have such a name
    if not is_folder:
        _check_names_file(out, is_there=path is not None and not is_new and path.is_dir())
    for source in filter(None, sources):
        if Folder(out).overlaps(Folder(source)):
            raise ConfigurationError(
                f"{redact(out)}: an export may not be written there, since {redact(source)} holds what it is made "
                "from. Choose a place apart from it."
            )
    if is_new:
        return
    if path is not None and not (path.is_file() or path.is_dir()):
        raise ConfigurationError(
            f"{redact(out)}: is a device, a pipe or a link that leads nowhere, which an export may not replace. Choose "
            "a new name."
        )
    if is_folder:
        _check_only_export(out, path)
    elif is_file(out) and "format" not in provenance_at(out):
        raise ConfigurationError(
            f"{redact(out)}: is there already, and is no export, since {redact(provenance_uri(out))} is not beside it. "
            "Choose another name, or remove it first."
        )


def _check_names_file(out: str, *, is_there: bool) -> None:
    """Raises ConfigurationError for a name of a folder; `is_there`: whether there is one of this name."""
    if out.endswith("/") or is_there:
        raise ConfigurationError(
            f"{redact(out)}: is a folder, and this format is one file. Name a file, such as "
            f"{redact(out.rstrip('/'))}/labels."
        )


def _check_only_export(out: str, path: Path | None) -> None:
    """Raises ConfigurationError where a folder holds files that no export wrote, or that were changed since."""
    if not holds_anything(out):
        return
    content = provenance_at(out)
    if "format" not in content:
        raise ConfigurationError(
            f"{redact(out)}: holds other files than an earlier export, which would be removed. Choose a new folder."
        )
    if not content.get("complete", True):  # it was ended while its files took their places
        return
    if example := next(_later_files(out, path, content.get("files")), None):
        raise ConfigurationError(
            f"{redact(out)}: holds other files than an earlier export, such as {example!r}, or files that were changed "
            "since; they would be removed. Move them away, or choose a new folder."
        )


def _later_files(out: str, path: Path | None, recorded: dict[str, int] | None) -> Iterator[str]:
    """Yields the files that are not as an export left them: by name, size, and where it can be known by time.

    `recorded`: None where an earlier version exported, which did not write it down.
    """
    written_at = None if path is None else Path(provenance_uri(str(path))).stat().st_mtime
    for file in list_entries(out):
        is_other = recorded is not None and recorded.get(file.name) != file.size
        if is_other or (written_at is not None and file.modified > written_at):
            yield file.name
