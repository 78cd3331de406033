"""Threads that fetch ahead: in order, and never waited for where nobody asks for the rest."""

from threading import Event, Thread, current_thread

import pytest

from tasks.storage.prefetch import prefetch


def test_results_come_in_order_and_from_other_threads() -> None:
    found = list(prefetch(lambda number: (number, current_thread().name), iter(range(20)), 3))
    assert [number for number, _ in found] == list(range(20))
    assert all(name.startswith("store") for _, name in found)


def test_an_error_comes_in_its_place() -> None:
    numbers = prefetch(lambda number: 6 // number, [3, 2, 0, 1], 2)
    assert [next(numbers), next(numbers)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(numbers)


def test_closing_it_waits_for_nobody_and_begins_nothing_more() -> None:
    """As the garbage collector does, maybe in a thread that others wait for."""
    may_end, begun = Event(), list[int]()

    def wait(number: int) -> int:
        begun.append(number)
        if number > 0:
            may_end.wait(60)
        return number

    numbers = prefetch(wait, range(9), 2)
    assert next(numbers) == 0
    closing = Thread(target=numbers.close)
    closing.start()
    closing.join(30)
    is_closed = not closing.is_alive()
    may_end.set()
    assert is_closed
    assert set(begun) <= {0, 1, 2}
