"""Masks are described by the mean feature inside them and take the nearest prototype's class."""

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.labeling.matching import Matches, match, pooling_weights
from tests.support.closeness import assert_close
from tests.support.oracles import original

_SIDE, _GRID, _CHANNELS = 16, 5, 6


def _random_case(seed: int, num_masks: int, num_classes: int, density: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(num_masks, _SIDE, _SIDE, generator=generator) < density
    features = torch.randn(_GRID**2, _CHANNELS, generator=generator)
    return masks, features, F.normalize(torch.randn(num_classes, _CHANNELS, generator=generator), dim=1)


def _scattered_case(num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squares of 4 x 4 pixels all over the image, so that descriptors differ and every class finds some."""
    _, features, prototypes = _random_case(6, 1, num_classes, 0.5)
    masks = torch.zeros(36, _SIDE, _SIDE, dtype=torch.bool)
    for row, mask in enumerate(masks):
        y, x = row // 6 * 2, row % 6 * 2
        mask[y : y + 4, x : x + 4] = True
    return masks, features, prototypes


def _assert_equals_oracle(matches: Matches, masks: Tensor, features: Tensor, prototypes: Tensor) -> None:
    descriptors = original.describe(masks.numpy(), features.double().numpy())
    np.testing.assert_allclose(matches.descriptor_NC.numpy(), descriptors, atol=2e-6, rtol=0)
    decisions = original.classify(descriptors, prototypes.double().numpy())
    for row, (class_index, similarity, margin) in enumerate(decisions):
        assert abs(float(matches.similarity_N[row]) - similarity) < 2e-6
        if margin > 1e-5:
            assert int(matches.class_index_N[row]) == class_index


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from((1, 2, 40)), st.sampled_from((0.0, 0.004, 0.2, 1.0))
)
def test_matching_agrees_with_the_oracle(seed: int, num_masks: int, num_classes: int, density: float) -> None:
    masks, features, prototypes = _random_case(seed, num_masks, num_classes, density)
    _assert_equals_oracle(match(masks, features, prototypes), masks, features, prototypes)


def test_a_single_pixel_takes_the_feature_at_that_pixel() -> None:
    _, features, prototypes = _random_case(1, 1, 3, 0.5)
    masks = torch.eye(_SIDE**2).view(-1, _SIDE, _SIDE)[[0, 7, 100, 255]] > 0
    _assert_equals_oracle(match(masks, features, prototypes), masks, features, prototypes)


def test_more_masks_than_fit_one_chunk() -> None:
    masks, features, prototypes = _random_case(2, 300, 4, 0.3)
    together = match(masks, features, prototypes)
    for row in (0, 127, 128, 299):
        alone = match(masks[row : row + 1], features, prototypes)
        assert_close(together.descriptor_NC[row], alone.descriptor_NC[0], atol=1e-6, rtol=0)
        assert_close(together.similarity_N[row], alone.similarity_N[0], atol=1e-6, rtol=0)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 33), st.sampled_from((0.0, 0.01, 0.5, 1.0)))
def test_the_weights_of_a_mask_sum_to_its_pixels(seed: int, grid: int, side: int, density: float) -> None:
    masks = torch.rand(4, side, side, generator=torch.Generator().manual_seed(seed)) < density
    weights = pooling_weights(masks, grid)
    assert weights.shape == (4, grid**2)
    assert (weights >= 0).all()
    assert_close(weights.sum(dim=1), masks.sum(dim=(1, 2)).float(), atol=1e-3, rtol=1e-6)


def test_weights_lie_where_the_mask_lies() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, :4, 8:12] = True  # rows of the first quarter, columns of the third
    weights = pooling_weights(mask, 4).view(4, 4)
    assert weights.argmax().item() == 2
    assert weights[3].sum() == 0


def test_an_empty_mask_resembles_nothing() -> None:
    masks, features, prototypes = _random_case(3, 2, 3, 0.5)
    masks[1] = False
    matches = match(masks, features, prototypes)
    assert matches.similarity_N[1] == 0
    assert (matches.descriptor_NC[1] == 0).all()
    assert torch.isfinite(matches.descriptor_NC).all()


def test_likeness_below_zero_counts_as_none() -> None:
    matches = match(torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(4, 2), torch.tensor([[-1.0, 0.0], [0.0, -1.0]]))
    assert matches.similarity_N.tolist() == [0]


def test_a_tie_goes_to_the_first_class() -> None:
    masks = torch.ones(1, 8, 8, dtype=torch.bool)
    matches = match(masks, torch.ones(4, 3), torch.eye(3)[[2, 1, 0]])
    assert matches.class_index_N.tolist() == [0]


def test_descriptors_have_unit_length() -> None:
    masks, features, prototypes = _random_case(4, 5, 3, 0.5)
    lengths = match(masks, features * 1000, prototypes).descriptor_NC.norm(dim=1)
    assert_close(lengths, torch.ones(5))


def test_permuting_the_classes_only_renames_them() -> None:
    masks, features, prototypes = _scattered_case(7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    before, after = match(masks, features, prototypes), match(masks, features, prototypes[order])
    alike = before.similarity_N > 0
    assert len(before.class_index_N[alike].unique()) > 3
    assert torch.equal(order[after.class_index_N][alike], before.class_index_N[alike])
    assert_close(after.similarity_N, before.similarity_N, atol=1e-6, rtol=0)


def test_one_more_class_changes_only_the_masks_that_prefer_it() -> None:
    masks, features, prototypes = _scattered_case(4)
    before = match(masks, features, prototypes[:3])
    after = match(masks, features, prototypes)
    moved = after.class_index_N == 3
    assert 0 < moved.sum() < len(masks)
    assert torch.equal(after.class_index_N[~moved], before.class_index_N[~moved])
    assert (after.similarity_N[moved] > before.similarity_N[moved] - 1e-6).all()
    assert_close(after.similarity_N[~moved], before.similarity_N[~moved], atol=1e-6, rtol=0)
