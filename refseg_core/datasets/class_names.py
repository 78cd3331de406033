"""Lists of categories next to annotations: one name per line.

Not here: YAML files, which say more than that (`tasks/datasets/class_names.py`).
"""

from collections.abc import Sequence

CLASS_FILES = ("classes.txt", "labels.txt", "obj.names")
"""The names of such files, in the order in which they are tried."""

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
