"""What is kept of an image comes back from its row, from one that older code wrote, too."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.labeling.composing.answering import _kept_masks
from refseg_core.labeling.kept.edge_logits import reach_of
from refseg_core.labeling.kept.kept_image import KeptImage
from refseg_core.labeling.kept.kept_table import from_row, to_row
from refseg_core.tables import ImageProposals
from tests.support.models import random_tensor

_SIDE, _CHANNELS = 70, 3
_SIZES = ((90, 123), (70, 100), (40, 90))  # (height, width): above, at and below the side of the masks


def _logits(dtype: torch.dtype) -> Tensor:
    coarse = random_tensor(5, 1, 6, 6, seed=1) - 0.5
    logits = F.interpolate(coarse, size=_SIDE, mode="bicubic")[:, 0]
    logits[1], logits[2] = -logits[1].abs(), logits[2].abs() + 0.1
    return logits.to(dtype)


def _kept(logits: Tensor, size: tuple[int, int]) -> KeptImage:
    key, described = torch.arange(len(logits)), random_tensor(len(logits), _CHANNELS, seed=2)
    begun = KeptImage.begun(size, random_tensor(4, _CHANNELS, seed=3), logits_size=_SIDE, logits=logits.dtype)
    masks = _kept_masks(key, logits, torch.linspace(0, 1, len(logits)), described, reach_of(_SIDE, size))
    return replace(begun, asked_n=key, masks=masks)


def _as_older_code_wrote(row: ImageProposals, logits: Tensor, size: tuple[int, int]) -> ImageProposals:
    """Kept are cells with another sign at most so many rows and columns away, row by row."""
    reach = int(np.ceil(2 * max(1, _SIDE / min(size))))
    inside = (logits > 0).float()[:, None]
    has_both = [F.max_pool2d(signs, 2 * reach + 1, stride=1, padding=reach) > 0 for signs in (inside, 1 - inside)]
    is_kept = (has_both[0] & has_both[1])[:, 0]
    values, num = logits[is_kept].numpy().tobytes(), is_kept.flatten(1).sum(dim=1).numpy()
    columns = row.replace(edge_logits=np.array([values], object), num_edge_logits=num[None]).to_arrow()
    return ImageProposals.from_arrow(columns.drop_columns(["edge_layout"]))


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_image_comes_back_from_its_row_and_from_one_of_older_code(dtype: torch.dtype, size: tuple[int, int]) -> None:
    logits = _logits(dtype)
    row = to_row(_kept(logits, size))
    older = _as_older_code_wrote(row, logits, size)
    assert (row.edge_layout[0], older.edge_layout[0]) == (1, 0)
    assert len(row.edge_logits[0]) <= len(older.edge_logits[0])
    assert all(to_row(from_row(each)).equals(row) for each in (row, older))
