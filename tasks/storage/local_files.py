"""Local files that appear whole or not at all, also when the process is killed or the machine loses power."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.storage.leftovers import unfinished_beside


def create_local(path: Path, data: bytes) -> None:
    """The link either appears with the whole content or fails where a file exists."""
    with _written_beside(path, [data]) as unfinished:
        os.link(unfinished, path)
        _flush_folder(path.parent)


def replace_local(path: Path, chunks: Iterable[bytes]) -> None:
    """Takes the place of what was there, or leaves it."""
    with _written_beside(path, chunks) as unfinished:
        unfinished.replace(path)


@contextmanager
def _written_beside(path: Path, chunks: Iterable[bytes]) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_beside(path)
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
