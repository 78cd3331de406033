"""Whether masks cover instances: against the IoU of every mask at the image's size."""

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.masks.rle import decode_masks
from tasks.models.profiling.proposal_coverage import true_masks
from tests.support.oracles.evaluation_cases import a_synthetic_case, dataset_of

_LOGITS = 32


def _logits(seed: int, masks: torch.Tensor) -> torch.Tensor:
    """Logits of masks at or beside the given ones, and of noise."""
    generator = torch.Generator().manual_seed(seed)
    small = F.interpolate(masks[:, None].float(), size=(_LOGITS, _LOGITS), mode="area")[:, 0] - 0.5
    moved = [torch.roll(small, (step, 2 * step), dims=(1, 2)) for step in (0, 1, 3, 8)]
    logits = torch.cat([*moved, torch.randn(20, _LOGITS, _LOGITS, generator=generator)])
    return logits[torch.randperm(len(logits), generator=generator)[: len(logits) // 2]]


@given(seed=st.integers(0, 1000))
@settings(max_examples=8)
def test_instances_are_counted_by_size_where_some_mask_covers_them(seed: int) -> None:
    document, _ = a_synthetic_case(seed, num_images=4)
    truth = dataset_of(document)
    for image_id, own in true_masks(truth).items():
        table = truth.annotations[(truth.annotations.image_id == image_id) & ~truth.annotations.is_crowd]
        assert own.num_instances[0] == len(table)
        if len(table) == 0:
            assert own.num_covered([torch.ones(1, _LOGITS, _LOGITS)]).tolist() == [0] * 4
            continue
        true = torch.from_numpy(decode_masks(table.mask_rle.tolist()))
        logits = _logits(seed, true)
        masks = F.interpolate(logits[:, None], size=true.shape[1:], mode="bilinear", align_corners=False)[:, 0] > 0
        shared = (true[:, None] & masks).sum((2, 3))
        ious = shared / (true[:, None] | masks).sum((2, 3))
        is_covered = (ious.amax(dim=1) >= 0.5).numpy()
        is_small, is_large = table.area <= 32**2, table.area >= 96**2
        expected = [is_covered.sum(), is_covered[is_small].sum(), is_covered[is_large].sum()]
        found = own.num_covered([logits[:5], logits[5:]])
        np.testing.assert_array_equal(found[[0, 1, 3]], expected)


def test_without_masks_nothing_is_covered() -> None:
    document, _ = a_synthetic_case(1, num_images=2)
    for own in true_masks(dataset_of(document)).values():
        assert own.num_covered([]).tolist() == own.num_covered([torch.zeros(0, 8, 8)]).tolist() == [0] * 4
