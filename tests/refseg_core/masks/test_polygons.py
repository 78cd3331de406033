"""Polygons of masks: few corners, the stated likeness is the measured one, and one polygon can hold it all."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from refseg_core.masks.contours import parts_of_mask
from refseg_core.masks.outlines import mask_part
from refseg_core.masks.polygons import Polygons, polygons_of
from refseg_core.masks.rle import decode_mask, encode_masks, mask_ious, rle_from_polygons

Mask = npt.NDArray[np.bool_]

_MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[3]
)


def _polygons(mask: Mask, tolerance: float, *, with_holes: bool = True) -> Polygons:
    return polygons_of(encode_masks(mask[None])[0], tolerance=tolerance, with_holes=with_holes)


def _drawn(polygons: list[list[float]], mask: Mask) -> Mask:
    return decode_mask(rle_from_polygons(polygons, *mask.shape))


def _blob(height: int, width: int, seed: int = 0) -> Mask:
    """A smooth object of one part, with a hole."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), height / 12)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2) / height
    return ((distance < 0.35 + noise / noise.std() * 0.02) & (distance > 0.1)).astype(bool)


@settings(max_examples=100)
@given(_MASKS)
def test_without_tolerance_one_polygon_is_exactly_the_mask_with_its_parts_and_holes(mask: Mask) -> None:
    mask[0, 0] = True
    found = _polygons(mask, 0)
    assert found.iou == 1
    assert np.array_equal(_drawn([found.joined().ravel().tolist()], mask), mask)


@settings(max_examples=100)
@given(_MASKS, st.floats(0.1, 3))
def test_the_stated_likeness_is_that_of_the_rasterized_polygons(mask: Mask, tolerance: float) -> None:
    mask[0, 0] = True
    for with_holes in (True, False):
        found = _polygons(mask, tolerance, with_holes=with_holes)
        drawn = _drawn([found.joined().ravel().tolist()] if found.holes else found.flat(), mask)
        assert found.iou == pytest.approx((drawn & mask).sum() / (drawn | mask).sum())
        exact = _polygons(mask, 0, with_holes=with_holes)
        whole = encode_masks(_drawn(exact.flat(), mask)[None])
        if not with_holes:
            assert mask_ious(encode_masks(drawn[None]), whole)[0, 0] >= 0.95


def test_a_part_in_a_hole_of_another_belongs_to_the_mask() -> None:
    target = np.ones((9, 9), dtype=bool)
    target[1:8, 1:8] = False
    target[3:6, 3:6] = True
    found = _polygons(target, 0)
    assert found.iou == 1
    assert np.array_equal(_drawn([found.joined().ravel().tolist()], target), target)


def test_a_smooth_object_has_few_corners_and_is_nearly_itself() -> None:
    mask = _blob(200, 300)
    exact, simple = _polygons(mask, 0), _polygons(mask, 1)
    assert len(simple.joined()) * 5 < len(exact.joined())
    assert simple.iou > 0.97
    assert len(simple.outer) == len(simple.holes) == 1


def test_corners_that_are_left_out_lie_within_the_tolerance() -> None:
    mask = _blob(200, 300, seed=3)
    for exact, simple in zip(_polygons(mask, 0).outer, _polygons(mask, 2).outer, strict=True):
        first, last = simple, np.roll(simple, -1, axis=0)
        steps = (last - first).astype(float)
        along = np.einsum("csx,sx->cs", exact[:, None] - first, steps) / (steps**2).sum(axis=1)
        nearest = first + np.clip(along, 0, 1)[..., None] * steps
        assert np.linalg.norm(exact[:, None] - nearest, axis=2).min(axis=1).max() <= 2


def test_a_tiny_mask_keeps_its_corners() -> None:
    plus = np.zeros((5, 5), dtype=bool)
    plus[1:4, 2] = plus[2, 1:4] = True
    found = _polygons(plus, 2)
    assert np.array_equal(_drawn(found.flat(), plus), plus)
    assert found.iou == 1


def test_a_hole_is_filled_where_a_format_has_none_and_the_likeness_says_so() -> None:
    ring = np.ones((10, 10), dtype=bool)
    ring[4:6, 3:8] = False
    found = _polygons(ring, 1, with_holes=False)
    assert not found.holes
    assert found.iou == pytest.approx(0.9)


def test_polygons_lie_where_the_mask_does() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[30:35, 50:58] = True
    assert _polygons(mask, 1).flat() == [[50, 30, 58, 30, 58, 35, 50, 35]]


@settings(max_examples=100)
@given(_MASKS, st.integers(0, 3), st.integers(0, 3))
def test_a_part_is_what_the_whole_mask_holds_there(mask: Mask, below: int, right: int) -> None:
    mask = np.pad(mask, ((below, 0), (right, 0)))
    part, left, top = mask_part(encode_masks(mask[None])[0])
    assert np.array_equal(part, mask[top : top + part.shape[0], left : left + part.shape[1]])
    assert part.sum() == mask.sum()
    if mask.any():
        assert all(side.any() for side in (part[0], part[-1], part[:, 0], part[:, -1]))
        assert parts_of_mask(part).outer
