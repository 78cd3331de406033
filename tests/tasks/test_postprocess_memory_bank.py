"""Each category becomes one unit vector, or an error that names it."""

import numpy as np
import pytest

from refseg_core.errors import DatasetError
from refseg_core.settings import SamplingSettings
from refseg_core.tables import MemoryBank, Prototypes
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.store.store import Recipe
from tests.support.projects.project import CATEGORIES
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_each_category_becomes_one_unit_vector(steps: Steps) -> None:
    references = steps.references(SamplingSettings(num_shots=2))
    artifact = postprocess_memory_bank.fn(steps.store, references, steps.fill(steps.dataset(), references))
    prototypes = steps.store.load(artifact, Prototypes)
    assert prototypes.category_id.tolist() == list(CATEGORIES)
    assert prototypes.num_references.tolist() == [2, 2]
    np.testing.assert_allclose(np.linalg.norm(prototypes.prototype, axis=1), 1, rtol=1e-5)


def test_a_category_that_lost_all_its_references_is_an_error_that_names_it(steps: Steps) -> None:
    references = steps.references()
    bank = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    left = steps.store.make(Recipe("test", "memory_bank", version=1), lambda: [bank[bank.category_id == 8]])
    with pytest.raises(DatasetError, match=r"\[3\]"):
        postprocess_memory_bank.fn(steps.store, references, left)
