"""Masks of a larger frame are PyTorch's to the last pixel, though few of their cells are looked at."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.upsampling import Floats, Ints, can_upsample, resized, upsample_packed
from tests.support.models import random_tensor


class _Upsampled:
    """Masks of logits [N, G, G] in a frame, the cells that were looked at, and the masks that were resized."""

    def __init__(self, logits: Tensor, size: tuple[int, int]) -> None:
        self._logits, self._size = logits, size
        self.looked = np.zeros(logits.shape, dtype=bool)
        self.resized: list[int] = []
        masks = upsample_packed(PackedMasks.of(logits > 0), self._cells, size, self._resize)
        self.masks = masks.unpack().numpy()

    def expected(self) -> Tensor:
        return resized(self._logits[:, None], self._size)[:, 0] > 0

    def _cells(self, mask: Ints, row: Ints, column: Ints) -> Floats:
        self.looked[mask, row, column] = True
        return self._logits.numpy()[mask, row, column]  # type: ignore[no-any-return]

    def _resize(self, rows: Ints) -> PackedMasks:
        self.resized.extend(rows.tolist())
        return PackedMasks.of(self.expected()[torch.from_numpy(rows)])


def _blobs(seed: int, side: int, coarse: int, dtype: torch.dtype) -> Tensor:
    """Smooth logits; an empty mask and a full one among them."""
    logits = F.interpolate(random_tensor(5, 1, coarse, coarse, seed=seed) - 0.5, size=side, mode="bicubic")[:, 0]
    logits[1], logits[2] = -logits[1].abs(), logits[2].abs() + 0.1
    return (8 * logits).to(dtype).float()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.integers(2, 70),
    coarse=st.integers(2, 24),
    more=st.tuples(st.integers(0, 150), st.integers(0, 150)),
    dtype=st.sampled_from((torch.float16, torch.float32)),
)
@pytest.mark.slow
def test_masks_of_a_larger_frame_are_those_of_all_cells(
    seed: int, side: int, coarse: int, more: tuple[int, int], dtype: torch.dtype
) -> None:
    size = (side + more[0], side + more[1])
    assert can_upsample(side, size)
    found = _Upsampled(_blobs(seed, side, coarse, dtype), size)
    np.testing.assert_array_equal(found.masks, found.expected().numpy())


def test_only_cells_beside_one_of_the_other_sign_are_looked_at() -> None:
    logits = torch.full((1, 64, 64), -3.0)
    logits[0, 20:40, 10:50] = 5.0
    found = _Upsampled(logits, (120, 160))
    inside = logits.numpy()[0] > 0
    beside = np.zeros_like(inside)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            beside |= inside != np.roll(inside, (down, right), (0, 1))
    assert found.looked.any()
    assert not (found.looked[0] & ~beside).any()
    assert found.resized == []


def test_a_mask_with_a_mean_that_rounding_decides_is_resized_whole() -> None:
    logits = torch.full((3, 4, 4), -1.0)
    logits[:, :, 2:] = 1.0
    logits[1] += 0.3
    found = _Upsampled(logits, (4, 9))  # the middle column is the mean of -1 and 1
    assert found.resized == [0, 2]
    np.testing.assert_array_equal(found.masks, found.expected().numpy())


@pytest.mark.parametrize("size", [(13, 14), (14, 13), (1, 1), (3, 400)])
def test_a_smaller_frame_is_made_of_more_cells(size: tuple[int, int]) -> None:
    assert not can_upsample(14, size)
