"""Which images of references are there is told by few requests."""

from pathlib import Path

import pytest

from refseg_core.errors import StoreError
from tasks.datasets.reference_images import missing_images
from tasks.storage.folder import Folder


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were looked for one by one."""
    names: list[str] = []
    read_start = Folder.read_start

    def noted(folder: Folder, name: str, num_bytes: int) -> bytes:
        names.append(name)
        return read_start(folder, name, num_bytes)

    monkeypatch.setattr(Folder, "read_start", noted)
    return names


def _folder(path: Path) -> Folder:
    (path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (path / name).write_bytes(b"x")
    (path / "gone.png").symlink_to(path / "nowhere.png")
    return Folder(str(path))


def test_a_listing_tells_of_the_images_that_are_there(tmp_path: Path, requested: list[str]) -> None:
    folder = _folder(tmp_path)
    assert missing_images(folder, ["a.png", "sub/c.png", "b.png", "a.png"]) == []
    assert requested == []
    assert missing_images(folder, ["d.png", "a.png", "gone.png"]) == ["d.png", "gone.png"]
    assert sorted(requested) == ["d.png", "gone.png"]


def test_a_long_listing_ends_and_the_others_are_looked_for(
    tmp_path: Path, requested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.datasets.reference_images._PER_PAGE", 16)
    folder = _folder(tmp_path)
    assert missing_images(folder, ["a.png", "b.png", "sub/c.png"]) == []
    assert len(folder.find_listed(["a.png", "b.png", "sub/c.png"], 3)) + len(requested) == 3
    assert len(folder.find_listed(["a.png", "b.png", "sub/c.png"], 1)) <= 1


def test_where_nothing_may_be_listed_each_is_looked_for(
    tmp_path: Path, requested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> set[str]:
        raise StoreError("may not be listed")

    monkeypatch.setattr(Folder, "find_listed", refused)
    assert missing_images(_folder(tmp_path), ["a.png", "d.png"]) == ["d.png"]
    assert sorted(requested) == ["a.png", "d.png"]
