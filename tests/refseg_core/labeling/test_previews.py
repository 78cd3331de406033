"""Previews of points."""

import torch
from torch import Tensor

from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.previews import Previews, preview_points
from refseg_core.labeling.proposals import point_grid

_SIDE, _IMAGE, _CELLS = 8, 64, 16
_GRID = point_grid(_SIDE, _IMAGE, torch.device("cpu"))


def _preview(points_n2: Tensor) -> tuple[Tensor, Tensor]:
    """The cell in which a point lies, more surely the further to the right."""
    cells_n2 = (points_n2 * (_CELLS / _IMAGE)).long()
    logits_nhh = torch.full((len(points_n2), _CELLS, _CELLS), -1.0)
    logits_nhh[torch.arange(len(points_n2)), cells_n2[:, 1], cells_n2[:, 0]] = 1.0
    return logits_nhh, points_n2[:, 0] / _IMAGE


def _previews(row_n: Tensor, thresh: float = 0) -> Previews:
    return preview_points(_preview, _GRID, row_n, batch=BatchSize(3), pred_iou_thresh=thresh)


def test_previews_are_of_the_points_that_pass_the_threshold_in_their_order() -> None:
    previews = _previews(torch.tensor([5, 20, 40, 63]), thresh=0.5)
    assert previews.row_n.tolist() == [40, 63]
    assert len(previews) == len(previews.masks_nhh) == 2
    assert torch.equal(previews.predicted_iou_n, _GRID[[40, 63], 0] / _IMAGE)
    for mask_hh, (x, y) in zip(previews.masks_nhh, _GRID[[40, 63]].tolist(), strict=True):
        assert mask_hh.nonzero().tolist() == [[int(y) // 4, int(x) // 4]]


def test_previews_of_no_points_are_none() -> None:
    assert len(_previews(torch.zeros(0, dtype=torch.int64))) == 0
