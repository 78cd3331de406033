"""Labels as PASCAL VOC has them: an XML file for each image, and lists of images.

    JPEGImages/a.jpg    Annotations/a.xml    ImageSets/Main/train.txt    labelmap.txt

The last lists the categories, as CVAT and Datumaro want it where they are other than VOC's own.

Boxes count pixels from 1, the last one included. Unless only boxes are wanted, an object also has the polygon of its
mask, as Roboflow writes it, which other readers pass over; several parts and holes are one polygon by bridges without
width.
"""

from collections.abc import Iterator
from posixpath import basename, dirname

from tasks.outputs.exports.exported import ExportedImage, ExportedLabels, Instance
from tasks.outputs.exports.writing import File, ImageFile, ImageNames, Splits, xml_text


def write_voc(labels: ExportedLabels) -> Iterator[File | ImageFile]:
    """Yields the files of the folder."""
    has_images = labels.options.images != "none"
    names = ImageNames(labels.images, may_rename=has_images)
    splits = Splits(len(labels.images), labels.options.split, labels.options.seed)
    listed: dict[str, list[str]] = {name: [] for name in splits.names}
    for image in labels.each_image():
        name, stem = names.image(image.row), names.stem(image.row)
        listed[splits.name_of(image.row)].append(stem)
        yield File(f"Annotations/{stem}.xml", [_annotation(labels, image, name).encode()])
        if has_images:
            yield ImageFile(f"JPEGImages/{name}", image.file_name)
    for split, stems in listed.items():
        yield File(f"ImageSets/Main/{split}.txt", [f"{stem}\n".encode() for stem in stems])
    yield File("labelmap.txt", [_label_map(labels).encode()])


def _label_map(labels: ExportedLabels) -> str:
    lines = [f"{name}:::" for name in ("background", *labels.categories().name)]
    return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])


def _annotation(labels: ExportedLabels, image: ExportedImage, name: str) -> str:
    folder = "/".join(part for part in ("JPEGImages", dirname(name)) if part)
    objects = "".join(_object(labels, one) for one in image.instances)
    return (
        f"<annotation>\n  <folder>{xml_text(folder)}</folder>\n  <filename>{xml_text(basename(name))}</filename>\n"
        f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>\n"
        f"  <segmented>{int(labels.shape != 'boxes')}</segmented>\n{objects}</annotation>\n"
    )


def _object(labels: ExportedLabels, instance: Instance) -> str:
    left, top, right, bottom = (round(side) for side in instance.box_xyxy)
    box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return (
        f"  <object>\n    <name>{xml_text(instance.category_name)}</name>\n    <pose>Unspecified</pose>\n"
        "    <truncated>0</truncated>\n    <difficult>0</difficult>\n"
        f"    <bndbox>{box}</bndbox>\n{_polygon(labels, instance)}"
        f"    <score>{instance.score:.6f}</score>\n    <instance>{instance.instance_id}</instance>\n  </object>\n"
    )


def _polygon(labels: ExportedLabels, instance: Instance) -> str:
    if labels.shape == "boxes":
        return ""
    ring = labels.polygons(instance.mask, with_holes=True).joined().tolist()
    points = "".join(f"<x{number}>{x}</x{number}><y{number}>{y}</y{number}>" for number, (x, y) in enumerate(ring, 1))
    return f"    <polygon>{points}</polygon>\n"
