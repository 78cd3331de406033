"""Labels as labelme opens them: a json file beside each image, with its shapes.

An instance of several parts is several polygons of one group. One with holes, which polygons cannot have, is a mask.
"""

import base64
import json
from collections.abc import Iterator
from posixpath import basename
from typing import Any

import numpy as np

from refseg_core.masks.outlines import mask_part
from refseg_core.masks.rle import Masks
from refseg_core.visualization.encoding import to_png
from tasks.outputs.exports.exported import ExportedImage, ExportedLabels, Instance
from tasks.outputs.exports.writing import File, ImageFile, ImageNames

_VERSION = "5.5.0"  # of labelme, whose files these are like


def write_labelme(labels: ExportedLabels) -> Iterator[File | ImageFile]:
    """Yields the files of the folder."""
    has_images = labels.options.images != "none"
    names = ImageNames(labels.images, may_rename=has_images)
    for image in labels.each_image():
        yield File(f"{names.stem(image.row)}.json", [_document(labels, image, names.image(image.row))])
        if has_images:
            yield ImageFile(names.image(image.row), image.file_name)


def _document(labels: ExportedLabels, image: ExportedImage, name: str) -> bytes:
    shapes = [shape for group, one in enumerate(image.instances, start=1) for shape in _shapes(labels, one, group)]
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": basename(name),
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }
    return json.dumps(content, indent=2, ensure_ascii=False).encode()


def _shapes(labels: ExportedLabels, instance: Instance, group: int) -> list[dict[str, Any]]:
    if labels.shape == "boxes":
        left, top, right, bottom = instance.box_xyxy
        return [_shape(instance, "rectangle", [[left, top], [right, bottom]])]
    if labels.shape == "polygons":
        found = labels.polygons(instance.mask, with_holes=True)
        if not found.holes:
            number = group if len(found.outer) > 1 else None
            return [_shape(instance, "polygon", ring.tolist(), group_id=number) for ring in found.outer]
    part, left, top = mask_part(instance.mask)
    corners = [[left, top], [left + part.shape[1] - 1, top + part.shape[0] - 1]]  # its first and its last pixel
    return [_shape(instance, "mask", corners, mask=_encoded(part))]


def _shape(
    instance: Instance, kind: str, points: list[list[float]], *, group_id: int | None = None, mask: str | None = None
) -> dict[str, Any]:
    """Returns a shape; labelme keeps the keys that it does not know."""
    return {
        "label": instance.category_name,
        "points": points,
        "group_id": group_id,
        "description": f"score {instance.score:.3f}",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
        "score": round(instance.score, 6),
        "instance_id": instance.instance_id,
    }


def _encoded(part: Masks) -> str:
    return base64.b64encode(to_png(part.astype(np.uint8))).decode()
