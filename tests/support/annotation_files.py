"""One small dataset, written in every format that is read: the same instances, as boxes, polygons or masks.

Sides are powers of two, so that fractions of them are exact.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt
import yaml

from refseg_core.masks.rle import Masks, decode_mask, encode_masks, rle_from_polygons
from tests.support.samples import png

HEIGHT, WIDTH = 64, 128
IMAGES = ("a.png", "sub/b.png", "c.png")  # the last has no instance
CATEGORIES = ("bar", "box")

Kind = Literal["boxes", "polygons", "masks"]


class Instance(NamedTuple):
    """An instance: its image, category and outline [x0, y0, x1, y1, ...], pixels."""

    image: str
    category: str
    polygon: Sequence[float]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x, y, width, height)."""
        left, top = min(self.polygon[::2]), min(self.polygon[1::2])
        return left, top, max(self.polygon[::2]) - left, max(self.polygon[1::2]) - top

    @property
    def mask(self) -> Masks:
        """bool [H, W]."""
        return decode_mask(rle_from_polygons([self.polygon], HEIGHT, WIDTH))


INSTANCES = (
    Instance("a.png", "bar", (8, 4, 40, 4, 40, 20, 8, 20)),
    Instance("a.png", "box", (64, 8, 100, 16, 72, 48)),
    Instance("a.png", "box", (100, 40, 120, 40, 120, 60, 100, 60)),
    Instance("sub/b.png", "bar", (0, 0, 128, 0, 128, 10, 0, 10)),
    Instance("sub/b.png", "box", (20, 20, 60, 20, 60, 60)),
)
"""By image in the order of names, then by category."""


def pixels() -> npt.NDArray[np.uint8]:
    """The pixels of every image, uint8 RGB [H, W, 3]."""
    return np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)


def write_all_images(folder: Path, names: Iterable[str] = IMAGES) -> None:
    """Writes the images."""
    for name in names:
        _write(folder / name, png(pixels()))


def coco_document(
    instances: Sequence[Instance], kind: Kind, *, first_id: int = 1, known_sizes: Iterable[str] = IMAGES
) -> bytes:
    """The dataset as COCO json, whose image ids are the file names."""
    annotations = []
    for number, one in enumerate(instances):
        annotation: dict[str, Any] = {"id": number, "image_id": one.image}
        annotation["category_id"] = CATEGORIES.index(one.category) + first_id
        if kind != "masks":
            annotation["bbox"] = one.box
        if kind == "polygons":
            annotation["segmentation"] = [one.polygon]
        if kind == "masks":
            annotation["segmentation"] = encode_masks(one.mask[None])[0].to_coco()
        annotations.append(annotation)
    sizes = {name: {"height": HEIGHT, "width": WIDTH} for name in known_sizes}
    document = {
        "images": [{"id": name, "file_name": name, **sizes.get(name, {})} for name in sorted(IMAGES)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=first_id)],
    }
    return json.dumps(document).encode()


def write_voc(folder: Path, instances: Sequence[Instance], kind: Kind) -> None:
    """PASCAL VOC; polygons as Roboflow writes them."""
    for image in IMAGES:
        objects = "".join(_voc_object(one, kind) for one in instances if one.image == image)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        name = Path(image).name
        document = f"<annotation>\n<filename>{name}</filename>{size}{objects}</annotation>"
        _write((folder / image).with_suffix(".xml"), document.encode())


def _voc_object(one: Instance, kind: Kind) -> str:
    x, y, width, height = one.box
    corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
    box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
    polygon = ""
    if kind == "polygons":
        points = [f"<{'xy'[i % 2]}{i // 2 + 1}>{v}</{'xy'[i % 2]}{i // 2 + 1}>" for i, v in enumerate(one.polygon)]
        polygon = f"<polygon>{''.join(points)}</polygon>"
    return f"<object><name> {escape(one.category)}\n</name><bndbox>{box}</bndbox>{polygon}</object>"


def write_yolo(folder: Path, instances: Sequence[Instance], kind: Kind) -> None:
    """YOLO in folder/labels, with data.yaml above it; an image without instances has no file."""
    _write(folder / "data.yaml", yaml.safe_dump({"nc": 2, "names": list(CATEGORIES)}).encode())
    lines: dict[str, list[str]] = {}
    for one in instances:
        x, y, width, height = one.box
        values = list(one.polygon)
        if kind == "boxes":
            values = [x + width / 2, y + height / 2, width, height]
        fractions = [value / (HEIGHT if axis % 2 else WIDTH) for axis, value in enumerate(values)]
        line = " ".join(map(str, [CATEGORIES.index(one.category), *fractions]))
        lines.setdefault(one.image, []).append(line)
    for image, own in lines.items():
        _write((folder / "labels" / image).with_suffix(".txt"), ("\n".join(own) + "\n").encode())


def write_labelme(folder: Path, instances: Sequence[Instance], kind: Kind) -> None:
    """labelme."""
    for image in IMAGES:
        document = {
            "version": "5.4.1",
            "flags": {},
            "shapes": [_labelme_shape(one, kind) for one in instances if one.image == image],
            "imagePath": f"..\\pictures\\{Path(image).name}",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        _write((folder / image).with_suffix(".json"), json.dumps(document).encode())


def _labelme_shape(one: Instance, kind: Kind) -> dict[str, Any]:
    x, y, width, height = one.box
    corners = [[x, y], [x + width, y + height]]
    shape = {"label": one.category, "group_id": None, "flags": {}}
    if kind == "boxes":
        return {**shape, "shape_type": "rectangle", "points": corners}
    if kind == "polygons":
        points = [list(point) for point in zip(one.polygon[::2], one.polygon[1::2], strict=True)]
        return {**shape, "shape_type": "polygon", "points": points}
    top, left, part = _part(one.mask)
    last = [left + part.shape[1] - 1, top + part.shape[0] - 1]
    encoded = base64.b64encode(png(part.astype(np.uint8) * 255)).decode()
    return {**shape, "shape_type": "mask", "points": [[left, top], last], "mask": encoded}


def write_cvat(folder: Path, instances: Sequence[Instance], kind: Kind) -> None:
    """CVAT for images 1.1, as folder/annotations.xml."""
    labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in CATEGORIES)
    images = ""
    for number, image in enumerate(sorted(IMAGES)):
        shapes = "".join(_cvat_shape(one, kind) for one in instances if one.image == image)
        size = f'width="{WIDTH}" height="{HEIGHT}"'
        images += f'<image id="{number}" name={quoteattr(image)} {size}>{shapes}</image>\n'
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    head = "<?xml version='1.0' encoding='utf-8'?>\n"
    document = f"{head}<annotations><version>1.1</version>{meta}{images}</annotations>"
    _write(folder / "annotations.xml", document.encode())


def _cvat_shape(one: Instance, kind: Kind) -> str:
    x, y, width, height = one.box
    common = f'label={quoteattr(one.category)} source="manual" occluded="0" z_order="0"'
    if kind == "boxes":
        return f'<box {common} xtl="{x}" ytl="{y}" xbr="{x + width}" ybr="{y + height}"></box>'
    if kind == "polygons":
        points = ";".join(f"{x},{y}" for x, y in zip(one.polygon[::2], one.polygon[1::2], strict=True))
        return f'<polygon {common} points="{points}"></polygon>'
    top, left, part = _part(one.mask)
    lengths, current = [0], False
    for pixel in part.ravel().tolist():
        if pixel != current:
            lengths.append(0)
            current = pixel
        lengths[-1] += 1
    place = f'left="{left}" top="{top}" width="{part.shape[1]}" height="{part.shape[0]}"'
    return f'<mask {common} rle="{", ".join(map(str, lengths))}" {place}></mask>'


def write_masks(folder: Path, instances: Sequence[Instance], kind: Kind) -> None:
    """<category>/<image>/<number>.png, or without the number where there is one instance."""
    assert kind == "masks"
    wanted = Counter((one.image, one.category) for one in instances)
    written: Counter[tuple[str, str]] = Counter()
    for one in instances:
        key, stem = (one.image, one.category), Path(one.image).with_suffix("")
        name = f"{stem}.png" if wanted[key] == 1 else f"{stem}/{written[key]:03}.png"
        written[key] += 1
        _write(folder / one.category / name, png(one.mask.astype(np.uint8) * 255))


def write_maps(folder: Path, instances: Sequence[Instance], kind: Kind) -> None:
    """One map for each image, with a list of classes, void around everything."""
    assert kind == "masks"
    _write(folder / "classes.txt", "\n".join(["_background_", *CATEGORIES, ""]).encode())
    for image in IMAGES:
        values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        values[-1] = 255
        for one in instances:
            if one.image == image:
                values[one.mask] = CATEGORIES.index(one.category) + 1
        _write((folder / image).with_suffix(".png"), png(values))


WRITERS: dict[str, Callable[[Path, Sequence[Instance], Kind], None]] = {
    "voc": write_voc,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "masks": write_masks,
}
"""What writes the files of a format, by its name."""


def _part(mask: Masks) -> tuple[int, int, Masks]:
    rows, columns = np.nonzero(mask)
    part = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return int(rows.min()), int(columns.min()), part


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
