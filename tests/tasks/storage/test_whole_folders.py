"""Folders that are written whole take the place of earlier ones in one step, or leave them."""

from pathlib import Path

import pytest

from tasks.storage import whole_folders
from tasks.storage.whole_folders import holds_anything, local_path, written_whole


def _write(path: Path, **files: bytes) -> None:
    with written_whole(str(path)) as folder:
        for name, data in files.items():
            folder.put(f"sub/{name}", [data[:1], data[1:]])


def _there(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_takes_the_place_of_an_earlier_one(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(whole_folders, "_exchanged", lambda *_: False)
    _write(tmp_path / "out", a=b"one", b=b"two")
    _write(tmp_path / "out", a=b"three")
    assert _there(tmp_path / "out") == {"sub/a": b"three"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path / "out", a=b"one")
    with pytest.raises(RuntimeError), written_whole(str(tmp_path / "out")) as folder:
        folder.put("sub/b", [b"two"])
        raise RuntimeError
    assert _there(tmp_path / "out") == {"sub/a": b"one"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_place_holds(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    held = {name: holds_anything(str(tmp_path / name)) for name in ("empty", "file", "absent", "")}
    assert held == {"empty": False, "file": True, "absent": False, "": True}
    assert not holds_anything("memory://nothing/here")
    assert local_path(str(tmp_path)) == tmp_path
    assert local_path("memory://nothing") is None
