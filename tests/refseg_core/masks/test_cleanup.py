"""Small islands and holes: SciPy's labels of connected pixels are the oracle."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from refseg_core.masks.cleanup import clean_masks
from refseg_core.masks.rle import Rle, decode_mask, encode_masks

Mask = npt.NDArray[np.bool_]


def _mask(*rows: str) -> Mask:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def _cleaned(mask: Mask, *, min_island: int = 0, min_hole: int = 0) -> Mask:
    (rle,) = clean_masks(encode_masks(mask[None]), min_island=min_island, min_hole=min_hole)
    return decode_mask(rle)


def _by_labels(mask: Mask, min_island: int, min_hole: int) -> Mask:
    """The same in two dimensions, pixel by pixel."""
    found = mask.copy()
    holes, num_holes = ndimage.label(~found)
    border = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    for hole in set(range(1, num_holes + 1)) - set(border.tolist()):
        if (holes == hole).sum() < min_hole:
            found[holes == hole] = True
    islands, num_islands = ndimage.label(found.T, structure=np.ones((3, 3)))  # numbered column by column, as runs are
    islands = islands.T
    areas = [int((islands == island).sum()) for island in range(1, num_islands + 1)]
    for island, area in enumerate(areas, start=1):
        if area < min_island and island != areas.index(max(areas)) + 1:
            found[islands == island] = False
    return found


_MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
        lambda pixels: np.array(pixels).reshape(size)
    )
)


@given(masks=st.lists(_MASKS, max_size=4), min_island=st.integers(0, 9), min_hole=st.integers(0, 9))
def test_masks_of_any_sizes_lose_what_is_small_as_pixels_labeled_one_by_one_do(
    masks: list[Mask], min_island: int, min_hole: int
) -> None:
    rles = [encode_masks(mask[None])[0] for mask in masks]
    cleaned = clean_masks(rles, min_island=min_island, min_hole=min_hole)
    for mask, rle in zip(masks, cleaned, strict=True):
        expected = _by_labels(mask, min_island, min_hole)
        assert np.array_equal(decode_mask(rle), expected)
        assert rle == encode_masks(expected[None])[0]  # character by character


def test_a_speckled_mask_keeps_its_object_alone() -> None:
    mask = _mask("#...###.", "....#.#.", ".#..###.", "........")
    assert np.array_equal(
        _cleaned(mask, min_island=3, min_hole=2), _mask("....###.", "....###.", "....###.", "........")
    )


def test_pixels_that_touch_at_a_corner_are_one_island() -> None:
    mask = _mask("#....", ".#...", "..#..", "....#")
    assert np.array_equal(_cleaned(mask, min_island=3), _mask("#....", ".#...", "..#..", "....."))


def test_a_hole_that_opens_at_a_corner_is_a_hole_still() -> None:
    mask = _mask("###.", "#.#.", "##..", "....")
    assert _cleaned(mask, min_hole=2)[1, 1]


def test_what_the_border_opens_is_no_hole() -> None:
    mask = _mask("#.#", "###")
    assert np.array_equal(_cleaned(mask, min_hole=100), mask)


def test_the_largest_island_stays_and_of_equal_ones_the_first() -> None:
    assert np.array_equal(_cleaned(_mask("##.##.#"), min_island=100), _mask("##....."))


def test_an_island_counts_with_the_holes_that_were_filled() -> None:
    ring = _mask("###.###", "#.#.###", "###.###")
    assert np.array_equal(_cleaned(ring, min_island=9, min_hole=2)[:, :3], np.ones((3, 3), dtype=bool))


def test_masks_in_which_nothing_is_small_are_the_same_objects() -> None:
    rles = encode_masks(_mask("##..", "##..", "....")[None])
    assert clean_masks(rles, min_island=3, min_hole=3)[0] is rles[0]


def test_empty_masks_and_no_masks_are_fine() -> None:
    assert clean_masks([], min_island=5, min_hole=5) == []
    empty = Rle((3, 4), encode_masks(np.zeros((1, 3, 4), dtype=bool))[0].counts)
    assert clean_masks([empty], min_island=5, min_hole=5) == [empty]
