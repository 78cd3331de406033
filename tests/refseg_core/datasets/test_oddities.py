"""An oddity says how often it was found, and one of a kind is singular."""

import pytest

from refseg_core.datasets.oddities import Oddity


@pytest.mark.parametrize(
    ("what", "one", "two"),
    [
        ("images without annotations", "1 image without annotations", "2 images without annotations"),
        ("categories with few", "1 category with few", "2 categories with few"),
        ("boxes of no size", "1 box of no size", "2 boxes of no size"),
        ("of 5 images", "1 of 5 images", "2 of 5 images"),
    ],
)
def test_one_of_a_kind_is_singular(what: str, one: str, two: str) -> None:
    assert [str(Oddity(what, number, ())) for number in (1, 2)] == [one, two]
