"""What was found out of files lately, kept by whatever says that they are the same: asked for once in a process."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Recent(Generic[Found]):
    """The findings that were asked for last, `most` at a time; several threads may ask."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, Found] = OrderedDict()
        self._changing = Lock()

    def get(self, key: Hashable, find: Callable[[], Found]) -> Found:
        """Returns what is known by the key, or else is found. What `find` raises is raised, and nothing kept."""
        with self._changing:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = find()
        with self._changing:
            self._known[key] = found
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return found
