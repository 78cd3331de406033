"""Run lengths keep masks exactly, count them right, and read COCO's two other spellings."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refseg_core.masks.rle import (
    Rle,
    boxes_of_masks,
    decode_mask,
    decode_masks,
    encode_masks,
    mask_areas,
    mask_ious,
    rle_boxes,
    rle_from_counts,
    rle_from_polygons,
)
from tests.support.oracles import original
from tests.support.samples import run_lengths

_SIDES = st.integers(1, 12)
_MASKS = st.tuples(st.integers(1, 4), _SIDES, _SIDES).flatmap(lambda shape: arrays(np.bool_, shape))


@settings(max_examples=100)
@given(_MASKS)
def test_masks_come_back_as_they_went(masks: np.ndarray) -> None:
    rles = encode_masks(masks)
    np.testing.assert_array_equal(decode_masks(rles), masks)
    np.testing.assert_array_equal(decode_mask(rles[-1]), masks[-1])
    assert {rle.size for rle in rles} == {masks.shape[1:]}
    assert decode_masks(rles).dtype == decode_mask(rles[0]).dtype == bool
    assert mask_areas(rles).tolist() == masks.sum(axis=(1, 2)).tolist()


@settings(max_examples=50)
@given(_MASKS)
def test_any_memory_layout_encodes_to_the_same_run_lengths(masks: np.ndarray) -> None:
    expected = encode_masks(masks)
    assert encode_masks(np.asfortranarray(masks)) == expected
    assert encode_masks(masks.transpose(0, 2, 1).copy().transpose(0, 2, 1)) == expected
    assert encode_masks(np.repeat(masks, 2, axis=0)[::2]) == expected


@settings(max_examples=50)
@given(_MASKS)
def test_uncompressed_counts_mean_the_same_mask(masks: np.ndarray) -> None:
    for mask, rle in zip(masks, encode_masks(masks), strict=True):
        assert rle_from_counts(run_lengths(mask), *mask.shape) == rle


@settings(max_examples=50)
@given(_MASKS)
def test_overlaps_are_those_of_the_pixels(masks: np.ndarray) -> None:
    rles = encode_masks(masks)
    ious = mask_ious(rles, rles[:2])
    assert ious.shape == (len(rles), len(rles[:2]))
    for row, first in enumerate(masks):
        for column, second in enumerate(masks[:2]):
            union = (first | second).sum()
            assert ious[row, column] == pytest.approx((first & second).sum() / union if union else 0)


def test_over_a_crowd_overlap_is_the_part_within() -> None:
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[0, :, :2] = masks[1, :, 1:] = True
    first, second = encode_masks(masks)
    assert mask_ious([first], [second, second], [True, False]).tolist() == [[4 / 8, 4 / 24]]


def test_masks_of_different_sizes_overlap_nowhere() -> None:
    square, wide = encode_masks(np.ones((1, 3, 3), dtype=bool)), encode_masks(np.ones((1, 3, 4), dtype=bool))
    assert mask_ious(square, wide).tolist() == [[-1]]


@settings(max_examples=50)
@given(_MASKS)
def test_boxes_are_the_inclusive_extents(masks: np.ndarray) -> None:
    assert [tuple(box) for box in boxes_of_masks(masks).tolist()] == [original.extent(mask) for mask in masks]


def test_no_masks_are_no_run_lengths() -> None:
    nothing = np.zeros((0, 4, 5), dtype=bool)
    assert encode_masks(nothing) == []
    assert boxes_of_masks(nothing).shape == (0, 4)
    assert mask_areas([]).shape == (0,)
    assert mask_ious([], encode_masks(np.ones((2, 3, 3), dtype=bool))).shape == (0, 2)


@pytest.mark.parametrize("num_masks", [255, 256, 1000])
def test_areas_are_counted_of_any_number_of_masks(num_masks: int) -> None:
    """pycocotools 2.0.11 by itself fails beyond 255."""
    masks = np.arange(30).reshape(5, 6) < np.arange(num_masks)[:, None, None] % 31
    assert mask_areas(encode_masks(masks)).tolist() == [number % 31 for number in range(num_masks)]


def test_coco_writes_size_as_a_list() -> None:
    assert Rle((3, 4), "abc").to_coco() == {"size": [3, 4], "counts": "abc"}


def test_polygons_of_one_instance_are_joined() -> None:
    squares = [[1, 1, 5, 1, 5, 4, 1, 4], [6, 6, 8, 6, 8, 8, 6, 8]]
    mask = decode_mask(rle_from_polygons(squares, 10, 12))
    expected = np.zeros((10, 12), dtype=bool)
    expected[1:4, 1:5] = expected[6:8, 6:8] = True
    np.testing.assert_array_equal(mask, expected)


def test_polygons_beyond_the_image_are_cut() -> None:
    mask = decode_mask(rle_from_polygons([[-5, -5, 20, -5, 20, 3, -5, 3]], 6, 8))
    np.testing.assert_array_equal(mask, np.arange(6)[:, None].repeat(8, axis=1) < 3)


@given(arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))))
def test_boxes_of_run_lengths_run_along_the_edges_of_their_pixels(masks: npt.NDArray[np.bool_]) -> None:
    boxes = rle_boxes(encode_masks(masks))
    expected = boxes_of_masks(masks) + np.where(masks.any(axis=(1, 2))[:, None], [0, 0, 1, 1], 0)
    assert np.array_equal(boxes, expected)
    assert rle_boxes([]).shape == (0, 4)
