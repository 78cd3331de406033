"""Labels as LVIS json, with what LVIS says of images beyond their instances: which categories are absent from them.

Every labeled category was looked for in every image, so that those without an instance are absent, and none is left
unlisted. Categories have the frequency that their images in these labels make them.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from refseg_core.datasets.coco.writer import Row, annotation_rows, json_array
from refseg_core.tables import ExportedDetections
from tasks.outputs.exports.coco import segmentation
from tasks.outputs.exports.exported import ExportedLabels

_RARE, _COMMON = 10, 100  # images that a category of the frequency r or c has at most


class _Seen:
    """How often categories were written, and in which images."""

    def __init__(self) -> None:
        self.instances: Counter[int] = Counter()
        self.by_image: defaultdict[str, set[int]] = defaultdict(set)

    def watched(self, tables: Iterator[ExportedDetections]) -> Iterator[ExportedDetections]:
        """Passes tables on."""
        for table in tables:
            category_ids = table.category_id.tolist()
            self.instances.update(category_ids)
            for image_id, category_id in zip(table.image_id, category_ids, strict=True):
                self.by_image[image_id].add(category_id)
            yield table


def write_lvis(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the file in pieces: annotations first, since the rest says what is in them."""
    seen = _Seen()
    info = {"description": "labels by refseg", "version": labels.run.key}
    yield b'{"info": ' + json.dumps(info).encode() + b', "licenses": [],\n"annotations": '
    rows = annotation_rows(seen.watched(labels.detections()), labels.export_id, lambda mask: segmentation(labels, mask))
    yield from (piece.encode() for piece in json_array(rows))
    yield b',\n"categories": '
    yield from (piece.encode() for piece in json_array(_categories(labels, seen)))
    yield b',\n"images": '
    yield from (piece.encode() for piece in json_array(_images(labels, seen)))
    yield b"}\n"


def _categories(labels: ExportedLabels, seen: _Seen) -> Iterator[Row]:
    num_images = Counter(category_id for found in seen.by_image.values() for category_id in found)
    categories = labels.categories()
    for category_id, name in zip(categories.category_id.tolist(), categories.name, strict=True):
        count = num_images[category_id]
        yield {
            "id": category_id,
            "name": name,
            "synset": f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}.n.01",
            "synonyms": [name],
            "def": name,
            "frequency": "r" if count <= _RARE else "c" if count <= _COMMON else "f",
            "image_count": count,
            "instance_count": seen.instances[category_id],
        }


def _images(labels: ExportedLabels, seen: _Seen) -> Iterator[dict[str, Any]]:
    category_ids: list[int] = labels.categories().category_id.tolist()
    images = labels.images
    sizes = zip(images.height.tolist(), images.width.tolist(), strict=True)
    for image_id, name, (height, width) in zip(images.image_id, images.file_name, sizes, strict=True):
        present = seen.by_image.get(image_id, set())
        yield {
            "id": labels.export_id[image_id],
            "file_name": name,
            "height": height,
            "width": width,
            "neg_category_ids": [one for one in category_ids if one not in present],
            "not_exhaustive_category_ids": [],
        }
