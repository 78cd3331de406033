"""Logits near edges give masks of any size as all logits do, to the last pixel, in a small part of their size."""

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.labeling.kept.edge_logits import edge_cells, edge_values, reach_of, restored
from refseg_core.labeling.merging import upsample
from refseg_core.masks.bitmasks import PackedMasks
from tests.support.models import random_tensor

_SIDE = 24


def _blobs(seed: int, coarse: int, dtype: torch.dtype) -> Tensor:
    """Smooth logits; an empty mask and a full one among them."""
    logits = F.interpolate(random_tensor(4, 1, coarse, coarse, seed=seed) - 0.5, size=_SIDE, mode="bicubic")[:, 0]
    logits[1], logits[2] = -logits[1].abs(), logits[2].abs() + 0.1
    return (8 * logits).to(dtype)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    coarse=st.integers(2, _SIDE),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    dtype=st.sampled_from((torch.float16, torch.float32)),
)
def test_masks_of_any_size_come_out_as_from_all_logits(
    seed: int, coarse: int, size: tuple[int, int], dtype: torch.dtype
) -> None:
    logits, reach = _blobs(seed, coarse, dtype), reach_of(_SIDE, size)
    values, num = edge_values(logits, reach)
    again = restored(logits > 0, values, reach)
    assert again.dtype == dtype
    assert len(values) == int(num.sum())
    expected = upsample(logits.float(), size, 10_000)
    assert torch.equal(upsample(again.float(), size, 10_000).columns_NWB, expected.columns_NWB)


def test_far_from_an_edge_nothing_is_kept() -> None:
    logits = torch.full((1, 256, 256), -3.0)
    logits[0, 100:160, 60:200] = 5.0
    values, num = edge_values(logits, reach_of(256, (480, 640)))
    outline = 2 * (60 + 140)
    assert outline < int(num) < 5 * outline
    assert len(values) < logits.numel() / 30


def test_each_mask_has_its_own_values() -> None:
    logits = _blobs(3, 5, torch.float32)
    together, num = edge_values(logits, 2)
    alone = [edge_values(one[None], 2)[0] for one in logits]
    assert [len(values) for values in alone] == num.tolist()
    assert torch.equal(together, torch.cat(alone))
    assert num[1] == num[2] == 0


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.integers(2, 80),
    reach=st.integers(1, 3),
    dtype=st.sampled_from((torch.float16, torch.float32)),
)
def test_single_cells_near_edges_have_their_own_values(seed: int, side: int, reach: int, dtype: torch.dtype) -> None:
    logits = F.interpolate(_blobs(seed, 4, dtype).float()[:, None], size=side, mode="bicubic")[:, 0].to(dtype)
    values, _ = edge_values(logits, reach)
    cells_of = edge_cells(PackedMasks.of(logits > 0), values, reach)
    is_near = (restored(logits > 0, torch.full_like(values, torch.nan), reach)).isnan().numpy()
    mask, row, column = np.nonzero(is_near)
    assert len(mask) == len(values)
    np.testing.assert_array_equal(cells_of(mask, row, column), logits.float().numpy()[is_near])
