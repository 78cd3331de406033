"""Numbers as people and files write them, read strictly.

Python takes more for a number than is meant by one: 1_0 for 10, and digits of other scripts. Not here: numbers of json
(`refseg_core/datasets/values/numbers.py`), and numbers with a unit (`areas.py`).
"""


def to_float(text: str) -> float:
    """Returns the number that a text is, which may be infinite or none. Raises ValueError for anything else."""
    return float(_plain(text))


def to_int(text: str) -> int:
    """Returns the whole number that a text is. Raises ValueError for anything else."""
    return int(_plain(text))


def _plain(text: str) -> str:
    if "_" in text or not text.isascii():
        raise ValueError(f"{text!r} is no number")
    return text
