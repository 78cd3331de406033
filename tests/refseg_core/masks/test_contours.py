"""Outlines are those of OpenCV: what is one part, which are outer, where they turn, and what is too small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refseg_core.masks.contours import outer_polygons
from refseg_core.masks.rle import decode_mask, rle_from_polygons

_MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(np.bool_, shape))


def _mask(*lines: str) -> np.ndarray:
    return np.array([[character == "#" for character in line] for line in lines])


def _parts(mask: np.ndarray) -> int:
    """How many 8-connected parts do not lie within another, counted by flooding."""
    outside = _flood(~np.pad(mask, 1), (0, 0), diagonally=False)
    left, count = ~outside, 0
    while left.any():
        count += 1
        left &= ~_flood(left, tuple(np.argwhere(left)[0]), diagonally=True)
    return count


def _flood(free: np.ndarray, start: tuple[int, ...], *, diagonally: bool) -> np.ndarray:
    reached, waiting = np.zeros_like(free), [start]
    while waiting:
        y, x = waiting.pop()
        if 0 <= y < free.shape[0] and 0 <= x < free.shape[1] and free[y, x] and not reached[y, x]:
            reached[y, x] = True
            steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if diagonally or 0 in (dy, dx)]
            waiting += [(y + dy, x + dx) for dy, dx in steps]
    return reached


@pytest.mark.parametrize(
    ("lines", "polygons"),
    [
        (["....", "...."], []),
        (["....", "..#."], [[2, 1]]),
        ([".###", "...."], [[1, 0, 3, 0]]),
        (["#..", ".#.", "..#"], [[0, 0, 2, 2]]),
        ([".#", "#.", "#."], [[1, 0, 0, 1, 0, 2, 0, 1]]),
        (["##", "#."], [[0, 0, 0, 1, 1, 0]]),
        (["##", "##"], [[0, 0, 0, 1, 1, 1, 1, 0]]),
        (["####", "####", "####"], [[0, 0, 0, 2, 3, 2, 3, 0]]),
        ([".#.", "###", ".#."], [[1, 0, 0, 1, 1, 2, 2, 1]]),
        (["#...", "#...", "####"], [[0, 0, 0, 2, 3, 2, 1, 2, 0, 1]]),
    ],
    ids=[
        *("nothing", "a pixel", "a line", "a diagonal line", "a bent line", "a triangle", "a square", "a rectangle"),
        *("a diamond", "two legs"),
    ],
)
def test_outlines_turn_at_corners_through_the_centers_of_pixels(lines: list[str], polygons: list[list[int]]) -> None:
    assert outer_polygons(_mask(*lines)) == polygons


def test_parts_that_touch_at_a_point_are_one_and_others_are_not() -> None:
    assert outer_polygons(_mask("#..", ".#.")) == [[0, 0, 1, 1]]
    assert outer_polygons(_mask("#.#", "...", "#..")) == [[0, 0], [2, 0], [0, 2]]


def test_holes_and_what_lies_in_them_have_no_outline() -> None:
    ring = _mask("#####", "#...#", "#.#.#", "#...#", "#####")
    assert outer_polygons(ring) == [[0, 0, 0, 4, 4, 4, 4, 0]]


def test_what_lies_in_a_bay_has_one_even_between_thin_arms() -> None:
    bay = _mask("#...#", "#.#.#", "#...#", "#####")
    assert [2, 1] in outer_polygons(bay)
    assert len(outer_polygons(bay)) == 2
    thick = _mask("##...##", "##.#.##", "##...##", "#######")
    assert [3, 1] in outer_polygons(thick)


def test_the_border_of_the_image_is_no_obstacle() -> None:
    assert outer_polygons(np.ones((3, 5), dtype=bool)) == [[0, 0, 0, 2, 4, 2, 4, 0]]
    assert outer_polygons(np.ones((1, 1), dtype=bool)) == [[0, 0]]
    assert outer_polygons(np.zeros((0, 4), dtype=bool)) == []


@settings(max_examples=100)
@given(_MASKS)
def test_every_outer_part_has_one_outline_and_its_points_are_pixels_of_the_mask(mask: np.ndarray) -> None:
    polygons = outer_polygons(mask)
    assert len(polygons) == _parts(mask)
    for x, y in (point for polygon in polygons for point in np.reshape(polygon, (-1, 2)).tolist()):
        assert mask[y, x]


@settings(max_examples=100)
@given(_MASKS)
def test_filling_the_holes_changes_no_outline(mask: np.ndarray) -> None:
    filled = ~_flood(~np.pad(mask, 1), (0, 0), diagonally=False)[1:-1, 1:-1]
    assert outer_polygons(filled) == outer_polygons(mask)


@settings(max_examples=50)
@given(_MASKS)
def test_any_memory_layout_has_the_same_outlines(mask: np.ndarray) -> None:
    assert outer_polygons(np.asfortranarray(mask)) == outer_polygons(mask)
    assert outer_polygons(np.repeat(mask, 2, axis=0)[::2]) == outer_polygons(mask)


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 4))
def test_a_ring_made_again_is_a_filled_rectangle_without_its_last_row_and_column(
    height: int, width: int, margin: int
) -> None:
    ring = np.zeros((height + 2 * margin, width + 2 * margin), dtype=bool)
    ring[margin : margin + height, margin : margin + width] = True
    ring[margin + 1 : margin + height - 1, margin + 1 : margin + width - 1] = False
    expected = np.zeros_like(ring)
    expected[margin : margin + height - 1, margin : margin + width - 1] = True
    again = decode_mask(rle_from_polygons(outer_polygons(ring), *ring.shape))
    np.testing.assert_array_equal(again, expected)
