"""Lists of categories next to annotations: one name per line.

Not here: YAML files, which say more than that (`tasks/datasets/class_names.py`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from refseg_core.settings.numbers import to_int

CLASS_FILES = ("classes.txt", "labels.txt", "obj.names")
"""The names of such files, in the order in which they are tried."""

COLOR_FILE = "labelmap.txt"
"""The name of CVAT's list of categories and their colors, for segmentation masks."""

_NO_CATEGORY = {"__ignore__", "_background_", "__background__", "background"}
_MOST = 255  # of a part of a color


class ColorMap(NamedTuple):
    """The color of each category, in their order, and those of the background, r * 65536 + g * 256 + b.

    A gray value where all three parts are equal, as maps are read.
    """

    of_category: Mapping[str, int]
    backgrounds: frozenset[int]


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


def read_color_map(document: bytes) -> ColorMap:
    """Returns the colors that lines 'name:r,g,b:parts:actions' give; comments are left out.

    Raises ValueError with the line where one has no color, or the name or color of a category that another line has.
    """
    colors: dict[str, int] = {}
    backgrounds = dict[str, int]()
    for number, line in enumerate(read_class_lines(document), start=1):
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        place = f"line {number} ({line!r})"
        color = _color(rest.partition(":")[0], place)
        is_category = name.lower() not in _NO_CATEGORY
        if is_category and name in colors:
            raise ValueError(f"{place} names {name!r} again: expected one line for each category")
        same = [other for other, its in ((colors | backgrounds) if is_category else colors).items() if its == color]
        if same:
            raise ValueError(f"{place} has the color of {same[0]!r}: expected one of its own for each category")
        (colors if is_category else backgrounds)[name] = color
    return ColorMap(colors, frozenset(backgrounds.values()))


def _color(text: str, place: str) -> int:
    try:
        red, green, blue = (to_int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{place} has no color: expected 'name:red,green,blue::'") from error
    if not all(0 <= part <= _MOST for part in (red, green, blue)):
        raise ValueError(f"{place} has a color that there is not: expected three numbers from 0 to {_MOST}")
    return red if red == green == blue else (red << 16) + (green << 8) + blue
