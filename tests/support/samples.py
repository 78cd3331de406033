"""Small tables and images that tests of tasks and flows are made of."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from refseg_core.images import WHITE
from refseg_core.masks.rle import encode_masks
from refseg_core.table_schema import Table
from refseg_core.tables import Categories, CategorySimilarities, Detections, Images, LabeledImages


def images_table(*names: str, version: str = "1", **versions: str) -> Images:
    """Images as a listing finds them; `versions` gives some another version, by name."""
    return Images(
        image_id=np.array(names, dtype=object),
        has_integer_id=np.zeros(len(names), dtype=bool),
        file_name=np.array(names, dtype=object),
        height=np.zeros(len(names), dtype=np.int32),
        width=np.zeros(len(names), dtype=np.int32),
        size=np.full(len(names), 100, dtype=np.int64),
        version=np.array([versions.get(name, version) for name in names], dtype=object),
        frame=np.full(len(names), "", dtype=object),
        white=np.full(len(names), WHITE, dtype=np.int32),
    )


def categories_table(**ids: int) -> Categories:
    """Categories by name, each with its id."""
    return Categories(
        category_id=np.array(list(ids.values())),
        class_index=np.arange(len(ids)),
        name=np.array(list(ids), dtype=object),
        frequency=np.full(len(ids), None, dtype=object),
    )


def labels_of(images: Images, *, detections_each: int = 1, seconds: float = 0.5) -> tuple[Detections, LabeledImages]:
    """What labeling could have found in these images, with 16 prompts in each."""
    (rle,) = encode_masks(np.eye(4, dtype=bool)[None])
    found = [
        Detections.row(
            image_id=image_id, category_id=1, score=0.5, predicted_iou=0.9, box_xyxy=[0, 0, 4, 4], mask_rle=rle
        )
        for image_id in images.image_id
        for _ in range(detections_each)
    ]
    labeled = [
        LabeledImages.row(
            image_id=image_id,
            version=version,
            status="ok",
            error=None,
            height=4,
            width=4,
            num_proposals=9,
            num_detections=detections_each,
            num_prompts=16,
            max_similarity=0.75,
            seconds=seconds,
        )
        for image_id, version in zip(images.image_id, images.version, strict=True)
    ]
    return Detections.concatenate(found), LabeledImages.concatenate(labeled)


def similarities_of(images: Images, similarity: float = 0.75) -> CategorySimilarities:
    """What images resemble: the one category, all by as much."""
    number = len(images)
    return CategorySimilarities(
        image_id=images.image_id, category_id=np.ones(number), similarity=np.full(number, similarity)
    )


def picture(seed: int, height: int = 96, width: int = 128) -> npt.NDArray[np.uint8]:
    """Some pixels, uint8 RGB [H, W, 3]: two rectangles on noise."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 60, (height, width, 3), dtype=np.uint8)
    for color in generator.integers(120, 255, (2, 3)):
        top, left = generator.integers(10, (height - 50, width - 50))
        pixels[top : top + 40, left : left + 40] = color
    return pixels


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The pixels as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(folder: Path, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Writes PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        (folder / name).write_bytes(png(pixels))


def coco(
    file_names: Sequence[str],
    annotations: Sequence[Mapping[str, Any]] = (),
    categories: Mapping[int, str] | None = None,
    size: tuple[int, int] = (96, 128),
) -> bytes:
    """A COCO file of images that all have one size; ids of images and annotations count from 1."""
    height, width = size
    document = {
        "images": [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, name in enumerate(file_names, start=1)
        ],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in (categories or {}).items()],
    }
    return json.dumps(document).encode()


def table_rows(table: Table, *, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a table, for comparing."""
    rows: list[dict[str, Any]] = table.to_arrow().drop_columns(list(without)).to_pylist()
    return rows


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed counts of a mask [H, W]: down the columns, background first."""
    counts, current = [0], False
    for value in mask.T.ravel().tolist():
        if value != current:
            counts.append(0)
            current = value
        counts[-1] += 1
    return counts
