"""Everything that a Prefect server has of something: it hands out 200 at a time, and refuses to be asked for more."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)

MOST_AT_ONCE = 200


class _Read(Protocol[T_co]):
    def __call__(self, *, limit: int, offset: int) -> Sequence[T_co]: ...


def all_pages(read: _Read[T_co]) -> Iterator[T_co]:
    """All that there is, page by page; `read` has to keep an order that stays."""
    offset = 0
    while page := read(limit=MOST_AT_ONCE, offset=offset):
        yield from page
        if len(page) < MOST_AT_ONCE:
            return
        offset += len(page)
