"""What killed writers left is removed by the next one, and what is being written never is."""

import os
import time
from pathlib import Path

import pytest

from tasks.storage import leftovers
from tasks.storage.leftovers import remove_leftovers, unfinished_beside, unfinished_folder


def _leave(path: Path, *, is_folder: bool, hours: float = 0) -> Path:
    left = unfinished_beside(path)
    if is_folder:
        (left / "sub").mkdir(parents=True)
        (left / "sub" / "file").write_bytes(b"x")
    else:
        left.write_bytes(b"x")
    then = time.time() - 3600 * hours
    os.utime(left, (then, then))
    return left


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    gone = [_leave(out, is_folder=True), _leave(out, is_folder=False, hours=2)]
    others = [tmp_path / ".out", tmp_path / ".out.txt", _leave(tmp_path / "out2", is_folder=True)]
    others += [_leave(out, is_folder=False), out]
    for one in others:
        if not one.exists():
            one.write_bytes(b"mine")
    with unfinished_folder(out) as written:
        remove_leftovers(out)
        assert written.is_dir(), "it is being written"
    assert not any(one.exists() for one in [*gone, written])
    assert all(one.exists() for one in others)
    remove_leftovers(tmp_path / "absent" / "out")


def test_a_folder_that_was_taken_for_a_leftover_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = []

    def lock(descriptor: int, how: int) -> bool:
        if not locks:
            (left,) = tmp_path.iterdir()
            left.rmdir()
        locks.append(how)
        return True

    monkeypatch.setattr(leftovers, "_lock", lock)
    with unfinished_folder(tmp_path / "out") as unfinished:
        assert unfinished.is_dir()
    assert len(locks) == 2


def test_where_there_are_no_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    left = _leave(tmp_path / "out", is_folder=True)
    with unfinished_folder(tmp_path / "out") as unfinished:
        remove_leftovers(tmp_path / "out")
        assert unfinished.is_dir()
        assert left.is_dir()
