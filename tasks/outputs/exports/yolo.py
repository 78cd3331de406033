"""Labels as Ultralytics trains from them: images, a text file of fractions for each, and data.yaml.

    images/train/a.jpg    labels/train/a.txt    data.yaml

A line is an instance: its class from 0, then a polygon or a box. An instance of several parts, or with holes, is one
polygon that goes from part to part by bridges without width. An image without instances has an empty file.
"""

from collections.abc import Iterator

import yaml

from tasks.outputs.exports.exported import ExportedImage, ExportedLabels, Instance
from tasks.outputs.exports.writing import File, ImageFile, ImageNames, Splits

_FOLDERS = ("images", "labels")


def write_yolo(labels: ExportedLabels) -> Iterator[File | ImageFile]:
    """Yields the files of the folder."""
    has_images = labels.options.images != "none"
    names = ImageNames(labels.images, may_rename=has_images)
    splits = Splits(len(labels.images), labels.options.split, labels.options.seed)
    for image in labels.each_image():
        split = splits.name_of(image.row)
        yield File(f"labels/{split}/{_path(names.stem(image.row))}.txt", [_text(labels, image).encode()])
        if has_images:
            yield ImageFile(f"images/{split}/{_path(names.image(image.row))}", image.file_name)
    yield File("data.yaml", [_data(labels, splits).encode()])


def _data(labels: ExportedLabels, splits: Splits) -> str:
    """Returns what is trained: without a split, training and validation are the same images."""
    folders = {name: f"images/{name}" for name in splits.names}
    classes = zip(labels.categories().class_index.tolist(), labels.categories().name, strict=True)
    content = {"train": "images/train", "val": "images/train"} | folders | {"names": dict(classes)}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _path(name: str) -> str:
    """Returns a name without folders called images or labels: Ultralytics exchanges the last of them for the other."""
    *folders, last = name.split("/")
    return "/".join([*(f"{folder}_" if folder in _FOLDERS else folder for folder in folders), last])


def _text(labels: ExportedLabels, image: ExportedImage) -> str:
    write = _box if labels.shape == "boxes" else _polygon
    return "".join(f"{one.class_index} {write(labels, image, one)}\n" for one in image.instances)


def _box(_: ExportedLabels, image: ExportedImage, instance: Instance) -> str:
    left, top, right, bottom = instance.box_xyxy
    x, y = (left + right) / 2 / image.width, (top + bottom) / 2 / image.height
    return f"{x:.6f} {y:.6f} {(right - left) / image.width:.6f} {(bottom - top) / image.height:.6f}"


def _polygon(labels: ExportedLabels, image: ExportedImage, instance: Instance) -> str:
    ring = labels.polygons(instance.mask, with_holes=True).joined()
    return " ".join(f"{x / image.width:.6f} {y / image.height:.6f}" for x, y in ring.tolist())
