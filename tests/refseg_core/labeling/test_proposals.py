"""The grid of points lies as published, and cutting it into batches changes nothing."""

import pytest
import torch

from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.proposal_source import PromptCounts, Proposals
from refseg_core.labeling.proposals import AllMasks, point_grid, propose
from refseg_core.models.protocols import ImageEmbedding
from refseg_core.models.sam2 import SAM2
from tests.support.closeness import assert_close
from tests.support.models import random_tensor, tiny_segmenter

_CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def segmenter() -> SAM2:
    return tiny_segmenter()


@pytest.fixture(scope="module")
def embedding(segmenter: SAM2) -> ImageEmbedding:
    return segmenter.embed(random_tensor(1, 3, 64, 64))


def _propose(
    segmenter: SAM2, embedding: ImageEmbedding, *, per_side: int = 4, batch: int = 64, thresh: float = 0
) -> Proposals:
    points = point_grid(per_side, segmenter.architecture.image_size, segmenter.device)
    return propose(segmenter, embedding, points, batch=BatchSize(batch), pred_iou_thresh=thresh)


def test_the_published_grid_steps_by_33_pixels_with_x_slow() -> None:
    grid = point_grid(32, 1024, _CPU)
    expected = [(33 * x + 0.5, 33 * y + 0.5) for x in range(32) for y in range(32)]
    assert_close(grid, torch.tensor(expected), atol=1e-3, rtol=0)


@pytest.mark.parametrize("points_per_side", [2, 3, 7, 256])
def test_a_grid_spans_from_the_first_to_the_last_pixel(points_per_side: int) -> None:
    grid = point_grid(points_per_side, 64, _CPU)
    assert grid.shape == (points_per_side**2, 2)
    assert len(grid.unique(dim=0)) == points_per_side**2
    assert grid.amin(dim=0).tolist() == [0.5, 0.5]
    assert grid.amax(dim=0).tolist() == [63.5, 63.5]


def test_a_single_point_lies_in_the_middle() -> None:
    assert point_grid(1, 64, _CPU).tolist() == [[32.0, 32.0]]


@pytest.mark.parametrize("batch", [1, 3, 16, 17, 1000])
def test_the_batch_size_changes_nothing_even_where_it_does_not_divide_the_points(
    segmenter: SAM2, embedding: ImageEmbedding, batch: int
) -> None:
    expected, proposals = _propose(segmenter, embedding), _propose(segmenter, embedding, batch=batch)
    assert len(proposals) == 16
    assert_close(proposals.logits_NGG, expected.logits_NGG, atol=1e-4, rtol=1e-4)
    assert_close(proposals.predicted_iou_N, expected.predicted_iou_N, atol=1e-5, rtol=0)


def test_a_threshold_keeps_a_part_of_the_proposals_in_point_order(segmenter: SAM2, embedding: ImageEmbedding) -> None:
    everything = _propose(segmenter, embedding)
    thresh = float(everything.predicted_iou_N.sort().values[[7, 8]].mean())
    kept = everything.predicted_iou_N > thresh
    assert kept.sum() == 8
    some = _propose(segmenter, embedding, batch=5, thresh=thresh)
    assert_close(some.predicted_iou_N, everything.predicted_iou_N[kept], atol=1e-5, rtol=0)
    assert_close(some.logits_NGG, everything.logits_NGG[kept], atol=1e-4, rtol=1e-4)


def test_nothing_may_be_proposed(segmenter: SAM2, embedding: ImageEmbedding) -> None:
    nothing = _propose(segmenter, embedding, batch=5, thresh=1)
    assert len(nothing) == 0
    assert nothing.logits_NGG.shape == (0, 16, 16)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_all_masks_are_those_of_the_decoder_but_for_half_precision(
    segmenter: SAM2, embedding: ImageEmbedding, batch: int
) -> None:
    decoder, grid, rows = segmenter.point_decoder(), point_grid(4, 64, _CPU), torch.tensor([1, 5, 6, 14])
    _, every_iou = decoder.decode_all_masks(decoder.prepare(embedding), decoder.prompts(grid[rows]), pred_iou_thresh=0)
    thresh = float(every_iou.sort().values[[4, 5]].mean())
    source = AllMasks(decoder, grid, batch=BatchSize(batch), pred_iou_thresh=thresh)
    proposed = source.propose(embedding, torch.zeros(25, 32), rows)
    logits, predicted_iou = decoder.decode_all_masks(
        decoder.prepare(embedding), decoder.prompts(grid[rows]), pred_iou_thresh=thresh
    )
    assert proposed.num_proposals == len(proposed.proposals) == len(logits) == 7
    assert proposed.prompts == PromptCounts(4, 4, 0, 7)
    assert proposed.proposals.logits_NGG.dtype == torch.float16
    assert_close(proposed.proposals.logits_NGG.float(), logits, atol=1e-5, rtol=1e-3)
    assert_close(proposed.proposals.predicted_iou_N, predicted_iou, atol=1e-5, rtol=0)


def test_no_points_have_no_masks_at_all(segmenter: SAM2, embedding: ImageEmbedding) -> None:
    source = AllMasks(segmenter.point_decoder(), point_grid(4, 64, _CPU), batch=BatchSize(3), pred_iou_thresh=0)
    proposed = source.propose(embedding, torch.zeros(25, 32), torch.zeros(0, dtype=torch.int64))
    assert proposed.num_proposals == 0
    assert proposed.proposals.logits_NGG.shape == (0, 16, 16)
