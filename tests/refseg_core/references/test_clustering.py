"""Vectors that point alike are one group."""

import numpy as np

from refseg_core.references.clustering import clusters


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_vectors_that_point_alike_are_one_group() -> None:
    group = np.repeat(np.arange(3), [30, 5, 20])
    features = _unit(np.eye(3, 16)[group] + np.random.default_rng(0).normal(0, 0.02, (len(group), 16)))
    found = clusters(features, 3, np.random.default_rng(0))
    assert {len(set(found[group == one])) for one in range(3)} == {1}
    assert len(set(found)) == 3


def test_vectors_that_are_all_the_same_are_one_group() -> None:
    assert set(clusters(_unit(np.ones((5, 4))), 3, np.random.default_rng(0))) == {0}
