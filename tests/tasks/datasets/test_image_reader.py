"""Images are read ahead, in order and a few at a time; a bad image is an entry, a fault of the store is raised."""

import threading
from pathlib import Path

import numpy as np
import pytest

from refseg_core.errors import StoreError
from refseg_core.tables import Images
from tasks.datasets.image_reader import ReadImage, read_images
from tasks.storage.folder import Folder
from tests.support.samples import images_table, picture, png
from tests.support.servers.object_stores import Moto

pytest_plugins = ["tests.support.servers.stores"]

_LIMIT = 100_000
_NAMES = tuple(f"{number:02d}.png" for number in range(20))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    for number, name in enumerate(_NAMES):
        (tmp_path / name).write_bytes(png(picture(number)))
    return Folder(str(tmp_path))


@pytest.fixture
def started(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose reading has begun, as they are."""
    names: list[str] = []
    read = folder.read

    def noted(name: str) -> bytes:
        names.append(name)
        return read(name)

    monkeypatch.setattr(folder, "read", noted)
    return names


def _read_all(folder: Folder, *names: str, max_pixels: int = _LIMIT) -> list[ReadImage]:
    return list(read_images(folder, images_table(*names), max_pixels=max_pixels))


def test_every_image_comes_in_order_with_its_pixels(folder: Folder) -> None:
    read = _read_all(folder, *reversed(_NAMES))
    assert [image.row for image in read] == list(range(len(_NAMES)))
    for number, image in zip(reversed(range(len(_NAMES))), read, strict=True):
        assert image.error is None
        np.testing.assert_array_equal(image.pixels, picture(number))


def test_no_images_are_read_of_an_empty_table(folder: Folder) -> None:
    assert list(read_images(folder, Images.empty(), max_pixels=_LIMIT)) == []


def test_an_image_that_cannot_be_read_says_why_and_the_others_come(folder: Folder) -> None:
    folder.create("text.png", b"not an image")
    folder.create("empty.png", b"")
    folder.create("cut.png", png(picture(0))[:200])
    bad = ("text.png", "empty.png", "cut.png", "absent.png")
    read = _read_all(folder, "00.png", *bad, "01.png")
    assert [image.pixels is None for image in read] == [False, True, True, True, True, False]
    reasons = ("not an image", "empty", "truncated", "absent.png: not found")
    for image, reason in zip(read[1:-1], reasons, strict=True):
        assert image.error is not None
        assert reason in image.error


def test_an_image_of_too_many_pixels_is_not_decoded(folder: Folder) -> None:
    (image,) = _read_all(folder, "00.png", max_pixels=96 * 128 - 1)
    assert image.pixels is None
    assert image.error is not None
    assert str(96 * 128 - 1) in image.error


def test_a_declared_size_must_be_that_of_the_file(folder: Folder) -> None:
    right = images_table("00.png").replace(height=np.array([96]), width=np.array([128]))
    (image,) = read_images(folder, right, max_pixels=_LIMIT)
    assert image.pixels is not None
    assert image.pixels.shape == (96, 128, 3)
    (image,) = read_images(folder, right.replace(height=np.array([97])), max_pixels=_LIMIT)
    assert image.pixels is None
    assert "declare 97 x 128" in str(image.error)


def test_of_large_files_fewer_are_fetched_ahead(folder: Folder, started: list[str]) -> None:
    large = images_table(*_NAMES).replace(size=np.full(len(_NAMES), 200 << 20))
    for taken, _ in enumerate(read_images(folder, large, max_pixels=_LIMIT), start=1):
        assert len(started) <= taken + 2
    assert sorted(started) == list(_NAMES)


def test_a_fault_of_the_world_is_raised_so_that_the_shard_is_retried(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = folder.read

    def sometimes(name: str) -> bytes:
        if name == "02.png":
            raise TimeoutError("the network sleeps")
        return read(name)

    monkeypatch.setattr(folder, "read", sometimes)
    images = read_images(folder, images_table(*_NAMES), max_pixels=_LIMIT)
    assert [next(images).row, next(images).row] == [0, 1]
    with pytest.raises(TimeoutError, match="the network sleeps"):
        next(images)


def test_refused_credentials_are_a_fault_of_the_world_and_no_property_of_an_image(s3: Moto) -> None:
    """Else one expired token would have every remaining image recorded as unreadable, for good."""
    folder = Folder(f"s3://{s3.new_bucket()}/images")
    folder.create("a.png", png(picture(0)))
    with s3.knowing_nobody(), pytest.raises(StoreError, match="denied"):
        _read_all(folder, "a.png")


def test_only_a_few_images_are_read_ahead(folder: Folder, started: list[str]) -> None:
    images = read_images(folder, images_table(*_NAMES), max_pixels=_LIMIT)
    assert started == []
    for taken, _ in enumerate(images, start=1):
        assert len(started) <= taken + 8


def test_images_are_read_while_the_caller_works(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    third_is_read = threading.Event()
    read = folder.read

    def watched(name: str) -> bytes:
        data = read(name)
        if name == "02.png":
            third_is_read.set()
        return data

    monkeypatch.setattr(folder, "read", watched)
    images = read_images(folder, images_table(*_NAMES[:3]), max_pixels=_LIMIT)
    next(images)
    assert third_is_read.wait(timeout=10)


def test_readers_end_when_the_caller_stops_early(folder: Folder) -> None:
    images = read_images(folder, images_table(*_NAMES), max_pixels=_LIMIT)
    next(images)
    images.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name.startswith("read-images"):
            thread.join(60)
            assert not thread.is_alive()
