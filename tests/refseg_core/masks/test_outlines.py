"""The path of a mask, filled, is the mask: with holes, islands in holes, and parts that touch at a corner."""

import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refseg_core.masks.outlines import mask_part, svg_path
from refseg_core.masks.rle import Rle, encode_masks


def _filled(path: str, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels with an odd number of vertical edges to their left, which is what evenodd means."""
    edges = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for subpath in re.findall(r"M[^z]*z", path):
        x, y = map(int, re.match(r"M(\d+) (\d+)", subpath).groups())  # type: ignore[union-attr]
        first_y = y
        for direction, step in re.findall(r"([hv])(-?\d+)", subpath):
            if direction == "h":
                x += int(step)
            else:
                edges[min(y, y + int(step)) : max(y, y + int(step)), x] += 1
                y += int(step)
        edges[min(y, first_y) : max(y, first_y), x] += 1  # z, which closes the path
    return np.cumsum(edges, axis=1)[:, :-1] % 2 == 1


@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_filled_path_is_the_mask(mask: npt.NDArray[np.bool_]) -> None:
    (rle,) = encode_masks(mask[None])
    assert np.array_equal(_filled(svg_path(rle), mask.shape), mask)  # type: ignore[arg-type]


@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_part_is_the_box_around_the_mask(mask: npt.NDArray[np.bool_]) -> None:
    (rle,) = encode_masks(mask[None])
    part, left, top = mask_part(rle)
    whole = np.zeros_like(mask)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    assert np.array_equal(whole, mask)
    if mask.any():
        assert part.any(axis=0)[[0, -1]].all()
        assert part.any(axis=1)[[0, -1]].all()


@pytest.mark.parametrize("rle", [Rle((4, 4), ""), encode_masks(np.zeros((1, 4, 4), dtype=bool))[0]])
def test_an_empty_mask_has_no_path(rle: Rle) -> None:
    assert svg_path(rle) == ""
