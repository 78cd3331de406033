"""Whoever listens hears what steps report, and only while listening."""

import pytest

from tasks.runtime.progress import Progress, listening, report


def test_listeners_hear_reports_in_order_within_their_block_only() -> None:
    heard: list[Progress] = []
    report("label", advanced=9)
    with listening(heard.append):
        report("label", total=2)
        report("label", advanced=1)
    report("label", advanced=9)
    assert heard == [Progress("label", 0, 2), Progress("label", 1, None)]


def test_several_listeners_hear_the_same() -> None:
    outer: list[Progress] = []
    inner: list[Progress] = []
    with listening(outer.append):
        with listening(inner.append):
            report("a", advanced=1)
        report("b", advanced=1)
    assert [progress.step for progress in outer] == ["a", "b"]
    assert [progress.step for progress in inner] == ["a"]


def test_a_listener_leaves_also_when_its_block_fails() -> None:
    heard: list[Progress] = []
    with pytest.raises(RuntimeError, match="stop"), listening(heard.append):
        raise RuntimeError("stop")
    report("label", advanced=1)
    assert heard == []


def test_without_listeners_reports_go_nowhere() -> None:
    report("label", advanced=1, total=3)
