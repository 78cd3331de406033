"""Label Studio's exports are read as far as they mark areas; the rest is left out or named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError
from refseg_core.masks.rle import mask_areas
from tasks.datasets.label_studio import read_label_studio


def _result(kind: str, **value: Any) -> dict[str, Any]:
    """A result on an image of 40 x 20 pixels."""
    return {"type": kind, "original_width": 40, "original_height": 20, "value": {kind: ["boat"], **value}}


def _read(folder: Path, *results: dict[str, Any], data: dict[str, Any] | None = None, **task: Any) -> Dataset:
    annotated = {"data": data or {"image": "/data/upload/a%20b.png"}, "annotations": [{"result": list(results)}]}
    file = folder / "export.json"
    file.write_text(json.dumps([annotated | task]))
    return read_label_studio(str(file))


def test_percents_become_pixels(tmp_path: Path) -> None:
    dataset = _read(
        tmp_path,
        _result("polygonlabels", points=[[0, 0], [50, 0], [50, 50], [0, 50]]),
        _result("rectanglelabels", x=25, y=50, width=50, height=25, rotation=0),
        _result("ellipselabels", x=50, y=50, radiusX=25, radiusY=25, rotation=0),
    )
    assert dataset.images.file_name.tolist() == ["a b.png"]
    assert (dataset.images.height[0], dataset.images.width[0]) == (20, 40)
    polygon, box, ellipse = (dataset.annotations[row : row + 1] for row in range(3))
    assert mask_areas([polygon.mask_rle[0]]).tolist() == [200]
    assert (box.box_xywh[0].tolist(), box.mask_rle[0]) == ([10, 10, 20, 5], None)
    assert mask_areas([ellipse.mask_rle[0]])[0] == pytest.approx(np.pi * 10 * 5, rel=0.1)
    assert dataset.categories.name.tolist() == ["boat"]


def test_the_last_annotation_that_was_not_cancelled_counts(tmp_path: Path) -> None:
    box = _result("rectanglelabels", x=0, y=0, width=50, height=50)
    made = [{"result": [box, box]}, {"result": [box]}, {"result": [], "was_cancelled": True}]
    assert len(_read(tmp_path, annotations=made).annotations) == 1


def test_tasks_that_nobody_annotated_are_not_there_and_empty_ones_are(tmp_path: Path) -> None:
    assert len(_read(tmp_path, annotations=[]).images) == 0
    assert (len(_read(tmp_path).images), len(_read(tmp_path).annotations)) == (1, 0)


def test_the_name_that_our_export_gave_is_the_image_s(tmp_path: Path) -> None:
    named = {"image": "https://host/1-a.png?x=1", "file_name": "folder/a.png"}
    assert _read(tmp_path, data=named).images.file_name.tolist() == ["folder/a.png"]


def test_what_marks_no_area_is_left_out_and_what_is_damaged_is_named(tmp_path: Path) -> None:
    assert len(_read(tmp_path, _result("keypointlabels", x=1, y=1)).annotations) == 0
    for damaged in (
        _result("brushlabels", rle=[1, 2]),
        _result("brushlabels", rle=["1_0", 2]),
        _result("rectanglelabels", x=0, y=0, width=9, height=9, rotation=30),
        _result("rectanglelabels", x="1_0", y=0, width=9, height=9),
        _result("rectanglelabels", x=True, y=0, width=9, height=9),
        _result("rectanglelabels", x=0, y=0, width=9, height=9) | {"value": ["boat"]},
        _result("polygonlabels", points=[[0, 1], [9, 0]]),
        _result("polygonlabels", points=[[0, "\u0661"], [9, 0], [9, 9]]),
        _result("polygonlabels", points=[[0, 0], [9, 0], [9, 9]], polygonlabels="boat"),
    ):
        with pytest.raises(DatasetError, match="not the values that its type needs"):
            _read(tmp_path, damaged)


def _task(number: int, *results: dict[str, Any], image: str = "/a.png", **more: Any) -> dict[str, Any]:
    return {"id": number, "data": {"image": image}, "annotations": [{"result": list(results)}]} | more


def _message(folder: Path, *tasks: dict[str, Any]) -> str:
    file = folder / "export.json"
    file.write_text(json.dumps(tasks))
    with pytest.raises(DatasetError) as caught:
        read_label_studio(str(file))
    return str(caught.value)


def test_two_tasks_of_one_image_are_named(tmp_path: Path) -> None:
    assert "a.png in task 7 and task 9" in _message(tmp_path, _task(7), _task(9))


@pytest.mark.parametrize(
    "damage",
    [
        {"data": "a.png"},
        {"data": {}},
        {"annotations": 3},
        {"annotations": [{"result": [3]}]},
        {"data": {"image": "http://["}},
    ],
)
def test_a_task_that_is_none_is_named(damage: dict[str, Any], tmp_path: Path) -> None:
    assert "with an object 'data' that holds the image's address" in _message(tmp_path, _task(7) | damage)
    assert "task 7" in _message(tmp_path, _task(7) | damage)


def test_sizes_that_are_none_or_contradict_each_other_are_named(tmp_path: Path) -> None:
    box = _result("rectanglelabels", x=0, y=0, width=50, height=50)
    other = "task 7 with 20 x 40 and 40 x 40"
    assert other in _message(tmp_path, _task(7, box, box | {"original_height": 40}))
    assert "task 7 with '1_0' x 40" in _message(tmp_path, _task(7, box | {"original_height": "1_0"}))


def test_the_address_of_the_image_is_the_one_that_ends_like_an_image(tmp_path: Path) -> None:
    data = {"source": "camera 3", "picture": "s3://bucket/b/a.PNG"}
    assert _read(tmp_path, data=data).images.file_name.tolist() == ["a.PNG"]


def test_of_several_labels_the_first_is_taken_and_it_is_told(tmp_path: Path) -> None:
    box = _result("rectanglelabels", x=0, y=0, width=50, height=50, rectanglelabels=["boat", "ship"])
    dataset = _read(tmp_path, box)
    assert dataset.categories.name.tolist() == ["boat"]
    assert [oddity.examples for oddity in dataset.oddities] == [("a b.png#1: ['boat', 'ship']",)]
