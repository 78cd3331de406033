"""What tests counted, for people to read at the end of a run: how many faults were injected, images lost, and the like.

    count("images lost", 0)  # zero is worth telling, too

Numbers of one name are added up, over all tests and workers; `tests/conftest.py` shows them.
"""

from collections import Counter

counted: Counter[str] = Counter()


def count(name: str, number: int = 1) -> None:
    """Adds to what is shown under the name."""
    counted[name] += number
