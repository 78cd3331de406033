"""Areas that masks share are those of their pixels, whatever the tiles and strips."""

import numpy as np
import pytest
import torch

from refseg_core.masks import overlaps
from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.rle import Masks


def _ellipses(number: int, height: int, width: int) -> Masks:
    """Masks that cover tiles whole, cut them, or miss them; many share outlines; one is empty, one full."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    center, axes = random.uniform(0, (height, width), (number, 2)), random.uniform(3, 80, (number, 2))
    center[number // 2 :], axes[number // 2 :] = center[: number - number // 2] + 1, axes[: number - number // 2]
    masks = np.array(
        [((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1 for (cy, cx), (a, b) in zip(center, axes, strict=True)]
    )
    masks[0], masks[1] = False, True
    return masks


@pytest.mark.parametrize("tiles_at_once", [1, 7, 100_000])
@pytest.mark.parametrize("size", [(96, 128), (101, 203), (250, 17)])
def test_shared_areas_are_those_of_the_pixels(
    size: tuple[int, int], tiles_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlaps, "_TILES_AT_ONCE", tiles_at_once)
    masks = _ellipses(30, *size)
    columns = PackedMasks.of(torch.from_numpy(masks)).columns_NWB.numpy()
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    np.testing.assert_array_equal(overlaps.shared_areas(columns, size[0]), flat @ flat.T)
    np.testing.assert_array_equal(overlaps.areas(columns), flat.sum(axis=1))


def test_of_no_masks_nothing_is_shared() -> None:
    columns = np.zeros((0, 20, 3), dtype=np.uint8)
    assert overlaps.shared_areas(columns, 24).shape == (0, 0)
    assert overlaps.areas(columns).shape == (0,)
