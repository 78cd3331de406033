"""Numbers as files write them, read strictly.

Python takes more for a number than files mean by one: 1_0 for 10, digits of other scripts, and true for 1. Not here:
numbers and ids of COCO json (`refseg_core/datasets/coco/json_values.py`).
"""

from typing import Any

from refseg_core.datasets.coco.json_values import is_finite


def to_float(text: str) -> float:
    """Returns the number that a text is, which may be infinite or none. Raises ValueError for anything else."""
    return float(_plain(text))


def to_int(text: str) -> int:
    """Returns the whole number that a text is. Raises ValueError for anything else."""
    return int(_plain(text))


def number_of(value: Any) -> float:
    """Returns a finite number, which json may hold as text. Raises ValueError for anything else."""
    number = to_float(value) if isinstance(value, str) else value
    if not is_finite(number):
        raise ValueError(f"{value!r} is no number")
    return float(number)


def _plain(text: str) -> str:
    if "_" in text or not text.isascii():
        raise ValueError(f"{text!r} is no number")
    return text
