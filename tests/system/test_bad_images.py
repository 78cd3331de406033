"""One bad image costs its own row and nothing else; names lead nowhere outside the folders they belong to."""

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refseg_core.tables import Detections, LabeledImages
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.commands import contents, done, refseg, refused, without_prefect
from tests.support.projects.project import Project, read_coco, scene
from tests.support.samples import table_rows

pytest_plugins = ["tests.support.projects.tiny_project"]

_GOOD = [f"t{number}.png" for number in range(5)]


@pytest.fixture(autouse=True)
def plain_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without Prefect."""
    without_prefect(monkeypatch)


def _rows(store: Path, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What was found in each image, and what became of it, by image id; times and versions are left out."""
    run, _ = newest_labels(Store(str(store)))
    parts = list(run.read(run.images()))
    detections = table_rows(Detections.concatenate([part for part, _ in parts]))
    labeled = table_rows(
        LabeledImages.concatenate([part for _, part in parts]), without=["seconds", "version", *without]
    )
    found: dict[str, Any] = {row["image_id"]: (row, []) for row in labeled}
    assert len(found) == len(labeled), "an image was labeled twice"
    for row in detections:
        found[row["image_id"]][1].append(row)
    return found


def _encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _png_of(width: int, height: int) -> bytes:
    """A small PNG file whose header promises that many pixels; the compressed ones break off."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000), 9)[:-4]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _bmp_of(width: int, height: int) -> bytes:
    size = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + size


_PICTURE = Image.fromarray(scene(7))
_PNG, _JPEG = _encoded(_PICTURE, "PNG"), _encoded(_PICTURE, "JPEG")
_ROTATED = Image.Exif()
_ROTATED[0x0112] = 6

_UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "empty"),
    "text.jpg": (b"this is no image", "not an image in a known format"),
    "page.jpg": (b"<html><body>404</body></html>", "not an image"),
    "error.jpg": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "not an image"),
    "pdf.png": (b"%PDF-1.7\n", "not an image"),
    "zip.png": (b"PK\x03\x04" + bytes(30), "not an image"),
    "script.gif": (b"#!/bin/sh\nrm -rf /\n", "not an image"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n", "not an image"),
    "zeros.png": (bytes(1000), "not an image"),
    "header.png": (_PNG[:8], "truncated or damaged"),
    "header.jpg": (_JPEG[:4], "truncated or damaged"),
    "preallocated.jpg": (_JPEG[:900] + bytes(4000), "truncated"),
    "bomb.png": (_png_of(60_000, 60_000), "more than the limit"),
    "bomb.bmp": (_bmp_of(60_000, 60_000), "more than the limit"),
    "wide.png": (_png_of(2**31 - 1, 2**31 - 1), "more than the limit"),
    "huge.ppm": (b"P6 99999999 99999999 255\n", "more than the limit"),
    "zero.png": (_png_of(0, 0), "damaged"),
    "promise.png": (_png_of(2000, 2000), "truncated or damaged"),
    "float.tiff": (_encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
    "wide.tiff": (_encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "do not fit into 16 bits"),
}
_READABLE: dict[str, bytes] = {
    "rotated.jpg": _encoded(_PICTURE, "JPEG", exif=_ROTATED),
    "cmyk.jpg": _encoded(_PICTURE.convert("CMYK"), "JPEG"),
    "cmyk.tiff": _encoded(_PICTURE.convert("CMYK"), "TIFF"),
    "gray.jpg": _encoded(_PICTURE.convert("L"), "JPEG"),
    "gray16.png": _encoded(Image.fromarray(scene(7)[:, :, 0].astype(np.uint16) * 257), "PNG"),
    "gray16.tiff": _encoded(Image.fromarray(scene(7)[:, :, 0].astype(np.uint16) * 257), "TIFF"),
    "palette.png": _encoded(_PICTURE.convert("P"), "PNG"),
    "palette.gif": _encoded(_PICTURE.convert("P"), "GIF"),
    "bits.png": _encoded(_PICTURE.convert("1"), "PNG"),
    "alpha.png": _encoded(_PICTURE.convert("RGBA"), "PNG"),
    "gray_alpha.png": _encoded(_PICTURE.convert("LA"), "PNG"),
    "transparent.gif": _encoded(_PICTURE.convert("P"), "GIF", transparency=0),
    "animated.gif": _encoded(
        _PICTURE.convert("P"), "GIF", save_all=True, append_images=[Image.fromarray(scene(8)).convert("P")]
    ),
    "animated.webp": _encoded(_PICTURE, "WEBP", save_all=True, append_images=[Image.fromarray(scene(8))]),
    "progressive.jpg": _encoded(_PICTURE, "JPEG", progressive=True),
    "pages.tiff": _encoded(_PICTURE, "TIFF", save_all=True, append_images=[Image.fromarray(scene(8))]),
    "png.jpg": _PNG,
    "JPEG.PNG": _JPEG,
    "tail.png": _PNG + b"something after the end",
    "one.png": _encoded(_PICTURE.crop((0, 0, 1, 1)), "PNG"),
    "line.png": _encoded(_PICTURE.resize((3000, 1)), "PNG"),
    "column.png": _encoded(_PICTURE.resize((1, 3000)), "PNG"),
}
_ODD_NAMES = (
    *("a b.png", "a#b.png", "a?b.png", "a&b;c|d.png", "%2e%2e.png", "%2e%2e%2fx.png", "*.png", "[1].png", "~.png"),
    *("-x.png", "x.hidden.png", "ü.png", "e\u0301.png", "日本語 🚢.png", "'q\".png", "{x}.png", "$HOME.png", "CON.png"),
    *(" .png", "a...png", "a..b.png", "a.png.jpg", "folder/sub/x.png", "folder.png/x.png", "\u202egnp.png"),
    *("[/].png", "x" * 251 + ".png", "ü" * 125 + ".png", "x" * 200 + "/" + "y" * 240 + ".png", "`id`.png", "a=1,b.png"),
)


def _put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _cuts_and_flips() -> dict[str, bytes]:
    """Images cut at any byte, and with bytes changed at random."""
    generator, files = random.Random(0), {}
    for name, data in (("png", _PNG), ("jpg", _JPEG), ("gif", _READABLE["palette.gif"])):
        for number in range(20):
            files[f"cut{number}.{name}"] = data[: generator.randrange(len(data))]
            damaged = bytearray(data)
            for _ in range(generator.randint(1, 6)):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            files[f"flipped{number}.{name}"] = bytes(damaged)
    return files


@pytest.mark.slow
def test_bad_images_become_rows_and_the_others_of_their_shards_are_labeled_exactly_as_without_them(
    project: Project,
) -> None:
    listed = {"targets__annotations": None, "batches__images_per_shard": 7}
    done(refseg("run", project.write_config(**listed, store=str(project.folder / "without"))))
    damaged = _cuts_and_flips()
    bad = {name: data for name, (data, _) in _UNREADABLE.items()}
    _put(project.folder / "targets", damaged | bad | _READABLE)
    links = {"dangling.png": "nowhere", "loop.png": "loop.png"}
    for name, target in links.items():
        (project.folder / "targets" / name).symlink_to(target)
    said = done(refseg("run", project.write_config(**listed)))
    rows, without = _rows(project.folder / "store"), _rows(project.folder / "without")
    assert {name: rows[name] for name in _GOOD} == without
    assert set(rows) == {*_GOOD, *damaged, *bad, *_READABLE, *links}
    for name, (_, words) in _UNREADABLE.items():
        row, found = rows[name]
        assert (row["status"], found) == ("unreadable", []), name
        assert words in row["error"], (name, row["error"])
        assert len(row["error"]) < 400
    for name in links:
        assert rows[name][0]["status"] == "unreadable"
    for name in _READABLE:
        assert rows[name][0]["status"] in ("ok", "empty"), rows[name][0]
    for name in damaged:
        assert (rows[name][0]["status"] == "unreadable") == (rows[name][0]["error"] is not None)
    assert (rows["rotated.jpg"][0]["height"], rows["rotated.jpg"][0]["width"]) == (128, 96)
    num_unreadable = sum(row["status"] == "unreadable" for row, _ in rows.values())
    assert f"{num_unreadable} unreadable." in said
    assert "more (status 'unreadable' in labeled_images)" in said
    assert verify_store(Store(str(project.folder / "store"))).problems == []


@pytest.mark.slow
def test_annotated_images_that_are_missing_or_of_another_size_become_rows(project: Project) -> None:
    done(refseg("run", project.write_config(store=str(project.folder / "without"))))
    file = project.folder / "targets.json"
    document = read_coco(file)
    sizes = {"small.png": (95, 128), "swapped.png": (128, 96), "large.png": (40_000, 40_000), "one.png": (1, 1)}
    absent = dict.fromkeys(("absent.png", "no/folder/x.png", "t0.png/x.png", "x" * 300 + ".png", "folder"), (96, 128))
    _put(project.folder / "targets", dict.fromkeys(sizes, _PNG))
    (project.folder / "targets" / "folder").mkdir()
    for number, (name, (height, width)) in enumerate({**sizes, **absent}.items(), start=100):
        document["images"].append({"id": number, "file_name": name, "height": height, "width": width})
    file.write_text(json.dumps(document))
    done(refseg("run", project.write_config()))
    rows, without = _rows(project.folder / "store"), _rows(project.folder / "without")
    assert {image_id: rows[image_id] for image_id in without} == without
    assert len(rows) == len(without) + len(sizes) + len(absent)
    errors = [rows[str(number)][0]["error"] for number in range(100, 100 + len(sizes) + len(absent))]
    assert all("but the annotations declare" in error for error in errors[: len(sizes)])
    assert all("not found" in error or "too long" in error for error in errors[len(sizes) :])


@pytest.mark.slow
def test_odd_names_are_labeled_drawn_and_exported_as_any_others(project: Project) -> None:
    hidden = (".hidden.png", "..png", "...png", "._t0.png", "__MACOSX/t0.png")  # are no data anywhere
    _put(project.folder / "targets", dict.fromkeys((*_ODD_NAMES, *hidden), _PNG))
    changes = {"targets__annotations": None, "pictures": str(project.folder / "pictures")}
    done(refseg("run", project.write_config(**changes)))
    rows = _rows(project.folder / "store")
    assert set(rows) == {*_GOOD, *_ODD_NAMES}
    alike = [
        ({**row, "image_id": ""}, [{**one, "image_id": ""} for one in found])
        for name, (row, found) in rows.items()
        if name in _ODD_NAMES
    ]
    assert all(one == alike[0] for one in alike)
    assert len(contents(project.folder / "pictures")) == len(rows)
    done(refseg("show", project.folder / "store", "--out", project.folder / "drawn"))
    assert len(contents(project.folder / "drawn" / "images")) == len(rows)
    done(refseg("export", project.folder / "store", "--format", "coco", "--out", project.folder / "out.json"))
    exported = read_coco(project.folder / "out.json")
    assert {image["file_name"] for image in exported["images"]} == set(rows)
    assert {path.name for path in project.folder.iterdir()} >= {"targets", "pictures", "drawn", "out.json"}


# --- names that would lead elsewhere ---------------------------------------------------------------------------------

_LEADING_OUT = (
    *("../canary.png", "a/../../canary.png", "..", "a/..", "../targets/t0.png", "sub/../t0.png", "{folder}/canary.png"),
    *("/etc/passwd", "//etc/passwd", "..\\canary.png", "a\\b.png", "C:\\canary.png", "C:canary.png", "c:/canary.png"),
    *("canary.png\0.png", "\0", "a\nb.png", "\x1b[2J.png", "file:///etc/passwd", "s3://bucket/a.png", "a::b.png"),
    *("http://127.0.0.1:9/a.png", "", "\ud800.png", "\x7f.png"),
)


@pytest.mark.parametrize("which", ["references", "targets"])
@pytest.mark.parametrize("name", _LEADING_OUT, ids=repr)
@pytest.mark.slow
def test_names_that_lead_elsewhere_are_refused_and_nothing_is_read_or_written_there(
    name: str, which: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = project.folder / "canary.png"
    canary.write_bytes(b"a canary")
    file = project.folder / f"{which}.json"
    document = read_coco(file)
    document["images"][0]["file_name"] = name.replace("{folder}", str(project.folder))
    file.write_text(json.dumps(document))
    before = contents(project.folder)
    watched = _watch_reads(monkeypatch)
    message = refused(refseg("run", project.write_config(pictures=str(project.folder / "pictures"))))
    opened = list(watched)  # before we look ourselves
    assert f"{which}.json" in message
    assert "file_name is not a path below the image folder" in message
    after = contents(project.folder)
    assert {key: after[key] for key in before} == before
    assert {key.partition("/")[0] for key in set(after) - set(before)} <= {"store", "run.yaml"}
    assert str(canary) not in opened
    assert "/etc/passwd" not in opened


def _watch_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of local files that are opened from now on."""
    opened: list[str] = []
    real_open: Callable[..., Any] = io.open

    def watched(file: Any, *arguments: Any, **named: Any) -> Any:
        opened.append(os.path.normpath(str(file)))
        return real_open(file, *arguments, **named)

    monkeypatch.setattr("builtins.open", watched)
    monkeypatch.setattr(io, "open", watched)
    return opened


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"a\\b.png", b"a\nb.png", b"a::b.png", b"C:x.png"], ids=repr)
@pytest.mark.slow
def test_listed_names_that_mean_nothing_elsewhere_are_left_out_and_named(name: bytes, project: Project) -> None:
    (project.folder / "targets" / os.fsdecode(name)).write_bytes(_PNG)
    said = done(refseg("run", project.write_config(targets__annotations=None)))
    assert "files whose names cannot be used: left out; rename them (1)" in said
    assert said.startswith("5 images: ")
    assert verify_store(Store(str(project.folder / "store"))).problems == []


@pytest.mark.parametrize("place", ["", "sub", "..", "link", "../targets/"])
@pytest.mark.slow
def test_pictures_do_not_replace_images(place: str, project: Project) -> None:
    """A picture has the name of its image, if that is a JPEG file."""
    targets = project.folder / "targets"
    for path in list(targets.iterdir()):
        path.rename(path.with_suffix(".jpg"))
    (project.folder / "link").symlink_to(targets)
    before = contents(targets)
    pictures = project.folder / "link" if place == "link" else targets / place
    changes = {"targets__annotations": None, "pictures": str(pictures)}
    assert "pictures may not be written there" in refused(refseg("run", project.write_config(**changes)))
    done(refseg("run", project.write_config(**changes | {"pictures": None})))
    assert contents(targets) == before


@pytest.mark.slow
def test_shown_pictures_do_not_replace_images(project: Project) -> None:
    images = project.folder / "images"
    (project.folder / "targets").rename(images)
    for path in list(images.iterdir()):
        path.rename(path.with_suffix(".jpg"))
    done(refseg("run", project.write_config(targets__annotations=None, targets__images=str(images))))
    before = contents(images)
    for out in (project.folder, images, images / "sub"):
        message = refused(refseg("show", project.folder / "store", "--out", out))
        assert "pictures may not be written there" in message
    assert contents(images) == before
    done(refseg("show", project.folder / "store", "--out", project.folder / "drawn"))
    assert contents(images) == before
