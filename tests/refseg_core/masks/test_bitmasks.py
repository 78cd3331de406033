"""Packed masks are the masks, and their run lengths, areas and extents those of the pixels."""

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.masks.bitmasks import PackedMasks, extents
from refseg_core.masks.rle import Masks, boxes_of_masks, encode_masks
from refseg_core.masks.rle_encoding import encode_packed


@st.composite
def _masks(draw: st.DrawFn) -> Masks:
    """Of any size, with empty and full ones, single pixels, and noise that changes from pixel to pixel."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    densities = draw(st.lists(st.sampled_from((0.0, 0.02, 0.5, 0.98, 1.0)), max_size=5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.array([random.random((height, width)) < density for density in densities], dtype=bool).reshape(
        len(densities), height, width
    )


def _columns(masks: Masks) -> npt.NDArray[np.uint8]:
    return PackedMasks.of(torch.from_numpy(masks)).columns_NWB.numpy()


@settings(max_examples=200)
@given(_masks())
def test_run_lengths_are_those_of_pycocotools(masks: Masks) -> None:
    assert encode_packed(_columns(masks), masks.shape[1]) == encode_masks(masks)


def test_long_runs_are_those_of_pycocotools() -> None:
    """Runs and differences of every number of characters, up to a mask of four megapixels."""
    masks = np.zeros((6, 2000, 2100), dtype=bool)
    masks[1] = True
    masks[2, :, 700:1900] = True
    masks[3, 3, ::50] = True
    masks[4, -1, -1] = masks[4, 0, 0] = True
    masks[5, 10:1500, 20:2000] = True
    assert encode_packed(_columns(masks), 2000) == encode_masks(masks)


@settings(max_examples=100)
@given(_masks())
def test_masks_areas_and_extents_are_those_of_the_pixels(masks: Masks) -> None:
    packed = PackedMasks.of(torch.from_numpy(masks))
    np.testing.assert_array_equal(packed.unpack().numpy(), masks)
    np.testing.assert_array_equal(packed.areas().numpy(), masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(extents(packed.columns_NWB.numpy()), boxes_of_masks(masks))
    flat = masks.reshape(len(masks), masks[0].size if len(masks) else 0).astype(np.int64)
    np.testing.assert_array_equal(packed.shared_areas().numpy(), flat @ flat.T)
    np.testing.assert_array_equal(packed[torch.arange(len(masks)).flip(0)].unpack().numpy(), masks[::-1])


@settings(max_examples=100)
@given(_masks(), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_the_first_masks_are_replaced_but_never_by_empty_ones(masks: Masks, number: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    others = random.random((min(number, len(masks)), *masks.shape[1:])) < random.choice((0.0, 0.02, 0.5))
    packed = PackedMasks.of(torch.from_numpy(masks))
    replaced = packed.replaced(PackedMasks.of(torch.from_numpy(others))).unpack().numpy()
    expected = masks.copy()
    for row, other in enumerate(others):
        if other.any():
            expected[row] = other
    np.testing.assert_array_equal(replaced, expected)
    np.testing.assert_array_equal(packed.unpack().numpy(), masks)
