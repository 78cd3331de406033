"""What a local file or folder is called while it is written, and what becomes of it when its writer is killed.

It lies beside the place that it is to take, under a hidden name of its own. A writer that ends removes it; one that is
killed cannot, so that the next one does. A folder that is being written is locked, which ends with its writer. A file
is not, since there are many: one to which nothing was written for an hour is nobody's.
"""

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_PART = 40  # characters of the name, so that the whole is no longer than a name may be
_ABANDONED_SECONDS = 3600.0


def unfinished_beside(path: Path) -> Path:
    """Returns a hidden name beside a place, which nothing else has."""
    return path.with_name(f".{path.name[:_LONGEST_PART]}.{uuid.uuid4().hex}")


def is_unfinished(name: str) -> bool:
    """Returns whether a file of this name or path was being written, and has not got its own."""
    return re.fullmatch(rf"\.[^/]{{1,{_LONGEST_PART}}}\.[0-9a-f]{{32}}", name.rpartition("/")[2]) is not None


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """Makes a folder beside a place, which nobody removes within the block, and which is removed at its end."""
    while True:
        unfinished = unfinished_beside(path)
        unfinished.mkdir()
        descriptor = os.open(unfinished, os.O_RDONLY)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            if not _is_at(descriptor, unfinished):  # removed as a leftover before it was locked
                continue
            try:
                yield unfinished
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            return
        finally:
            os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Removes what killed writers of a file or folder have left beside it; what is being written stays."""
    pattern = re.compile(rf"\.{re.escape(path.name[:_LONGEST_PART])}\.[0-9a-f]{{32}}")
    try:
        left = [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
    except OSError:
        return  # there is no such folder yet, or it may not be read
    for entry in left:
        if entry.is_dir():
            _remove_folder(entry)
        elif entry.lstat().st_mtime < time.time() - _ABANDONED_SECONDS:
            entry.unlink(missing_ok=True)


def _remove_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # its writer has finished meanwhile
    try:
        if _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    """Returns whether a file or folder is locked now; not where another has it, or the place knows no locks."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
