"""Labels as 'CVAT for images 1.1', one XML file to upload as annotations of a task with the same images.

An instance of several parts is several polygons of one group. One with holes, which polygons cannot have, is a mask.
The score and the id of an instance are attributes of its label, which the task's labels need too.
"""

from collections.abc import Iterator

from refseg_core.masks.outlines import mask_part
from refseg_core.masks.rle import encode_masks, run_lengths
from tasks.outputs.exports.exported import ExportedImage, ExportedLabels, Instance
from tasks.outputs.exports.writing import xml_text

_ATTRIBUTES = ("score", "instance_id")


def write_cvat(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the file in pieces."""
    yield f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{_meta(labels)}'.encode()
    for number, image in enumerate(labels.each_image()):
        name, shapes = xml_text(image.file_name), "".join(_shapes(labels, image))
        size = f'width="{image.width}" height="{image.height}"'
        yield f'  <image id="{number}" name="{name}" {size}>\n{shapes}  </image>\n'.encode()
    yield b"</annotations>\n"


def _meta(labels: ExportedLabels) -> str:
    attribute = "".join(
        f"<attribute><name>{name}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for name in _ATTRIBUTES
    )
    found = "".join(
        f"        <label><name>{xml_text(name)}</name><type>any</type><attributes>{attribute}</attributes></label>\n"
        for name in labels.categories().name
    )
    task = f"<name>refseg {labels.run.key}</name><size>{len(labels.images)}</size><mode>annotation</mode>"
    return f"  <meta>\n    <task>{task}\n      <labels>\n{found}      </labels>\n    </task>\n  </meta>\n"


def _shapes(labels: ExportedLabels, image: ExportedImage) -> Iterator[str]:
    for group, instance in enumerate(image.instances, start=1):
        if labels.shape == "boxes":
            sides = zip(("xtl", "ytl", "xbr", "ybr"), instance.box_xyxy, strict=True)
            yield _element(instance, "box", " ".join(f'{name}="{side:.2f}"' for name, side in sides))
            continue
        found = labels.polygons(instance.mask, with_holes=True) if labels.shape == "polygons" else None
        if found is None or found.holes:
            yield _mask(instance)
            continue
        grouped = f' group_id="{group}"' if len(found.outer) > 1 else ""
        for ring in found.outer:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist())
            yield _element(instance, "polygon", f'points="{points}"{grouped}')


def _mask(instance: Instance) -> str:
    """Run lengths of the mask's extent, row by row, beginning with background."""
    part, left, top = mask_part(instance.mask)
    (by_rows,) = encode_masks(part.T[None])  # whose columns are the part's rows
    runs = ", ".join(map(str, run_lengths(by_rows.counts).tolist()))
    place = f'left="{left}" top="{top}" width="{part.shape[1]}" height="{part.shape[0]}"'
    return _element(instance, "mask", f'rle="{runs}" {place}')


def _element(instance: Instance, tag: str, geometry: str) -> str:
    values = zip(_ATTRIBUTES, (f"{instance.score:.6f}", instance.instance_id), strict=True)
    attributes = "".join(f'<attribute name="{name}">{value}</attribute>' for name, value in values)
    label = xml_text(instance.category_name)
    return f'    <{tag} label="{label}" source="auto" occluded="0" {geometry} z_order="0">{attributes}</{tag}>\n'
