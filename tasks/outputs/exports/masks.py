"""Labels as PNG files, a mask for each instance or a map for each image, in the layouts that are read too.

boat/harbour/2.png    the mask of an instance of the category boat in harbour.jpg: 255, and 0 elsewhere
harbour.png           with --label-map: each pixel's class, from 1 in the order of classes.txt; 0 is background
instances.csv         every instance with its file, score and id; an image without instances has a row too
"""

import csv
import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from refseg_core.errors import ConfigurationError
from refseg_core.masks.outlines import mask_part
from refseg_core.masks.rle import decode_mask
from refseg_core.visualization.encoding import to_png
from tasks.outputs.exports.exported import ExportedImage, ExportedLabels, Instance
from tasks.outputs.exports.writing import File, ImageFile, ImageNames, folder_names

_COLUMNS = ("image", "file", "category_id", "category", "score", "instance_id")
_MOST_CLASSES = 254  # 0 is background and 255 void
_OPAQUE = 255
_RENAME = "Rename them, or choose a format that is one file, such as coco or cvat."


def write_masks(labels: ExportedLabels) -> Iterator[File | ImageFile]:
    """Yields the files of the folder."""
    names = ImageNames(labels.images, may_rename=False, advice=_RENAME)
    is_map = labels.options.label_map
    write = _map if is_map else _instances
    if is_map:
        _check_classes(labels)
    folders = folder_names(labels.categories().name)
    rows = [",".join(_COLUMNS) + "\n"]
    for image in labels.each_image():
        for file, instances in write(image, names.stem(image.row), folders):
            yield file
            rows += [_row(image, file.name, one) for one in instances]
        if not image.instances:
            rows.append(_row(image, f"{names.stem(image.row)}.png" if is_map else "", None))
    classes = "".join(f"{name}\n" for name in labels.categories().name)
    yield File("classes.txt", [classes.encode()])
    yield File("instances.csv", (row.encode() for row in rows))


def _instances(image: ExportedImage, stem: str, folders: list[str]) -> Iterator[tuple[File, list[Instance]]]:
    """Yields a file for each instance, numbered within its category and image."""
    numbers = [0] * len(folders)
    for one in image.instances:
        numbers[one.class_index] += 1
        pixels = np.where(decode_mask(one.mask), np.uint8(_OPAQUE), np.uint8(0))
        yield File(f"{folders[one.class_index]}/{stem}/{numbers[one.class_index]}.png", [to_png(pixels)]), [one]


def _map(image: ExportedImage, stem: str, _: list[str]) -> Iterator[tuple[File, list[Instance]]]:
    """Yields one file; where instances overlap, the pixels are of the one with the highest score."""
    pixels: npt.NDArray[np.uint8] = np.zeros((image.height, image.width), dtype=np.uint8)
    for one in sorted(image.instances, key=lambda instance: instance.score):
        part, left, top = mask_part(one.mask)
        pixels[top : top + part.shape[0], left : left + part.shape[1]][part] = one.class_index + 1
    yield File(f"{stem}.png", [to_png(pixels)]), image.instances


def _check_classes(labels: ExportedLabels) -> None:
    if (number := len(labels.categories())) > _MOST_CLASSES:
        raise ConfigurationError(
            f"A map holds {_MOST_CLASSES} categories at most, and there are {number}: write masks without --label-map."
        )


def _row(image: ExportedImage, file: str, instance: Instance | None) -> str:
    """Returns a line of the list."""
    found: list[object] = [""] * 4
    if instance is not None:
        score = f"{instance.score:.6f}"
        found = [instance.category_id, instance.category_name, score, instance.instance_id]
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([image.file_name, file, *found])
    return line.getvalue()
