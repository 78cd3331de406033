"""The threshold of guided prompts rises with what would be prompted, and never above what the references bear."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refseg_core.references.guidance_thresh import (
    HIGHEST,
    LOWEST,
    USUAL,
    choose_thresh,
    instance_similarity,
    similarity_around,
)
from refseg_core.tables import MemoryBank
from tests.support.models import random_tensor

_SIDE, _CHANNELS = 4, 3


def _bank(*features: tuple[int, list[float]]) -> MemoryBank:
    return MemoryBank(
        category_id=np.array([category for category, _ in features]),
        shot=np.arange(len(features)),
        foreground_weight=np.ones(len(features)),
        feature=np.array([feature for _, feature in features], dtype=np.float32),
    )


def _thresh(instances: list[float], patches: list[float]) -> float:
    return float(choose_thresh(instances, [torch.tensor(patches)]).thresh[0])


@pytest.mark.parametrize(
    ("instance", "patch", "expected"),
    [
        (0.9, 0.1, USUAL),  # few categories
        (0.9, 0.27, 0.27),  # many: two fifths of the patches are above
        (0.9, 0.5, HIGHEST),
        (0.26, 0.5, 0.26),  # references that differ
        (0.18, 0.1, 0.18),
        (-0.1, 0.5, LOWEST),
    ],
)
def test_the_threshold_follows_patches_and_instances_within_its_bounds(
    instance: float, patch: float, expected: float
) -> None:
    assert _thresh([instance] * 4, [patch] * 9) == pytest.approx(expected)


def test_a_more_demanding_instance_never_raises_it() -> None:
    chosen = [_thresh([low / 100] * 5, [0.5] * 9) for low in range(40, 0, -3)]
    assert all(one >= next_ for one, next_ in pairwise(chosen))
    assert chosen[0] == HIGHEST
    assert chosen[-1] == LOWEST


def test_one_odd_reference_of_twenty_does_not_decide() -> None:
    assert _thresh([0.9] * 19 + [0.0], [0.1] * 9) == USUAL


def test_the_numbers_behind_it_are_kept() -> None:
    chosen = choose_thresh([0.4], [torch.tensor([0.1, 0.1]), torch.tensor([0.3, 0.3])])
    assert chosen.instance_similarity.tolist() == [0.4]
    assert chosen.patch_similarity[0] == pytest.approx(0.26)
    assert chosen.num_images.tolist() == [2]


def test_an_instance_is_compared_with_the_other_references_of_its_category() -> None:
    features = F.normalize(torch.tensor([[1.0, 0.5, 0.0]]), dim=1).expand(_SIDE**2, -1)
    bank = _bank((1, [1.0, 0, 0]), (1, [0, 1.0, 0]), (2, [0, 0, 1.0]))
    mask = np.ones((8, 8), dtype=bool)
    assert instance_similarity(features, mask, bank, 0) == pytest.approx(0.5 / 1.25**0.5, abs=1e-6)
    assert instance_similarity(features, mask, bank, 1) == pytest.approx(1 / 1.25**0.5, abs=1e-6)
    assert instance_similarity(features, mask, bank, 2) == pytest.approx(-0.1, abs=1e-6)  # alone: less a margin


def test_only_patches_within_the_mask_count_and_one_at_least() -> None:
    features = torch.tensor([[0.0, 1.0, 0.0]]).repeat(_SIDE**2, 1)
    features[5] = torch.tensor([1.0, 0.0, 0.0])
    bank = _bank((1, [1.0, 0, 0]), (1, [1.0, 0, 0]))
    around, within = (np.zeros((40, 40), dtype=bool) for _ in range(2))
    around[10:20, 10:20] = True
    within[12:14, 12:14] = True  # less than half of any patch
    for mask in (around, within):
        assert instance_similarity(features, mask, bank, 0) == pytest.approx(1.0)


def test_references_that_fill_their_images_do_not_raise_it() -> None:
    assert float(choose_thresh([0.9], [torch.zeros(0)]).thresh[0]) == USUAL


def test_a_patch_is_as_similar_as_its_nearest_prototype() -> None:
    features, prototypes = random_tensor(9, _CHANNELS, seed=1) - 0.5, F.normalize(random_tensor(2, _CHANNELS, seed=2))
    expected = [max(float(F.cosine_similarity(one, each, dim=0)) for each in prototypes) for one in features]
    assert similarity_around(features, [], prototypes).tolist() == pytest.approx(expected, abs=1e-6)


def test_patches_of_references_are_left_out() -> None:
    features, prototypes = random_tensor(_SIDE**2, _CHANNELS, seed=3) - 0.5, F.normalize(random_tensor(2, _CHANNELS))
    left, top = (np.zeros((8, 8), dtype=bool) for _ in range(2))
    left[:, :2], top[:2] = True, True
    kept = [row * _SIDE + column for row in range(1, _SIDE) for column in range(1, _SIDE)]
    expected = similarity_around(features, [], prototypes)[kept]
    assert torch.equal(similarity_around(features, [left, top], prototypes), expected)
