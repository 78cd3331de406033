"""`refseg index` on people's files: a line for each oddity, with an example file; `run` and `bank` tell the same."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from pyarrow import parquet

from flows.config.preflight import check
from flows.oddities import report_oddities
from tests.support.commands import done, refseg
from tests.support.projects.project import Project
from tests.support.samples import picture, png

pytest_plugins = ["tests.support.projects.tiny_project"]

BOX = {"bbox": [30, 20, 40, 40]}
POINTS = [[30, 20], [70, 20], [70, 60], [30, 60]]


def turned(pixels: Any, orientation: int) -> bytes:
    image, stream = Image.fromarray(pixels), io.BytesIO()
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(stream, "PNG", exif=exif)
    return stream.getvalue()


@pytest.fixture
def files(project: Project) -> Path:
    """References in COCO json and targets in labelme, with everything that is read but has to be told."""
    references, targets = project.folder / "people", project.folder / "photos"
    images: dict[str, bytes] = {
        "plain.png": png(picture(0)),
        "upside down.png": turned(picture(1), 3),
        "on its side.png": turned(picture(2), 6),
        "one pixel less.png": png(picture(3, width=127)),
        "Case.PNG": png(picture(4)),
    }
    for name, data in images.items():
        references.mkdir(exist_ok=True)
        (references / name).write_bytes(data)
    names = [*images, "./plain.png"]
    names[4] = "case.png"
    annotations = [
        {"image_id": 1, **BOX},
        {"image_id": 2, **BOX, "segmentation": POINTS},
        {"image_id": 3, "bbox": [30, 60, 50, 60]},  # fits only the picture turned upright
        {"image_id": 4, **BOX, "segmentation": [[1, 1, 2, 2]]},
        {"image_id": 5, **BOX},
        {"image_id": 6, "bbox": [70, 20, 40, 40]},
    ]
    document = {
        "images": [
            {"id": number, "file_name": name, "width": 128, "height": 96} for number, name in enumerate(names, 1)
        ],
        "annotations": [{"id": number, "category_id": 1, **one} for number, one in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "boat"}],
    }
    (project.folder / "people.json").write_text(json.dumps(document))
    targets.mkdir()
    for name, orientation in (("a.png", 1), ("b.png", 2)):
        (targets / name).write_bytes(turned(picture(9), orientation))
    (targets / "clip.mp4").write_bytes(b"no image")
    (targets / "._a.json").write_bytes(b"\0")
    shapes = [
        {"label": "boat", "shape_type": "rectangle", "points": POINTS},
        {"label": "boat", "shape_type": "line", "points": POINTS[:2]},
    ]
    for name in ("a", "b"):
        content = {"shapes": shapes, "imagePath": "b.png", "imageWidth": 128, "imageHeight": 96}
        (targets / f"{name}.json").write_text(json.dumps(content))
    return project.write_config(
        references__images=str(references),
        references__annotations=str(project.folder / "people.json"),
        targets__images=str(targets),
        targets__annotations=str(targets),
    )


EXPECTED = {
    "References": {
        "annotations whose polygons are lists of points": "annotation 2",
        "annotations with polygons of fewer than three points": "annotation 4",
        "images whose annotations fit only the picture turned upright": "on its side.png",
        "images whose names are written otherwise": "'case.png' for 'Case.PNG'",
        "files that several entries name": "2 entries name plain.png",
        "images with an EXIF orientation that sizes cannot tell: taken as their pixels are stored": "upside down.png",
        "images whose declared size differs by at most 2 px": "one pixel less.png",
    },
    "Targets": {
        "files of annotations with the name of another image": "a.json names b.png, taken for a.png",
        "shapes of the kind 'line'": "a.json#2",
        "images with an EXIF orientation that sizes cannot tell: taken as people see them": "b.png",
        "files in no format of images that is read (.mp4)": "clip.mp4",
    },
}


def lines_of(output: str, section: str) -> list[str]:
    """The lines of a section, up to the next."""
    lines = output.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{section}:"))
    others = [number for number, line in enumerate(lines) if line.startswith("Targets:") and number > first]
    return lines[first : others[0] if others else None]


@pytest.mark.parametrize("section", EXPECTED)
def test_index_prints_a_line_for_each_oddity_with_an_example(section: str, files: Path) -> None:
    lines = lines_of(done(refseg("index", files)), section)
    for what, example in EXPECTED[section].items():
        (number,) = [number for number, line in enumerate(lines) if line.startswith("Odd: ") and what in line]
        assert example in lines[number + 1]


def test_a_run_tells_the_same_lines_before_anything_is_computed(files: Path, project: Project) -> None:
    config = project.config_with(
        {
            "references.images": str(project.folder / "people"),
            "references.annotations": str(project.folder / "people.json"),
            "targets.images": str(project.folder / "photos"),
            "targets.annotations": str(project.folder / "photos"),
        }
    )
    told: list[str] = []
    check(config, lambda title, dataset: report_oddities(config, told.append, title, dataset))
    indexed = done(refseg("index", files)).splitlines()
    odd = [line for line in told if line.startswith("Odd: ")]
    assert len(odd) >= len(EXPECTED["References"]) + len(EXPECTED["Targets"])
    assert set(odd) <= set(indexed)
    assert "Targets are taken for labelme json; set targets.format to say otherwise." in told


def test_the_boxes_are_where_people_drew_them(files: Path, project: Project) -> None:
    done(refseg("index", files))
    tables = sorted((project.folder / "store" / "dataset").glob("*/annotations.parquet"))
    rows = [row for table in tables for row in parquet.read_table(table).to_pylist()]
    boxes = {(row["image_id"], tuple(np.round(row["box_xywh"]).astype(int).tolist())) for row in rows}
    assert boxes == {
        ("1", (30, 20, 40, 40)), ("1", (70, 20, 40, 40)), ("2", (30, 20, 40, 40)), ("3", (30, 60, 50, 60)),
        ("4", (30, 20, 40, 40)), ("5", (30, 20, 40, 40)), ("a.png", (30, 20, 40, 40)), ("b.png", (30, 20, 40, 40)),
    }  # fmt: skip
