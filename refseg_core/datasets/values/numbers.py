"""Numbers that files of annotations hold as such or as text, read strictly.

Python takes true for 1, too. Not here: numbers that are text alone (`refseg_core/settings/numbers.py`), and numbers and
ids of COCO json (`refseg_core/datasets/coco/json_values.py`).
"""

from typing import Any

from refseg_core.datasets.coco.json_values import is_finite
from refseg_core.settings.numbers import to_float


def number_of(value: Any) -> float:
    """Returns a finite number, which json may hold as text. Raises ValueError for anything else."""
    number = to_float(value) if isinstance(value, str) else value
    if not is_finite(number):
        raise ValueError(f"{value!r} is no number")
    return float(number)
