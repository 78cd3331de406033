"""Single values of a COCO file, read strictly: `true` is no number, and 2.5 is no id.

A value that is not what was expected is None or False, and the caller reports it with its place.
"""

import json
import re
import sys
from typing import Any

from refseg_core.datasets.image_files.names import is_unicode

MAX_SIDE = 200_000  # px; pycocotools walks along polygons in fifths of a pixel
MAX_PIXELS = 1 << 31  # run lengths have 32 bits
_INT64 = range(-(1 << 63), 1 << 63)
_INTEGER = re.compile(r"-?[0-9]{1,19}")


def id_text(value: Any) -> str | None:
    """Returns the id as text, or None for anything but a whole number or a non-empty text."""
    if isinstance(value, str):
        return value if value and is_unicode(value) else None
    number = whole_number(value)
    return None if number is None else str(number)


def id_number(value: Any) -> int | None:
    """Returns the id as a number of 64 bits, or None for anything but a whole number or its digits."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    number = whole_number(value)
    return number if number is not None and number in _INT64 else None


def whole_number(value: Any) -> int | None:
    """Returns an integer, also one that is written as a float, or None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def is_finite(value: Any) -> bool:
    """Returns whether the value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_image_size(height: int, width: int) -> bool:
    """Returns whether an image may have this many rows and columns."""
    return 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS


def shown(item: dict[str, Any], key: str) -> str:
    """Returns a key with its value, or its absence, as a message says it."""
    return f"{key} {json.dumps(item[key])}" if key in item else f"no {key}"
