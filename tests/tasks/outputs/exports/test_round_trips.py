"""What is exported in a format that refseg reads comes back as the same instances, as like as was stated."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from refseg_core.masks.rle import Rle, decode_mask, mask_ious
from tasks.datasets.annotation_files import read_annotations
from tasks.outputs.exports.labels import export_labels
from tasks.specs import DatasetSource
from tests.support.projects.exported import INSTANCES, ExportProject, Labeled, disc, rle


class _Case(NamedTuple):
    """A format, by its name where it is read, and where images and annotations then lie."""

    form: str
    read_as: str
    images: str | None = None
    annotations: str = ""
    options: dict[str, Any] = {}  # noqa: RUF012 never changed


_MASKS, _EXACT = {"shape": "masks"}, {"simplify": 0, "min_island": 0}
_EXACT_CASES = [
    _Case("coco", "coco"),
    _Case("lvis", "coco", options=_MASKS),
    _Case("cvat", "cvat", options=_MASKS),
    _Case("cvat", "cvat", options=_EXACT),
    _Case("labelme", "labelme", "", options=_MASKS),
    _Case("labelme", "labelme", "", options=_EXACT),
    _Case("yolo", "yolo", "images/train", "labels/train", _EXACT),
    _Case("voc", "voc", "JPEGImages", "Annotations", _EXACT),
    _Case("masks", "masks"),
]
_SIMPLIFIED_CASES = [
    _Case("cvat", "cvat"),
    _Case("labelme", "labelme", ""),
    _Case("yolo", "yolo", "images/train", "labels/train"),
    _Case("voc", "voc", "JPEGImages", "Annotations"),
    _Case("coco", "coco", options={"shape": "polygons"}),
    _Case("lvis", "coco"),
]
_BOX_CASES = [
    _Case("yolo", "yolo", "images/train", "labels/train", {"shape": "boxes"}),
    _Case("voc", "voc", "JPEGImages", "Annotations", {"shape": "boxes"}),
    _Case("labelme", "labelme", "", options={"shape": "boxes"}),
    _Case("cvat", "cvat", options={"shape": "boxes"}),
]


def _ids(case: _Case) -> str:
    return "-".join([case.form, *map(str, case.options.values())])


def _read(project: ExportProject, case: _Case) -> tuple[dict[tuple[str, str], tuple[Rle, list[float]]], set[str], Any]:
    """Exports and reads back; returns masks and boxes by image and category, the images, and what was exported."""
    suffix = {"cvat": ".xml", "coco": ".json"}.get(case.read_as, "")
    out = project.folder / f"out{suffix}"
    labels = export_labels(project.run, str(out), form=case.form, **case.options)
    images = project.images if case.images is None else out / case.images
    source = DatasetSource(images=str(images), annotations=str(out / case.annotations), format=case.read_as)
    dataset = read_annotations(source, None).dataset
    name_of = dict(zip(dataset.images.image_id, dataset.images.file_name, strict=True))
    category_of = dict(zip(dataset.categories.category_id.tolist(), dataset.categories.name, strict=True))
    rows = dataset.annotations
    found = {
        (Path(name_of[image]).name, str(category_of[category])): (mask, list(box))
        for image, category, mask, box in zip(
            rows.image_id, rows.category_id.tolist(), rows.mask_rle, rows.box_xywh.tolist(), strict=True
        )
    }
    assert len(found) == len(rows), "one object stays one object"
    return found, {Path(name).name for name in name_of.values()}, labels


_EXPECTED = {(Path(name).name, one.category): one for name, found in INSTANCES.items() for one in found}


@pytest.mark.parametrize("case", _EXACT_CASES, ids=_ids)
@pytest.mark.slow
def test_unsimplified_it_is_the_same(case: _Case, tmp_path: Path) -> None:
    found, images, _ = _read(ExportProject(tmp_path), case)
    assert {key: mask for key, (mask, _) in found.items()} == {key: one.mask for key, one in _EXPECTED.items()}
    assert images == {Path(name).name for name in INSTANCES}


@pytest.mark.parametrize("case", _SIMPLIFIED_CASES, ids=_ids)
@pytest.mark.slow
def test_simplified_it_is_as_like_as_stated(case: _Case, tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    found, images, labels = _read(project, case)
    assert images == {Path(name).name for name in INSTANCES}
    assert found.keys() == _EXPECTED.keys()
    written = {
        (Path(one.file_name).name, two.category_name): two.mask for one in labels.each_image() for two in one[-1]
    }
    ious = [mask_ious([found[key][0]], [mask])[0, 0] for key, mask in written.items()]
    assert min(ious) == pytest.approx(_stated(project), abs=2e-3)
    assert np.mean(ious) > 0.9


def _stated(project: ExportProject) -> float:
    """The lowest IoU that the provenance of the export says."""
    files = list(project.folder.glob("*.provenance"))
    return float(json.loads(files[0].read_text("utf-8"))["iou_of_polygons"]["lowest"])


@pytest.mark.parametrize("case", _BOX_CASES, ids=_ids)
@pytest.mark.slow
def test_boxes_are_around_the_masks(case: _Case, tmp_path: Path) -> None:
    found, _, _ = _read(ExportProject(tmp_path), case)
    for key, one in _EXPECTED.items():
        left, top, width, height = found[key][1]
        rows, columns = np.nonzero(decode_mask(one.mask))
        expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert [left, top, width, height] == pytest.approx(expected, abs=1e-3)


def test_maps_hold_the_pixels_of_the_surest_instance(tmp_path: Path) -> None:
    low, high = disc(30, 30, 15), disc(30, 40, 15)
    instances = {"a.png": [Labeled("boat", 0.3, rle(low)), Labeled("bird", 0.8, rle(high))], "b.png": []}
    project = ExportProject(tmp_path, instances=instances, ids={"boat": 2, "bird": 7})
    found, images, _ = _read(project, _Case("masks", "masks", options={"label_map": True}))
    assert images == {"a.png", "b.png"}
    assert found["a.png", "bird"][0] == rle(high)
    assert found["a.png", "boat"][0] == rle(low & ~high)


def test_a_list_says_which_file_is_which_instance(tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    export_labels(project.run, str(tmp_path / "out"), form="masks")
    lines = (tmp_path / "out" / "instances.csv").read_text("utf-8").splitlines()
    assert lines[0] == "image,file,category_id,category,score,instance_id"
    assert lines[1].startswith("a.png,boat/a/1.png,1,boat,0.900000,")
    assert "folder/c.png,,,,," in lines
    assert all((tmp_path / "out" / line.split(",")[1]).exists() for line in lines[1:])
