"""Labels as Label Studio imports them: tasks with predictions, and the labeling configuration that they need.

    tasks.json    label_config.xml

Instances are brush masks, which are exact; polygons, of which Label Studio has one a region, so that parts and holes
are joined by bridges without width; or rectangles. Coordinates are percent of the image's sides.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np

from refseg_core.datasets.coco.writer import json_array
from refseg_core.masks.outlines import mask_part
from refseg_core.masks.rle import Rle
from refseg_core.table_schema import Array
from tasks.outputs.exports.exported import ExportedImage, ExportedLabels, Instance
from tasks.outputs.exports.writing import File, xml_text

_KINDS = {"masks": "brushlabels", "polygons": "polygonlabels", "boxes": "rectanglelabels"}
_TAGS = {"masks": "BrushLabels", "polygons": "PolygonLabels", "boxes": "RectangleLabels"}
_WORD_BITS = 8
_RUN_BITS = (3, 4, 8, 16)  # how many bits a run's length may have; a block says by two bits which
_CHANNELS = 4
_OPAQUE = 255


def write_label_studio(labels: ExportedLabels) -> Iterator[File]:
    """Yields the files of the folder."""
    tasks = (_task(labels, image) for image in labels.each_image())
    yield File("tasks.json", (piece.encode() for piece in json_array(tasks)))
    yield File("label_config.xml", [_configuration(labels).encode()])


def _configuration(labels: ExportedLabels) -> str:
    tag = _TAGS[labels.shape]
    values = "".join(f'    <Label value="{xml_text(name)}"/>\n' for name in labels.categories().name)
    image = '  <Image name="image" value="$image" zoom="true"/>\n'
    return f'<View>\n{image}  <{tag} name="label" toName="image">\n{values}  </{tag}>\n</View>\n'


def _task(labels: ExportedLabels, image: ExportedImage) -> dict[str, Any]:
    """Returns a task; its prediction's score is the mean of its instances', by which tasks can be sorted."""
    results = [_result(labels, image, one) for one in image.instances]
    scores = [one.score for one in image.instances]
    prediction = {
        "model_version": f"refseg {labels.run.key}",
        "score": round(sum(scores) / len(scores), 6) if scores else None,
        "result": results,
    }
    url = labels.options.image_url + quote(image.file_name)
    return {"data": {"image": url, "file_name": image.file_name}, "predictions": [prediction]}


def _result(labels: ExportedLabels, image: ExportedImage, instance: Instance) -> dict[str, Any]:
    kind = _KINDS[labels.shape]
    return {
        "id": instance.instance_id,
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": round(instance.score, 6),
        "value": {**_geometry(labels, image, instance), kind: [instance.category_name]},
    }


def _geometry(labels: ExportedLabels, image: ExportedImage, instance: Instance) -> dict[str, Any]:
    if labels.shape == "masks":
        return {"format": "rle", "rle": brush_of(instance.mask)}
    percent = np.array([100 / image.width, 100 / image.height])
    if labels.shape == "polygons":
        ring = labels.polygons(instance.mask, with_holes=True).joined()
        return {"points": (ring * percent).round(4).tolist(), "closed": True}
    left, top, right, bottom = (np.array(instance.box_xyxy).reshape(2, 2) * percent).ravel().tolist()
    return {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}


def brush_of(mask: Rle) -> list[int]:
    """Returns a mask as Label Studio's brush has it: run lengths of an RGBA picture, packed into bytes.

    32 bits say how many values the picture has, 5 bits how long a value is (less one), four times 4 bits how long the
    kinds of run lengths are (less one). Then each run: a set bit, two bits for the kind of its length, its length less
    one, and its value.
    """
    lengths, values = _runs(mask)
    bits = [format(sum(lengths), "032b"), format(_WORD_BITS - 1, "05b"), *(format(one - 1, "04b") for one in _RUN_BITS)]
    longest = 1 << _RUN_BITS[-1]
    for length, value in zip(lengths, values, strict=True):
        whole, rest = divmod(length, longest)
        for part in [longest] * whole + [rest] * (rest > 0):
            kind = next(kind for kind, size in enumerate(_RUN_BITS) if part <= 1 << size)
            bits.append(f"1{kind:02b}{part - 1:0{_RUN_BITS[kind]}b}{value:0{_WORD_BITS}b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _runs(mask: Rle) -> tuple[list[int], list[int]]:
    """Returns the runs of equal values, row by row, four for each pixel: how many, and which."""
    part, left, top = mask_part(mask)
    height, width = mask.size
    edges = np.diff(np.pad(part.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, stops = (_places(edges == sign, left, top, width) for sign in (1, -1))
    meets = starts[1:] == stops[:-1]  # where a run goes on in the next row
    starts, stops = starts[np.concatenate(([True], ~meets))], stops[np.concatenate((~meets, [True]))]
    ends = np.concatenate(([0], np.stack([starts, stops], axis=1).ravel(), [height * width]))
    lengths = np.diff(ends) * _CHANNELS
    values = np.arange(len(lengths)) % 2 * _OPAQUE
    return lengths[lengths > 0].tolist(), values[lengths > 0].tolist()


def _places(is_edge: Array, left: int, top: int, width: int) -> Array:
    rows, columns = np.nonzero(is_edge)
    places: Array = (rows + top) * width + columns + left
    return places
