"""What was found out of files is kept while it is asked for, and nothing that failed is."""

from collections.abc import Callable

import pytest

from tasks.storage.recent import Recent


def test_a_finding_is_made_once_and_the_one_that_was_not_asked_for_longest_goes_first() -> None:
    recent, found = Recent[str](2), list[str]()

    def finding(name: str) -> Callable[[], str]:
        return lambda: (found.append(name), name)[1]

    for name in "abacab":  # b was not asked for longest when c came, and a when b came again
        assert recent.get(name, finding(name)) == name
    assert "".join(found) == "abcb"


def test_nothing_is_kept_of_what_fails() -> None:
    recent = Recent[int](2)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: 3) == 3
