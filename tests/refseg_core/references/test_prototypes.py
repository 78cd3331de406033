"""One prototype per category: the normalized mean of its references, however many there are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.errors import UnusableReferenceError
from refseg_core.references.prototypes import postprocess_memory_bank, single_prototypes
from refseg_core.tables import MemoryBank


def _bank(category_ids: list[int], features: np.ndarray) -> MemoryBank:
    rows = range(len(category_ids))
    return MemoryBank(
        category_id=np.array(category_ids),
        shot=np.array([category_ids[:row].count(category_ids[row]) for row in rows]),
        foreground_weight=np.ones(len(category_ids)),
        feature=features,
    )


@settings(max_examples=50)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_prototypes_are_the_normalized_means_by_ascending_id(
    category_ids: list[int], num_channels: int, seed: int
) -> None:
    features = np.random.default_rng(seed).random((len(category_ids), num_channels), dtype=np.float32) + 0.1
    prototypes = postprocess_memory_bank(_bank(category_ids, features))
    assert prototypes.category_id.tolist() == sorted(set(category_ids))
    for row, category_id in enumerate(prototypes.category_id.tolist()):
        own = [features[index].astype(np.float64) for index, other in enumerate(category_ids) if other == category_id]
        mean = sum(own) / len(own)
        np.testing.assert_allclose(prototypes.prototype[row], mean / np.sqrt((mean**2).sum()), atol=1e-6)
        assert prototypes.num_references[row] == len(own)


def test_single_prototypes_are_the_normalized_references_themselves() -> None:
    bank = _bank([2, 1, 2], np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]))
    made = single_prototypes(bank)
    assert (made.category_id.tolist(), made.num_references.tolist()) == ([2, 1, 2], [1, 1, 1])
    np.testing.assert_allclose(made.prototype, [[0.6, 0.8], [0, 1], [1, 0]], atol=1e-7)
    assert len(single_prototypes(bank[:0])) == 0


def test_features_are_not_normalized_before_the_mean() -> None:
    prototypes = postprocess_memory_bank(_bank([1, 1], np.array([[3.0, 0.0], [0.0, 4.0]])))
    np.testing.assert_allclose(prototypes.prototype, [[0.6, 0.8]], atol=1e-7)


@settings(max_examples=50)
@given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
def test_the_order_of_references_does_not_matter(given_order: list[int], seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((6, 4))
    category_ids, order = [2, 1, 2, 3, 1, 2], np.array(given_order)
    forwards = postprocess_memory_bank(_bank(category_ids, features))
    shuffled = postprocess_memory_bank(_bank([category_ids[row] for row in order], features[order]))
    np.testing.assert_allclose(forwards.prototype, shuffled.prototype, atol=1e-7)
    assert forwards.num_references.tolist() == shuffled.num_references.tolist() == [2, 3, 1]


def test_other_categories_do_not_matter() -> None:
    features = np.random.default_rng(1).standard_normal((5, 4))
    both = postprocess_memory_bank(_bank([1, 2, 1, 2, 2], features))
    alone = postprocess_memory_bank(_bank([2, 2, 2], features[[1, 3, 4]]))
    assert both[both.category_id == 2].equals(alone)


@pytest.mark.parametrize("num_channels", [1, 384])
def test_prototypes_have_unit_length(num_channels: int) -> None:
    features = np.random.default_rng(2).standard_normal((30, num_channels)) * 1000
    prototypes = postprocess_memory_bank(_bank([row % 4 for row in range(30)], features))
    np.testing.assert_allclose(np.linalg.norm(prototypes.prototype, axis=1), 1, atol=1e-6)
    assert prototypes.prototype.dtype == np.float32


@pytest.mark.parametrize("feature", [[0.0, 0.0], [float("nan"), 1.0]])
def test_a_category_without_features_is_refused(feature: list[float]) -> None:
    with pytest.raises(UnusableReferenceError, match=r"categories \[2\] have no features"):
        postprocess_memory_bank(_bank([1, 2], np.array([[1.0, 0.0], feature])))
