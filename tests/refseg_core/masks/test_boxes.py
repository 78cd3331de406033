"""Boxes of boolean masks."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.masks.boxes import mask_boxes
from tests.support.oracles import original


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 2**32 - 1), st.sampled_from((0.05, 0.5)))
def test_extents_agree_with_the_oracle(height: int, width: int, count: int, seed: int, density: float) -> None:
    masks = np.random.default_rng(seed).random((count, height, width)) < density
    expected = np.array([original.extent(mask) for mask in masks]).reshape(-1, 4)
    np.testing.assert_array_equal(mask_boxes(torch.from_numpy(masks)).numpy(), expected)
