"""A pilot's page says which of a category's instances it shows, and where the threshold lies among them."""

import numpy as np
import pytest

from tasks.outputs.pictures import DrawnReference
from tasks.outputs.pilot_page import Ranking, ShownInstance, category_section

_PANEL = np.zeros((8, 8, 3), dtype=np.uint8)


def _ranking(*scores: float, num: int, num_kept: int = 2) -> Ranking:
    shown = [ShownInstance(score, score >= 0.5, None, f"at {score}", _PANEL) for score in scores]
    return Ranking(shown, num, num_kept, 0.5)


@pytest.mark.parametrize(
    ("ranking", "said"),
    [
        (_ranking(num=0), "Instances by falling score: none."),
        (_ranking(0.9, 0.5, 0.1, num=3), "all 3. 2 of these are kept. The line is at the threshold, 0.5."),
        (
            _ranking(0.9, 0.1, num=1730, num_kept=1028),
            "2 of 1,730, spread over the scores. 1 of these are kept, 1,028 of all. The line is at the threshold, 0.5.",
        ),
        (_ranking(0.9, num=1), "all 1. 1 of these are kept. All reach the threshold, 0.5."),
        (_ranking(0.4, num=1, num_kept=0), "all 1. 0 of these are kept. None reaches the threshold, 0.5."),
    ],
)
def test_a_row_says_which_of_how_many_instances_it_shows(ranking: Ranking, said: str) -> None:
    assert ranking.describe().endswith(said)


def test_the_line_is_before_the_first_instance_below_the_threshold_and_references_have_their_ids() -> None:
    page = "".join(category_section("a<b", [DrawnReference(_PANEL, 1, "712616")], _ranking(0.9, 0.5, 0.1, num=3)))
    before, _, after = page.partition('<div class="threshold"></div>')
    assert "<h2>a&lt;b</h2>" in before
    assert "<figcaption>712616</figcaption>" in before
    assert ["at 0.9" in before, "at 0.5" in before, "at 0.1" in after] == [True] * 3
    for score in (0.9, 0.1):
        assert 'class="threshold"' not in "".join(category_section("box", [], _ranking(score, num=1)))
