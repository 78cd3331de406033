"""Label Studio's tasks: brushes say exactly the mask, and places are percent of the image."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.masks.rle import Rle, decode_mask, encode_masks
from tasks.outputs.exports.label_studio import brush_of
from tasks.outputs.exports.labels import export_labels
from tests.support.projects.exported import HEIGHT, INSTANCES, PAIR, WIDTH, ExportProject

_MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[3]
)


def _decoded(brush: list[int], mask: Rle) -> Any:
    """Reads the bits one by one: how many values, how long their words are, the run lengths' sizes, then the runs."""
    bits = iter("".join(f"{byte:08b}" for byte in brush))

    def number(length: int) -> int:
        return int("".join(next(bits) for _ in range(length)), 2)

    total, word, sizes = number(32), number(5) + 1, [number(4) + 1 for _ in range(4)]

    def runs() -> Iterator[int]:
        found = 0
        while found < total:
            is_run = number(1)
            length = number(sizes[number(2)]) + 1
            yield from [number(word)] * length if is_run else [number(word) for _ in range(length)]
            found += length

    pixels = np.array(list(runs()), dtype=np.uint8).reshape(*mask.size, 4)
    assert (pixels == pixels[..., :1]).all(), "all four channels are alike"
    return pixels[..., 3] == 255


@settings(max_examples=100)
@given(_MASKS)
def test_a_brush_is_exactly_the_mask(mask: Any) -> None:
    (rle,) = encode_masks(mask[None])
    if mask.any():
        assert np.array_equal(_decoded(brush_of(rle), rle), mask)


def test_runs_longer_than_a_length_can_say_are_cut() -> None:
    mask = np.zeros((400, 500), dtype=bool)
    mask[100:300] = True
    (rle,) = encode_masks(mask[None])
    assert np.array_equal(_decoded(brush_of(rle), rle), mask)


def _tasks(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    project = ExportProject(tmp_path)
    export_labels(project.run, str(tmp_path / "out"), form="label-studio", **options)
    tasks: list[dict[str, Any]] = json.loads((tmp_path / "out" / "tasks.json").read_text("utf-8"))
    return tasks


def test_tasks_hold_scores_the_version_and_empty_images(tmp_path: Path) -> None:
    tasks = {task["data"]["file_name"]: task for task in _tasks(tmp_path)}
    assert tasks.keys() == INSTANCES.keys()
    assert tasks["folder/c.png"]["predictions"][0]["result"] == []
    (prediction,) = tasks["a.png"]["predictions"]
    assert prediction["score"] == pytest.approx(0.65)
    assert prediction["model_version"].startswith("refseg ")
    for result, labeled in zip(prediction["result"], INSTANCES["a.png"], strict=True):
        assert result["score"] == pytest.approx(labeled.score)
        assert result["value"]["brushlabels"] == [labeled.category]
        assert (result["original_height"], result["original_width"]) == (HEIGHT, WIDTH)
        assert np.array_equal(_decoded(result["value"]["rle"], labeled.mask), decode_mask(labeled.mask))
    configuration = (tmp_path / "out" / "label_config.xml").read_text("utf-8")
    assert '<Label value="cat &amp; dog"/>' in configuration
    assert '<BrushLabels name="label" toName="image">' in configuration


def test_boxes_and_polygons_are_percent_of_the_image(tmp_path: Path) -> None:
    rows, columns = np.nonzero(PAIR)
    (box,) = _tasks(tmp_path, shape="boxes")[1]["predictions"][0]["result"]
    assert box["value"]["x"] == pytest.approx(100 * columns.min() / WIDTH)
    assert box["value"]["height"] == pytest.approx(100 * (rows.max() + 1 - rows.min()) / HEIGHT)
    (polygon,) = _tasks(tmp_path, shape="polygons")[1]["predictions"][0]["result"]
    points = np.array(polygon["value"]["points"])
    assert points.min(axis=0) == pytest.approx([100 * columns.min() / WIDTH, 100 * rows.min() / HEIGHT], abs=2)
    assert points.max() <= 100


def test_images_are_found_by_an_address_of_ones_own(tmp_path: Path) -> None:
    first, *_ = _tasks(tmp_path, image_url="https://images.example/x/")
    assert first["data"]["image"] == "https://images.example/x/a.png"
    first, *_ = _tasks(tmp_path)
    assert first["data"]["image"] == "/data/local-files/?d=a.png"
