"""The images of a pilot are spread over what images look like, and over categories present and absent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.analysis.pilot_sample import choose_images, describe_image


def _unit(features: np.ndarray) -> np.ndarray:
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def _groups(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of images that lie close to one direction for each group, and the groups."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    return _unit(np.eye(len(sizes), 16)[group] + generator.normal(0, 0.02, (len(group), 16))), group


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 6), st.integers(0, 9))
def test_as_many_as_wanted_are_chosen_each_once_and_the_same_by_the_same_seed(
    num_images: int, number: int, num_categories: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    features = _unit(generator.normal(size=(num_images, 8)))
    similarity = generator.uniform(0, 1, (num_images, num_categories)).astype(np.float32)
    chosen = choose_images(features, similarity, number, seed)
    assert len(set(chosen.row_n.tolist())) == len(chosen.row_n) == min(number, num_images)
    assert (chosen.class_index_n < num_categories).all()
    again = choose_images(features, similarity, number, seed)
    for ours, theirs in zip(chosen, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_small_group_of_images_is_chosen_from_though_others_are_many() -> None:
    features, group = _groups([60, 3, 60])
    similarity = np.random.default_rng(1).uniform(0, 1, (len(group), 2)).astype(np.float32)
    chosen = choose_images(features, similarity, 12, seed=3)
    assert np.bincount(group[chosen.row_n], minlength=3)[1] >= 1
    assert np.bincount(group[chosen.row_n], minlength=3)[[0, 2]].min() >= 3


@pytest.mark.parametrize("seed", range(5))
def test_each_category_is_likely_present_in_some_and_likely_absent_in_others(seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = _unit(generator.normal(size=(80, 8)))
    shown = np.arange(80) % 8  # each image shows one of eight categories
    similarity = (0.2 + 0.6 * (shown[:, None] == np.arange(8))).astype(np.float32)
    similarity += generator.uniform(0, 0.05, similarity.shape).astype(np.float32)
    chosen = choose_images(features, similarity, 24, seed)
    assert np.bincount(shown[chosen.row_n], minlength=8).min() >= 1
    assert not np.bincount(shown[chosen.row_n], minlength=8).max() >= 8
    top = np.quantile(similarity, 0.9, axis=0)[chosen.class_index_n]
    of_chosen = similarity[chosen.row_n, chosen.class_index_n]
    assert (of_chosen[chosen.is_present_n] >= top[chosen.is_present_n]).all()


def test_an_image_is_described_by_its_mean_and_by_its_most_similar_patch() -> None:
    features = torch.tensor([[2.0, 0, 0], [0, 3.0, 0], [0, 3.0, 0]])
    described = describe_image(features, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
    np.testing.assert_allclose(described.similarity_K, [1, 0], atol=1e-6)
    np.testing.assert_allclose(described.feature_C, np.array([1, 2, 0]) / 5**0.5, rtol=1e-5)
