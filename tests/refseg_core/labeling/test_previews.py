"""Previews of points, and the search for those that are worth one."""

import pytest
import torch
from torch import Tensor

from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.previews import Previews, SparseSearch, preview_points
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


def _covering(masks_nhh: Tensor, predicted_iou: float) -> Previews:
    number = len(masks_nhh)
    return Previews(torch.arange(number), masks_nhh, torch.full((number,), predicted_iou), number)


def _places(row_n: Tensor) -> set[tuple[int, int]]:
    return {(row // _SIDE, row % _SIDE) for row in row_n.tolist()}


def test_previews_are_of_the_points_that_pass_the_threshold_in_their_order() -> None:
    previews = _previews(torch.tensor([5, 20, 40, 63]), thresh=0.5)
    assert previews.row_n.tolist() == [40, 63]
    assert len(previews) == len(previews.masks_nhh) == 2
    assert torch.equal(previews.predicted_iou_n, _GRID[[40, 63], 0] / _IMAGE)
    for mask_hh, (x, y) in zip(previews.masks_nhh, _GRID[[40, 63]].tolist(), strict=True):
        assert mask_hh.nonzero().tolist() == [[int(y) // 4, int(x) // 4]]


def test_previews_of_no_points_are_none() -> None:
    assert len(_previews(torch.zeros(0, dtype=torch.int64))) == 0


def test_joined_previews_are_in_point_order_each_with_what_is_its_own() -> None:
    joined = _previews(torch.tensor([60, 3])).joined(_previews(torch.tensor([40, 1])))
    expected = _previews(torch.tensor([1, 3, 40, 60]))
    assert joined.row_n.tolist() == [1, 3, 40, 60]
    assert torch.equal(joined.masks_nhh, expected.masks_nhh)
    assert torch.equal(joined.predicted_iou_n, expected.predicted_iou_n)


def test_a_search_begins_with_every_other_point_both_ways() -> None:
    rows = SparseSearch(_GRID, _IMAGE).every_other()
    assert _places(rows) == {(x, y) for x in range(0, _SIDE, 2) for y in range(0, _SIDE, 2)}


def test_points_that_nothing_covers_are_asked_and_none_twice() -> None:
    search = SparseSearch(_GRID, _IMAGE)
    first = search.every_other()
    nothing = _covering(torch.zeros(0, _CELLS, _CELLS, dtype=torch.bool), 1.0)
    rest = search.uncovered(nothing)
    assert sorted([*first.tolist(), *rest.tolist()]) == list(range(_SIDE**2))
    assert len(search.uncovered(nothing)) == len(search.neighbors(first)) == 0


@pytest.mark.parametrize(("predicted_iou", "num_columns"), [(0.96, 4), (0.94, 8)])
def test_only_a_confident_mask_covers_points(predicted_iou: float, num_columns: int) -> None:
    left = torch.zeros(1, _CELLS, _CELLS, dtype=torch.bool)
    left[:, :, : _CELLS // 2] = True
    asked = SparseSearch(_GRID, _IMAGE).uncovered(_covering(left, predicted_iou))
    assert {x for x, _ in _places(asked)} == set(range(_SIDE - num_columns, _SIDE))


def test_the_neighbors_of_points_end_at_the_grids_border() -> None:
    search = SparseSearch(_GRID, _IMAGE)
    corner, inside = 0, 3 * _SIDE + 4
    around = {(x, y) for x in (2, 3, 4) for y in (3, 4, 5)} | {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert _places(search.neighbors(torch.tensor([corner, inside]))) == around
    assert len(search.neighbors(torch.zeros(0, dtype=torch.int64))) == 0


def test_a_grid_of_one_point_is_asked_at_once() -> None:
    search = SparseSearch(point_grid(1, _IMAGE, torch.device("cpu")), _IMAGE)
    assert search.every_other().tolist() == [0]
    assert len(search.neighbors(torch.tensor([0]))) == 0
