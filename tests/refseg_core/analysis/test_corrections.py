"""What became of labels is told by masks: small losses are none, each annotation belongs to one label at most."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.analysis.corrections import Correction, corrections
from refseg_core.masks.rle import Rle, encode_masks, rle_boxes
from tests.refseg_core.analysis.drawn_decisions import square

_Instances = list[tuple[int, Rle]]


def _compare(before: _Instances, after: _Instances) -> list[Correction]:
    columns = [
        (np.array([one for one, _ in some], dtype=np.int64), [mask for _, mask in some]) for some in (before, after)
    ]
    (categories, masks), (others, other_masks) = columns
    return corrections(masks, categories, other_masks, rle_boxes(other_masks), others)


def test_each_kind_of_change_is_told() -> None:
    before = [(1, square(0, 0)), (1, square(10, 0)), (1, square(0, 10)), (2, square(10, 10))]
    after = [(2, square(10, 10, 8)), (1, square(0, 0)), (2, square(10, 0)), (1, square(5, 5, 4))]
    assert _compare(before, after) == [
        Correction("accept", 0, 1),
        Correction("category", 1, 2),
        Correction("mask", 3, 0),
        Correction("reject", 2, None),
        Correction("add", None, 3),
    ]


def test_a_mask_that_lost_some_pixels_on_its_way_is_unchanged() -> None:
    assert _compare([(1, square(0, 0, 20))], [(1, square(0, 0, 19))]) == [Correction("accept", 0, 0)]


def test_of_two_labels_on_one_place_the_annotation_belongs_to_that_of_its_category() -> None:
    before = [(1, square(0, 0)), (2, square(0, 0))]
    assert _compare(before, [(2, square(0, 0))]) == [Correction("accept", 1, 0), Correction("reject", 0, None)]


_instances = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.builds(square, st.integers(0, 9), st.integers(0, 9), st.integers(3, 11))),
    max_size=6,
)


@given(_instances, _instances)
def test_everything_is_told_once(before: _Instances, after: _Instances) -> None:
    found = _compare(before, after)
    assert sorted(one.label for one in found if one.label is not None) == list(range(len(before)))
    assert sorted(one.annotation for one in found if one.annotation is not None) == list(range(len(after)))


@given(_instances)
def test_what_comes_back_as_it_was_is_unchanged(instances: _Instances) -> None:
    assert {one.verdict for one in _compare(instances, instances)} <= {"accept"}


def _compare_boxes(before: _Instances, after: list[tuple[int, list[float]]]) -> list[Correction]:
    categories, masks = np.array([one for one, _ in before]), [mask for _, mask in before]
    others = np.array([one for one, _ in after])
    boxes = np.array([box for _, box in after], dtype=np.float64).reshape(-1, 4)
    return corrections(masks, categories, [None] * len(after), boxes, others)


def test_boxes_are_compared_with_the_boxes_of_masks() -> None:
    """A triangle is half of its box: by its mask it would have changed."""
    pixels = np.tri(20, dtype=bool)[None]
    triangle = encode_masks(np.pad(pixels, ((0, 0), (0, 10), (0, 10))))[0]
    assert _compare_boxes([(1, triangle)], [(1, [0, 0, 20, 19.5])]) == [Correction("accept", 0, 0)]
    assert _compare_boxes([(1, triangle)], [(2, [0, 0, 20, 20])]) == [Correction("category", 0, 0)]
    assert _compare_boxes([(1, triangle)], [(1, [4, 0, 24, 20])]) == [Correction("mask", 0, 0)]
    assert _compare_boxes([(1, triangle)], [(1, [20, 20, 30, 30])]) == [
        Correction("reject", 0, None),
        Correction("add", None, 0),
    ]


@given(_instances)
def test_boxes_that_come_back_as_they_were_are_unchanged(instances: _Instances) -> None:
    boxes = rle_boxes([mask for _, mask in instances]).tolist()
    back = [(category, box) for (category, _), box in zip(instances, boxes, strict=True)]
    assert {one.verdict for one in _compare_boxes(instances, back)} <= {"accept"}
