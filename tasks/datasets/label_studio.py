"""Label Studio's export as json: a list of tasks, each an image with what somebody annotated in it.

Brushes, polygons, rectangles and ellipses are read; everything else marks no area and is left out. Of several
annotations of a task the last that was not cancelled counts; a task without one was not annotated, and is left out with
its image. Coordinates are percent of the image's sides.

Not here: writing tasks (`tasks/outputs/exports/label_studio.py`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from posixpath import basename, splitext
from typing import Any
from urllib.parse import unquote, urlsplit

from refseg_core.datasets.builder import DatasetBuilder, LabeledShape, Shape, ellipse
from refseg_core.datasets.coco.json_values import whole_number
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.values.numbers import number_of
from refseg_core.errors import DatasetError, brief
from refseg_core.images import IMAGE_SUFFIXES
from refseg_core.masks.brush import mask_of_brush
from tasks.storage.objects import read_uri
from tasks.storage.uris import redact

FORMAT = "label-studio"
_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
_PERCENT = 100
_TRIANGLE = 3
_BAD_TASK = (
    "a task is not as Label Studio exports it, with an object 'data' that holds the image's address, and lists of "
    "annotations and of their results: export the project as JSON again"
)
_BAD_SHAPE = "a result has not the values that its type needs: export the project again"
_BAD_SIZE = (
    "an image's results do not all say one size in original_height and original_width, two numbers of pixels: export "
    "the project again"
)
_SEVERAL_LABELS = "results with several labels: the first is taken"


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
    for number, task in enumerate(tasks, start=1):
        _add_task(builder, f"task {task['id']}" if "id" in task else f"task number {number}", task)
    return builder.dataset()


def _add_task(builder: DatasetBuilder, place: str, task: Mapping[str, Any]) -> None:
    results, name = _results(task), _image_name(task["data"])
    if results is None and name:
        return
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results) or not name:
        builder.problems.add(_BAD_TASK, place)
        return
    areas = [one for one in results if one.get("type") in _KINDS]
    sizes = [(whole_number(one.get("original_height")), whole_number(one.get("original_width"))) for one in areas]
    height, width = sizes[0] if sizes else (0, 0)
    if areas and not (height and width and set(sizes) == {(height, width)}):
        found = dict.fromkeys((brief(one.get("original_height")), brief(one.get("original_width"))) for one in areas)
        builder.problems.add(_BAD_SIZE, f"{place} with {' and '.join(' x '.join(size) for size in found)}")
    elif builder.add_image(name, height or 0, width or 0, place):
        builder.add_shapes(name, _shapes(builder, name, results, height or 0, width or 0))


def _results(task: Mapping[str, Any]) -> Any:
    """Returns what the last annotation of a task says, or None where nobody annotated it; False where it is damaged."""
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list):
        return False
    made = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    return (made[-1].get("result") or []) if made else None


def _image_name(data: Any) -> str:
    """Returns the file name that our export gave, or else the last part of the image's address; '' without one."""
    if not isinstance(data, dict):
        return ""
    if isinstance(data.get("file_name"), str):
        return str(data["file_name"])
    names = [_last_part(value) for value in data.values() if isinstance(value, str)]
    return next((name for name in names if splitext(name)[1].lower() in IMAGE_SUFFIXES), names[0] if names else "")


def _last_part(address: str) -> str:
    try:
        return basename(unquote(urlsplit(address).path))
    except ValueError:  # no address, such as one with a bracket that is not closed
        return ""


def _shapes(
    builder: DatasetBuilder, name: str, results: Sequence[Mapping[str, Any]], height: int, width: int
) -> Iterator[LabeledShape]:
    for number, one in enumerate(results, start=1):
        kind, place = str(one.get("type")), f"{name}#{number}"
        if kind not in _KINDS:
            builder.leave_out(kind, place)
            continue
        try:
            shape, labels = _shape(kind, one["value"], height, width), _labels(one["value"].get(kind))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            builder.problems.add(_BAD_SHAPE, f"{place} ({kind})")
            continue
        if len(labels) > 1:
            builder.read_as(_SEVERAL_LABELS, f"{place}: {brief(labels)}")
        yield LabeledShape(place, labels[0] if labels else None, None, shape)


def _labels(given: Any) -> list[str]:
    """Returns a result's labels. Raises ValueError where they are no list of texts."""
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(label, str) for label in given):
        raise ValueError(given)
    return given


def _shape(kind: str, value: Mapping[str, Any], height: int, width: int) -> Shape:
    """Returns what a result marks. Raises what its values raise where they are damaged."""
    if kind == "brushlabels":
        return Shape(masks=(mask_of_brush(value["rle"], height, width),))
    scale = (width / _PERCENT, height / _PERCENT)
    if kind == "polygonlabels":
        points = [(number_of(x) * scale[0], number_of(y) * scale[1]) for x, y in value["points"]]
        if len(points) < _TRIANGLE:
            raise ValueError(points)
        return Shape(polygons=([axis for point in points for axis in point],))
    if value.get("rotation"):
        raise ValueError("turned shapes are not read")
    x, y = number_of(value["x"]) * scale[0], number_of(value["y"]) * scale[1]
    if kind == "rectanglelabels":
        return Shape(box=(x, y, number_of(value["width"]) * scale[0], number_of(value["height"]) * scale[1]))
    points = ellipse(x, y, number_of(value["radiusX"]) * scale[0], number_of(value["radiusY"]) * scale[1])
    return Shape(polygons=([axis for point in points for axis in point],))
