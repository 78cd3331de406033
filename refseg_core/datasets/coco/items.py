"""One list of a COCO file: its items are checked and appended to columns one by one."""

import json
from typing import Any

from refseg_core.errors import Problems

_NOT_AN_OBJECT = "an entry of a list is not an object: write each image, annotation and category as one"


class Columns:
    """The growing columns of one list of the document."""

    NOUN = ""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.num_items = 0

    def add(self, item: Any) -> None:
        """Appends one item of the list, or reports what is wrong with it."""
        self.num_items += 1
        if isinstance(item, dict):
            self._add(item)
        else:
            self.problems.add(_NOT_AN_OBJECT, f"{self._place()} is {json.dumps(item)}")

    def _add(self, item: dict[str, Any]) -> None:
        raise NotImplementedError

    def _place(self) -> str:
        return f"{self.NOUN} number {self.num_items} of the list"
