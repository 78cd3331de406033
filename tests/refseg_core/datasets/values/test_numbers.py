"""Only what people mean by a number is one."""

from typing import Any

import pytest

from refseg_core.datasets.values.numbers import number_of
from refseg_core.settings.numbers import to_float, to_int


def test_numbers_are_read_with_spaces_around_them() -> None:
    assert (to_int(" 12"), to_int("-3"), to_float("+.5 "), to_float("1e-3")) == (12, -3, 0.5, 0.001)
    assert (number_of("2.5"), number_of(3), number_of(2.5)) == (2.5, 3.0, 2.5)


@pytest.mark.parametrize("text", ["1_0", "\u0661", "\uff11", "1 0", "1,5", "0x10", ""])
def test_what_python_alone_takes_for_a_number_is_none(text: str) -> None:
    for read in (to_int, to_float, number_of):
        with pytest.raises(ValueError, match=r"is no number|invalid literal|could not convert"):
            read(text)


@pytest.mark.parametrize("value", [True, None, [1], "nan", "1e999", float("inf")])
def test_a_value_that_is_no_finite_number_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="is no number"):
        number_of(value)
