"""Every format is loaded with the library of the tool that it is for: counts, names, masks and scores are the labels'.

FiftyOne, Datumaro and Label Studio's SDK pin other versions of what refseg needs too, and labelme brings a desktop with
it: the interpreter that REFSEG_TOOLS_PYTHON names loads them, where there is one.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg_core.masks.rle import decode_mask, mask_ious, rle_from_counts
from tasks.outputs.exports.labels import export_labels
from tests.support.projects.exported import HEIGHT, INSTANCES, WIDTH, ExportProject

_SCRIPT = Path(__file__).with_name("tools.py")
_OTHER_PYTHON = os.environ.get("REFSEG_TOOLS_PYTHON")
_needs_other_python = pytest.mark.skipif(
    _OTHER_PYTHON is None,
    reason="does not fit beside refseg; REFSEG_TOOLS_PYTHON names an interpreter that has it",
)
pytestmark = pytest.mark.slow
Row = dict[str, Any]

_DATUMARO_NAMES = {"coco": "annotations/instances_train.json", "cvat": "annotations.xml", "voc": "voc"}
_EXPECTED = [(name, one.category, round(one.score, 3)) for name, found in INSTANCES.items() for one in found]
_MASKS = {(name, one.category): one.mask for name, found in INSTANCES.items() for one in found}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> ExportProject:
    return ExportProject(tmp_path_factory.mktemp("exports"), unreadable=["z.png"])


def _read(tool: str, *arguments: object, home: Path, python: str = sys.executable) -> Any:
    """What a tool finds."""
    offline = {"HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "true", "QT_QPA_PLATFORM": "offscreen"}
    own = {"HOME": str(home), "YOLO_CONFIG_DIR": str(home), "MPLCONFIGDIR": str(home), "FIFTYONE_DO_NOT_TRACK": "1"}
    command = [python, str(_SCRIPT), tool, *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | offline | own, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _out(project: ExportProject, form: str, name: str, **options: Any) -> Path:
    out = project.folder / name
    export_labels(project.run, str(out), form=form, **options)
    return out


def _seen(rows: list[Row]) -> list[tuple[str, str, float]]:
    return sorted((row["image"], row["category"], round(row["score"], 3)) for row in rows)


def _lowest_iou(rows: list[Row]) -> float:
    """The lowest IoU of what was found with the mask that it was made from."""
    found = [rle_from_counts(row["counts"], HEIGHT, WIDTH) for row in rows]
    expected = [_MASKS[row["image"], row["category"]] for row in rows]
    return float(np.diag(mask_ious(found, expected)).min())


@pytest.mark.parametrize("shape", ["masks", "polygons"])
def test_pycocotools_loads_coco(shape: Any, project: ExportProject, tmp_path: Path) -> None:
    read = _read("pycocotools", _out(project, "coco", f"{shape}.json", shape=shape), home=tmp_path)
    assert sorted(read["images"]) == sorted(INSTANCES)
    assert _seen(read["found"]) == sorted(_EXPECTED)
    if shape == "masks":
        assert _lowest_iou(read["found"]) == 1
        for row in read["found"]:
            mask = decode_mask(_MASKS[row["image"], row["category"]])
            assert row["area"] == mask.sum()
            left, top, width, height = (int(side) for side in row["box"])
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
    else:
        assert _lowest_iou(read["found"]) > 0.75, "a ring's hole is filled"


def test_pycocotools_loads_results_beside_the_dataset(project: ExportProject, tmp_path: Path) -> None:
    results, dataset = _out(project, "coco-results", "results.json"), _out(project, "coco", "dataset.json")
    read = _read("results", results, dataset, home=tmp_path)
    assert _seen(read["found"]) == sorted(_EXPECTED)
    assert _lowest_iou(read["found"]) == 1


def test_lvis_loads_it_with_what_is_absent(project: ExportProject, tmp_path: Path) -> None:
    read = _read("lvis", _out(project, "lvis", "lvis.json"), home=tmp_path)
    assert _seen(read["found"]) == sorted(_EXPECTED)
    assert read["absent"] == {"a.png": [], "b.png": [2], "folder/c.png": [1, 2], "d.png": [1]}
    assert read["categories"] == [
        {"name": "boat", "frequency": "r", "image_count": 2},
        {"name": "cat & dog", "frequency": "r", "image_count": 2},
    ]
    exact = _read("lvis", _out(project, "lvis", "exact.json", shape="masks"), home=tmp_path)
    assert _lowest_iou(exact["found"]) == 1


def test_ultralytics_trains_from_polygons(project: ExportProject, tmp_path: Path) -> None:
    read = _read("ultralytics", _out(project, "yolo", "yolo"), "train", "segment", home=tmp_path)
    assert read["problems"] == []
    assert list(read["names"].values()) == ["boat", "cat & dog"]
    assert {one["name"]: one["empty"] for one in read["images"]} == {
        **{"a.png": False, "b.png": False},
        **{"c.png": True, "d.png": False},
    }
    assert not any(one["missing"] for one in read["images"])
    assert sorted((row["image"], row["category"]) for row in read["found"]) == sorted(_MASKS)
    assert _lowest_iou(read["found"]) > 0.9, "parts and holes are kept"


def test_ultralytics_trains_from_boxes_of_a_split(project: ExportProject, tmp_path: Path) -> None:
    out = _out(project, "yolo", "boxes", shape="boxes", split=(0.5, 0.25, 0.25), seed=1)
    read = [_read("ultralytics", out, split, "detect", home=tmp_path) for split in ("train", "val", "test")]
    assert [len(one["images"]) for one in read] == [2, 1, 1]
    found = [row for one in read for row in one["found"]]
    assert sorted((row["image"], row["category"]) for row in found) == sorted(_MASKS)
    for row in found:
        mask = decode_mask(_MASKS[row["image"], row["category"]])
        x, y, width, height = row["box"]
        rows, columns = np.nonzero(mask)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [x - width / 2, y - height / 2, x + width / 2, y + height / 2] == pytest.approx(expected, abs=1e-3)


@_needs_other_python
def test_labelme_opens_every_file_with_its_image(project: ExportProject, tmp_path: Path) -> None:
    python = str(_OTHER_PYTHON)
    read = _read("labelme", _out(project, "labelme", "labelme"), home=tmp_path, python=python)
    assert sorted(read["images"]) == ["a.png", "b.png", "c.png", "d.png"]
    kinds = {(row["image"], row["category"]): row["kind"] for row in read["found"]}
    assert kinds == dict.fromkeys(_MASKS, "polygon") | {("a.png", "cat & dog"): "mask"}
    assert [row["group"] for row in read["found"] if row["image"] == "b.png"] == [1, 1]
    assert {(row["image"], row["category"], round(row["score"], 3)) for row in read["found"]} == set(_EXPECTED)
    ring = [row for row in read["found"] if row["kind"] == "mask"]
    assert _lowest_iou(ring) == 1
    out = _out(project, "labelme", "labelme", shape="masks")
    exact = _read("labelme", out, home=tmp_path, python=python)
    assert _seen(exact["found"]) == sorted(_EXPECTED)
    assert _lowest_iou(exact["found"]) == 1


@_needs_other_python
def test_label_studios_converter_decodes_the_brushes(project: ExportProject, tmp_path: Path) -> None:
    out = _out(project, "label-studio", "studio")
    read = _read("label_studio", out, home=tmp_path, python=str(_OTHER_PYTHON))
    assert sorted(read["images"]) == sorted(INSTANCES)
    assert _seen(read["found"]) == sorted(_EXPECTED)
    assert _lowest_iou(read["found"]) == 1


@_needs_other_python
@pytest.mark.parametrize("shape", ["masks", "polygons", "boxes"])
def test_label_studio_accepts_the_predictions(shape: Any, project: ExportProject, tmp_path: Path) -> None:
    out = _out(project, "label-studio", f"studio-{shape}", shape=shape)
    read = _read("label_studio_sdk", out, home=tmp_path, python=str(_OTHER_PYTHON))
    assert sorted(read["images"]) == sorted(INSTANCES)
    assert read["valid"] == [True] * len(INSTANCES)


def test_hugging_faces_datasets_loads_the_imagefolder(project: ExportProject, tmp_path: Path) -> None:
    out = _out(project, "hf", "hf", split=(0.75, 0.25))
    read = _read("datasets", out, home=tmp_path)
    assert read["splits"] == {"train": 3, "validation": 1}
    assert {tuple(one["size"]) for one in read["images"]} == {tuple(one["pixels"]) for one in read["images"]}
    name_of = {str(number): name for number, name in enumerate(project.names, start=1)}
    rows = [row | {"image": name_of[row["image"]]} for row in read["found"]]
    assert _seen(rows) == sorted(_EXPECTED)
    assert _lowest_iou(rows) == 1


def test_supervision_loads_coco_with_scores(project: ExportProject, tmp_path: Path) -> None:
    read = _read("supervision", project.images, _out(project, "coco", "coco.json"), home=tmp_path)
    assert sorted(read["images"]) == sorted(INSTANCES)
    assert sorted((row["image"], row["category"]) for row in read["found"]) == sorted(_MASKS)
    assert _lowest_iou(read["found"]) == 1
    assert sorted(round(score, 3) for score in read["scores"]) == sorted(score for *_, score in _EXPECTED)


@_needs_other_python
def test_fiftyone_loads_coco_with_scores(project: ExportProject, tmp_path: Path) -> None:
    out = _out(project, "coco", "coco.json")
    read = _read("fiftyone", project.images, out, home=tmp_path, python=str(_OTHER_PYTHON))
    assert sorted(read["images"]) == sorted(INSTANCES)
    assert _seen(read["found"]) == sorted(_EXPECTED)
    assert _lowest_iou(read["found"]) == 1


@_needs_other_python
@pytest.mark.parametrize(
    ("form", "theirs", "kinds"),
    [
        ("coco", "coco_instances", {"bbox", "mask"}),
        ("cvat", "cvat", {"polygon", "mask"}),
        ("voc", "voc_detection", {"bbox"}),
    ],
)
def test_datumaro_imports_it(form: str, theirs: str, kinds: set[str], project: ExportProject, tmp_path: Path) -> None:
    copied = {"images": "copy"} if form == "voc" else {}  # it takes links for a way out of the folder
    out = _out(project, form, f"datumaro-{form}/{_DATUMARO_NAMES[form]}", **copied)
    if not copied:
        root = out.parent.parent if form == "coco" else out.parent
        shutil.copytree(project.images, root / "images" / ("train" if form == "coco" else ""))
    place = out.parent.parent if form == "coco" else out
    read = _read("datumaro", place, theirs, home=tmp_path, python=str(_OTHER_PYTHON))
    labels = {Path(item["id"]).stem: sorted(set(item["labels"])) for item in read["items"]}
    assert labels == {"a": ["boat", "cat & dog"], "b": ["boat"], "c": [], "d": ["cat & dog"]}
    assert {kind for item in read["items"] for kind in item["kinds"]} == kinds
