"""Lists of categories next to annotations: one name per line.

Not here: YAML files, which say more than that (`tasks/datasets/class_names.py`).
"""

from collections.abc import Mapping, Sequence

CLASS_FILES = ("classes.txt", "labels.txt", "obj.names")
"""The names of such files, in the order in which they are tried."""

COLOR_FILE = "labelmap.txt"
"""The name of CVAT's list of categories and their colors, for segmentation masks."""

_NO_CATEGORY = {"__ignore__", "_background_", "__background__", "background"}


def read_class_names(document: bytes) -> Sequence[str]:
    """Returns the names as `read_class_lines` does, without those at the front that name no category.

    labelme and semantic maps have such: `__ignore__`, `_background_`, `background`. Not for YOLO, where the number of a
    line is that of a class. Raises UnicodeDecodeError where it is no text.
    """
    lines = read_class_lines(document)
    first = next((number for number, line in enumerate(lines) if line.lower() not in _NO_CATEGORY), len(lines))
    return lines[first:]


def read_class_lines(document: bytes) -> Sequence[str]:
    """Returns the names, one per line, without surrounding spaces and without empty lines at the end.

    Raises UnicodeDecodeError where it is no text.
    """
    lines = [line.strip() for line in document.decode("utf-8-sig").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_color_map(document: bytes) -> Mapping[str, int]:
    """Returns the color of each category, r * 65536 + g * 256 + b, of lines 'name:r,g,b:parts:actions', in their order.

    A gray value where all three are equal, as maps are read; comments and the background are left out. Raises
    ValueError where a line has no color.
    """
    lines = [line for line in read_class_lines(document) if line and not line.startswith("#")]
    colors = {}
    for line in lines:
        name, _, rest = line.partition(":")
        red, green, blue = (int(part) for part in rest.partition(":")[0].split(","))
        if name.lower() not in _NO_CATEGORY:
            colors[name] = red if red == green == blue else (red << 16) + (green << 8) + blue
    return colors
