"""The background is what reference images show outside of all annotations, but for what references resemble."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.references.background import (
    NUM_GROUPS,
    SeenReferences,
    background_prototypes,
    patches_outside,
    seen_references,
)
from refseg_core.references.clustering import Floats
from refseg_core.tables import MemoryBank

_AXES = np.eye(8, dtype=np.float32)


def _around(axes: list[int], number: int, seed: int = 0) -> Floats:
    """Unit vectors, so many close to each of some axes."""
    noise = np.random.default_rng(seed).normal(0, 0.02, (number * len(axes), 8))
    vectors = np.repeat(_AXES[axes], number, axis=0) + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _references(features: Floats, own: list[float], ids: list[int] | None = None) -> SeenReferences:
    return SeenReferences(np.array(ids or [1] * len(own)), features, np.array(own, dtype=np.float32))


def test_patches_that_hold_anything_annotated_are_none_of_the_background() -> None:
    features = torch.arange(1.0, 17)[:, None] * torch.ones(1, 3)
    features[:, 0] *= -1
    annotated = np.zeros((8, 8), dtype=bool)
    annotated[0, 0] = annotated[4:, 4:] = True
    outside = patches_outside(features, annotated)
    assert len(outside) == 16 - 1 - 4
    np.testing.assert_allclose(np.linalg.norm(outside, axis=1), 1, rtol=1e-6)
    assert len(patches_outside(features, np.ones((8, 8), dtype=bool))) == 0


def test_each_kind_of_background_is_a_prototype_of_unit_length_with_its_patches() -> None:
    found = background_prototypes(_around([0, 1, 2], 20), _references(_AXES[5:6], [0.5]))
    likeness = found.prototype @ _AXES[:3].T
    assert set(likeness.argmax(axis=1)) == {0, 1, 2}
    np.testing.assert_allclose(np.linalg.norm(found.prototype, axis=1), 1, rtol=1e-5)
    assert found.num_references.sum() <= 60
    assert found.is_background.all()
    assert len(set(found.category_id.tolist())) == len(found) <= NUM_GROUPS


def test_a_group_that_references_resemble_more_than_their_category_is_left_out() -> None:
    """As where a category's other instances are not annotated."""
    patches = _around([0, 1], 20)
    found = background_prototypes(patches, _references(_around([1], 3), [0.4, 0.5, 0.6]))
    assert len(found)
    assert (found.prototype[:, 0] > 0.9).all()
    unlike = background_prototypes(patches, _references(_around([5], 3), [0.4, 0.5, 0.6]))
    assert (unlike.prototype[:, 1] > 0.9).any()


def test_one_odd_reference_among_others_leaves_nothing_out() -> None:
    features = np.concatenate([_around([5], 3), _around([1], 1)])
    found = background_prototypes(_around([0, 1], 20), _references(features, [0.9, 0.9, 0.9, 0.1]))
    assert (found.prototype[:, 1] > 0.9).any()
    as_its_own = background_prototypes(_around([0, 1], 20), _references(features, [0.9, 0.9, 0.9, 0.1], [1, 1, 1, 2]))
    assert (as_its_own.prototype[:, 1] < 0.5).all()


@given(st.permutations(range(7)), st.integers(0, 9))
def test_the_order_of_references_does_not_matter(order: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(7, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    references = SeenReferences(generator.integers(1, 4, 7), features, generator.uniform(0, 1, 7).astype(np.float32))
    moved = SeenReferences(*(values[order] for values in references))
    patches = _around([0, 1, 2, 3], 12, seed)
    assert background_prototypes(patches, references).equals(background_prototypes(patches, moved))


def test_where_annotations_cover_everything_there_is_no_background() -> None:
    assert len(background_prototypes(np.zeros((0, 8), dtype=np.float32), _references(_AXES[:1], [1.0]))) == 0


def test_a_reference_is_compared_with_the_others_of_its_category_and_alone_with_itself_less_a_margin() -> None:
    bank = MemoryBank(
        category_id=np.array([4, 4, 9]),
        shot=np.array([0, 1, 0]),
        foreground_weight=np.ones(3),
        feature=np.array([[1, 0], [0.6, 0.8], [0, 3]]),
    )
    seen = seen_references([torch.tensor([2.0, 0]), torch.tensor([0, 0.5]), None], bank, [0, 2, 1])
    assert seen.category_id.tolist() == [4, 9]
    assert seen.own_R.tolist() == pytest.approx([0.6, 0.9])
    assert seen.feature_RC.tolist() == [[1, 0], [0, 1]]
    assert len(seen_references([], bank, []).own_R) == 0
