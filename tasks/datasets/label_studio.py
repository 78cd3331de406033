"""Label Studio's export as json: a list of tasks, each an image with what somebody annotated in it.

Brushes, polygons, rectangles and ellipses are read; everything else marks no area and is left out. Of several
annotations of a task the last that was not cancelled counts; a task without one was not annotated, and is left out with
its image. Coordinates are percent of the image's sides.

Not here: writing tasks (`tasks/outputs/exports/label_studio.py`).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from refseg_core.datasets.builder import DatasetBuilder, LabeledShape, Shape, ellipse
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError
from refseg_core.masks.brush import mask_of_brush
from tasks.storage.objects import read_uri
from tasks.storage.uris import redact

FORMAT = "label-studio"
_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
_PERCENT = 100
_BAD_SHAPE = "a result has not the values that its type needs: export the project again"


def read_label_studio(uri: str) -> Dataset:
    """Returns the dataset of an export. Raises DatasetError with everything that is wrong."""
    source = redact(uri)
    try:
        tasks = json.loads(read_uri(uri))
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{source} is not json that can be read: {error}. Expected Label Studio's JSON export."
        ) from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise DatasetError(f"{source}: expected a list of tasks, each with its 'data'. Export the project as JSON.")
    builder = DatasetBuilder(source)
    for task in tasks:
        results = _results(task)
        if results is not None:
            _add(builder, _image_name(task), results)
    return builder.dataset()


def _results(task: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns what the last annotation of a task says, or None where nobody annotated it."""
    made = [one for one in task.get("annotations", ()) if isinstance(one, dict) and not one.get("was_cancelled")]
    return None if not made else [one for one in made[-1].get("result", ()) if isinstance(one, dict)]


def _image_name(task: Mapping[str, Any]) -> str:
    """Returns the file name that our export gave, or else the last part of the image's address."""
    data = task["data"]
    named = data.get("file_name") or next((value for value in data.values() if isinstance(value, str)), "")
    return str(named) if "file_name" in data else PurePosixPath(unquote(urlsplit(str(named)).path)).name


def _add(builder: DatasetBuilder, name: str, results: list[dict[str, Any]]) -> None:
    sizes = [(one.get("original_height"), one.get("original_width")) for one in results]
    height, width = next(((int(h), int(w)) for h, w in sizes if h and w), (0, 0))
    if builder.add_image(name, height, width):
        builder.add_shapes(name, _shapes(builder, name, results, height, width))


def _shapes(
    builder: DatasetBuilder, name: str, results: list[dict[str, Any]], height: int, width: int
) -> Iterator[LabeledShape]:
    for number, one in enumerate(results, start=1):
        kind, place = str(one.get("type")), f"{name}#{number}"
        if kind not in _KINDS:
            builder.leave_out(kind, place)
            continue
        value = one.get("value", {})
        try:
            shape = _shape(kind, value, height, width)
        except (KeyError, TypeError, ValueError, OverflowError):
            builder.problems.add(_BAD_SHAPE, f"{place} ({kind})")
            continue
        labels = value.get(kind) or [""]
        yield LabeledShape(place, str(labels[0]), None, shape)


def _shape(kind: str, value: Mapping[str, Any], height: int, width: int) -> Shape:
    """Returns what a result marks. Raises what its values raise where they are damaged."""
    if kind == "brushlabels":
        return Shape(masks=(mask_of_brush(value["rle"], height, width),))
    scale = (width / _PERCENT, height / _PERCENT)
    if kind == "polygonlabels":
        return Shape(
            polygons=([float(x) * one for point in value["points"] for x, one in zip(point, scale, strict=True)],)
        )
    if value.get("rotation"):
        raise ValueError("turned shapes are not read")
    x, y = float(value["x"]) * scale[0], float(value["y"]) * scale[1]
    if kind == "rectanglelabels":
        return Shape(box=(x, y, float(value["width"]) * scale[0], float(value["height"]) * scale[1]))
    points = ellipse(x, y, float(value["radiusX"]) * scale[0], float(value["radiusY"]) * scale[1])
    return Shape(polygons=([axis for point in points for axis in point],))
