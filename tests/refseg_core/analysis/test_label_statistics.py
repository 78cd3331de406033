"""What labels hold is counted shard by shard, and comes to the same as if all were looked at together."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.analysis.label_statistics import LabelStatistics, PromptShare, TopK
from refseg_core.masks.rle import encode_masks
from refseg_core.tables import Detections
from tests.support.oracles.evaluation_cases import detections_of
from tests.support.samples import images_table, labels_of

(_RLE,) = encode_masks(np.eye(4, dtype=bool)[None])
_FOUND = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 20)), max_size=40)


def _detections(found: list[tuple[int, int]], first: int = 0) -> Detections:
    """One detection for each category and score in twentieths, numbered by its image's id."""
    rows = [
        (str(first + index), category, score / 20, (0.0, 0.0, 4.0, 4.0), _RLE)
        for index, (category, score) in enumerate(found)
    ]
    return detections_of(rows)


@settings(max_examples=60)
@given(found=_FOUND, shard=st.integers(1, 7), num=st.integers(1, 4), highest=st.booleans())
def test_extremes_of_a_stream_are_those_of_all_of_it(
    found: list[tuple[int, int]], shard: int, num: int, highest: bool
) -> None:
    extremes = TopK(num, highest=highest)
    for start in range(0, len(found), shard):
        extremes.add(_detections(found[start : start + shard], start))
    sign = -1 if highest else 1
    expected = set()
    for category in (1, 2, 3):
        own = [(sign * score, index) for index, (other, score) in enumerate(found) if other == category]
        expected |= {str(index) for _, index in sorted(own)[:num]}
    assert set(extremes.chosen(1000).image_id) == expected


def test_every_category_is_chosen_from_before_any_is_twice() -> None:
    extremes = TopK(5, highest=True)
    extremes.add(_detections([(1, 20), (1, 19), (1, 18), (2, 3), (3, 2), (3, 1)]))
    assert extremes.chosen(3).category_id.tolist() == [1, 2, 3]
    assert extremes.chosen(4).category_id.tolist() == [1, 1, 2, 3]
    assert len(extremes.chosen(100)) == 6


def test_extremes_hold_a_bounded_number_of_any_stream() -> None:
    extremes = TopK(2, highest=False)
    for score in range(20, 0, -1):
        extremes.add(_detections([(1, score), (2, score)], 2 * score))
        assert len(extremes.chosen(1000)) <= 4
    assert extremes.chosen(4).score.tolist() == pytest.approx([0.05, 0.05, 0.1, 0.1])


def _statistics() -> LabelStatistics:
    return LabelStatistics(lambda labels: labels.score >= 0.5, most_failed=2, most_shown=3)


def test_a_tally_counts_instances_images_and_scores_of_each_category() -> None:
    statistics = _statistics()
    rows = [("a", 1, 0.9), ("a", 1, 0.5), ("b", 1, 0.1), ("b", 7, 0.4)]
    _, labeled = labels_of(images_table("a", "b"))
    statistics.add(
        detections_of([(image, category, score, (0, 0, 4, 4), _RLE) for image, category, score in rows]), labeled
    )
    one, seven = statistics.categories[1], statistics.categories[7]
    assert (one.num_instances, one.num_images, one.num_certain) == (3, 2, 2)
    assert one.mean_score == pytest.approx(0.5)
    assert (seven.num_instances, seven.num_images, seven.num_certain) == (1, 1, 0)
    assert statistics.num_instances == 4
    assert statistics.images == Counter(ok=2)


def test_prompts_are_counted_of_images_that_were_read() -> None:
    _, labeled = labels_of(images_table("a", "b", "c"))
    labeled = labeled.replace(num_prompts=[16, 0, 0], status=["ok", "empty", "unreadable"])
    statistics = _statistics()
    for _ in range(2):
        statistics.add(Detections.empty(), labeled)
    assert statistics.prompts == PromptShare(num_images=4, num_skipped=2, num_prompts=32)
    assert statistics.prompts.describe(64) == "12.5% of the points prompted, 2 of 4 images skipped"


def test_labels_of_versions_that_did_not_count_prompts_are_left_out_of_them() -> None:
    _, labeled = labels_of(images_table("a"))
    statistics = _statistics()
    statistics.add(Detections.empty(), labeled.replace(num_prompts=[None]))
    assert statistics.prompts == PromptShare()
    assert statistics.prompts.describe(64) == "0.0% of the points prompted, 0 of 0 images skipped"


def test_least_certain_are_the_lowest_of_those_that_count_as_certain() -> None:
    statistics = _statistics()
    _, labeled = labels_of(images_table("0"))
    statistics.add(_detections([(1, 2), (1, 10), (1, 11), (1, 20)]), labeled)
    assert statistics.least.chosen(2).score.tolist() == pytest.approx([0.5, 0.55])
    assert statistics.most.chosen(1).score.tolist() == [1.0]


def test_all_failed_images_are_counted_and_the_first_are_named() -> None:
    statistics = _statistics()
    for names in (["a", "b"], ["c"]):
        _, labeled = labels_of(images_table(*names), detections_each=0)
        failed = labeled.replace(
            status=np.array(["unreadable"] * len(names), dtype=object),
            error=np.array([f"{name} is broken" for name in names], dtype=object),
        )
        statistics.add(Detections.empty(), failed)
    assert statistics.images["unreadable"] == 3
    assert statistics.failed == [("a", "a is broken"), ("b", "b is broken")]
