"""Fetches the next few items in threads while the caller works on one."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

Result = TypeVar("Result")


@contextmanager
def threads_of(number: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yields threads for the block of a generator, and waits for them at its end, but not where it is closed.

    Who closes a generator may be the garbage collector, in any thread at any time: even while a thread starts, when
    nobody can wait for another one.
    """
    threads, is_closed = ThreadPoolExecutor(number, thread_name_prefix=name), False
    try:
        yield threads
    except GeneratorExit:
        is_closed = True
        raise
    finally:
        threads.shutdown(wait=not is_closed, cancel_futures=is_closed)


def prefetch(action: Callable[[Any], Result], items: Iterable[Any], at_once: int) -> Generator[Result, None, None]:
    """Yields what the action returns for each item, in order, while threads work on the next `at_once`.

    Where this is closed, what has begun goes on for nobody.
    """
    left = iter(items)
    with threads_of(at_once, "store") as threads:
        waiting = [threads.submit(action, item) for item in islice(left, at_once)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [threads.submit(action, item) for item in islice(left, 1)]
