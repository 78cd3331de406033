"""Fetches the next few items in threads while the caller works on one."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Result = TypeVar("Result")


def prefetch(action: Callable[[Any], Result], items: Iterable[Any], at_once: int) -> Generator[Result, None, None]:
    """Yields what the action returns for each item, in order, while threads work on the next `at_once`."""
    left = iter(items)
    with ThreadPoolExecutor(at_once, thread_name_prefix="store") as threads:
        waiting = [threads.submit(action, item) for item in islice(left, at_once)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [threads.submit(action, item) for item in islice(left, 1)]
