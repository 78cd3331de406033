"""Exports are what the parsers of labelme, CVAT and VOC's readers take, field by field, with no library of theirs.

The tools' own libraries load the same exports where there are any (`test_other_tools.py`).
"""

import base64
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from refseg_core.masks.rle import decode_mask
from tasks.outputs.exports.labels import export_labels
from tests.support.projects.exported import HEIGHT, INSTANCES, WIDTH, ExportProject

_MASKS = {
    (Path(name).name, one.category): np.asarray(decode_mask(one.mask))
    for name, found in INSTANCES.items()
    for one in found
}
_EXPECTED = {(Path(name).name, one.category, one.score) for name, found in INSTANCES.items() for one in found}
_LABELME_SHAPE = {
    **{"label": str, "points": list, "group_id": int | None, "description": str, "shape_type": str, "flags": dict},
    "mask": str | None,
}


def _size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> ExportProject:
    return ExportProject(tmp_path_factory.mktemp("exports"))


def _exported(project: ExportProject, form: str, shape: Any = None) -> Path:
    out = project.folder / f"{form}-{shape}"
    export_labels(project.run, str(out), form=form, shape=shape)
    return out


@pytest.mark.parametrize("shape", ["polygons", "masks", "boxes"])
def test_labelmes_parser_takes_each_file(shape: Any, project: ExportProject) -> None:
    out = _exported(project, "labelme", shape)
    files = sorted(out.rglob("*.json"))
    assert [file.stem for file in files] == ["a", "b", "d", "c"]
    found = set()
    for file in files:
        content = json.loads(file.read_text("utf-8"))
        assert content.keys() >= {"version", "flags", "imageData"}
        assert (content["imageHeight"], content["imageWidth"]) == (HEIGHT, WIDTH)
        assert _size(file.parent / content["imagePath"]) == (WIDTH, HEIGHT)
        for one in content["shapes"]:
            assert all(isinstance(one[name], kind) for name, kind in _LABELME_SHAPE.items()), one
            _check_labelme_points(one, content["imagePath"])
            found.add((content["imagePath"], one["label"], round(one["score"], 3)))
    assert found == _EXPECTED


def _check_labelme_points(shape: dict[str, Any], image: str) -> None:
    points = np.array(shape["points"])
    assert points.min() >= 0 and (points <= (WIDTH, HEIGHT)).all()
    if shape["shape_type"] == "polygon":
        assert len(points) >= 3
    else:
        assert (shape["shape_type"], len(points)) in (("rectangle", 2), ("mask", 2))
    if shape["shape_type"] == "mask":  # a PNG between the first pixel and the last one
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(bool)
        (left, top), (right, bottom) = points.astype(int)
        whole = np.zeros((HEIGHT, WIDTH), dtype=bool)
        whole[top : bottom + 1, left : right + 1] = pixels
        assert np.array_equal(whole, _MASKS[image, shape["label"]])


@pytest.mark.parametrize("shape", ["polygons", "masks", "boxes"])
def test_cvats_parser_takes_the_file(shape: Any, project: ExportProject) -> None:
    root = ElementTree.parse(_exported(project, "cvat", shape)).getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    labels = {label.findtext("name"): label for label in root.iter("label")}
    found = set()
    for image in root.iter("image"):
        assert (image.get("width"), image.get("height")) == (str(WIDTH), str(HEIGHT))
        for one in image:
            known = {name.text for name in labels[one.get("label")].iter("name")}
            values = {value.get("name"): value.text for value in one.iter("attribute")}
            assert values.keys() == {"score", "instance_id"} <= known
            assert set(one.keys()) >= {"label", "source", "occluded", "z_order"}
            _check_cvat_shape(one, _MASKS[Path(str(image.get("name"))).name, str(one.get("label"))])
            found.add((Path(str(image.get("name"))).name, one.get("label"), round(float(str(values["score"])), 3)))
    assert found == _EXPECTED


def _check_cvat_shape(shape: ElementTree.Element, mask: np.ndarray[Any, Any]) -> None:
    rows, columns = np.nonzero(mask)
    if shape.tag == "box":
        sides = [float(str(shape.get(side))) for side in ("xtl", "ytl", "xbr", "ybr")]
        assert sides == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    elif shape.tag == "polygon":
        points = [tuple(map(float, point.split(","))) for point in str(shape.get("points")).split(";")]
        assert len(points) >= 3 and np.array(points).min() >= 0 and (np.array(points) <= (WIDTH, HEIGHT)).all()
    else:
        left, top, width, height = (int(str(shape.get(name))) for name in ("left", "top", "width", "height"))
        counts = [int(count) for count in str(shape.get("rle")).split(",")]
        assert sum(counts) == width * height
        pixels = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width).astype(bool)
        assert np.array_equal(pixels, mask[top : top + height, left : left + width])
        assert pixels.sum() == mask.sum()


def test_vocs_readers_take_each_file(project: ExportProject) -> None:
    out = _exported(project, "voc")
    listed = (out / "ImageSets" / "Main" / "train.txt").read_text().split()
    found = set()
    for stem in listed:
        root = ElementTree.parse(out / "Annotations" / f"{stem}.xml").getroot()
        picture = out / str(root.findtext("folder")) / str(root.findtext("filename"))
        assert _size(picture) == (WIDTH, HEIGHT)
        assert [root.findtext(f"size/{side}") for side in ("width", "height")] == [str(WIDTH), str(HEIGHT)]
        for one in root.iter("object"):
            key = (picture.name, str(one.findtext("name")))
            rows, columns = np.nonzero(_MASKS[key])
            sides = [int(str(one.findtext(f"bndbox/{side}"))) for side in ("xmin", "ymin", "xmax", "ymax")]
            if key[0] != "d.png":  # whose specks are dropped
                assert sides == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
            assert {one.findtext(name) for name in ("truncated", "difficult")} == {"0"}
            found.add(key)
    assert found == _MASKS.keys()
    names = [line.partition(":")[0] for line in (out / "labelmap.txt").read_text().splitlines()[1:]]
    assert names == ["background", "boat", "cat & dog"]
