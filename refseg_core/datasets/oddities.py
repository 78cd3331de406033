"""What is odd about a dataset but not wrong enough to be refused, and what had to be guessed, each told once.

Here: an oddity, and what gathers them while files are read. Not here: oddities that show in the finished tables
(`refseg_core/analysis/dataset_summary.py`), and printing (`flows/oddities.py`).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from refseg_core.errors import shortened

EXAMPLES = 3


@dataclass(frozen=True)
class Oddity:
    """Something odd or guessed: what it is, how often it was found, and the first few.

    `what` follows the count in a message, and says what it means and what to do: "images without annotations".
    """

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """Returns '2 images without annotations', or, as these words are plural, 'images without annotations (1)'."""
        return f"{self.what} (1)" if self.count == 1 else f"{self.count:,} {self.what}"


class OddityCounter:
    """Counts oddities as they are found, with the first few examples of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, what: str, example: str) -> None:
        """Counts one more of a kind."""
        self._counts[what] += 1
        if self._counts[what] <= EXAMPLES:
            self._examples.setdefault(what, []).append(shortened(example))

    def add_all(self, what: str, examples: Iterable[str]) -> None:
        """Counts several of a kind."""
        for example in examples:
            self.add(what, example)

    def found(self) -> tuple[Oddity, ...]:
        """Returns what was counted, in the order in which it was first found."""
        return tuple(Oddity(what, count, tuple(self._examples[what])) for what, count in self._counts.items())
