"""Each reference becomes one vector, once for the same encoder and images."""

import json

import numpy as np
import pytest

from refseg_core.settings import SamplingSettings
from refseg_core.tables import MemoryBank
from tasks import fill_memory_bank as fill_module
from tests.support.models import TINY_ENCODER
from tests.support.projects.project import CATEGORIES, read_coco
from tests.support.projects.steps import Steps, forbid

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_every_reference_becomes_one_vector(steps: Steps) -> None:
    bank = steps.store.load(steps.fill(steps.dataset(), steps.references()), MemoryBank)
    assert bank.category_id.tolist() == list(CATEGORIES)
    assert bank.feature.shape == (2, TINY_ENCODER.embed_dim)
    assert (bank.foreground_weight > 0).all()
    assert np.isfinite(bank.feature).all()


def test_the_bank_is_filled_once_and_follows_encoder_and_images(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, references = steps.dataset(), steps.references()
    first = steps.fill(dataset, references)
    assert set(steps.manifest(first)["weights"]) == {"encoder"}
    with monkeypatch.context() as patch:
        forbid(patch, fill_module, "encode_references")
        assert steps.fill(dataset, references) == first
    steps.config = steps.project.config_with({"references.crop.context_ratio": 0.5})
    assert steps.fill(dataset, references) != first


def test_more_references_than_a_batch_are_all_encoded_and_each_as_alone(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = steps.references(SamplingSettings(num_shots=2))
    together = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    monkeypatch.setattr(fill_module, "_CROPS_PER_BATCH", 1)
    elsewhere = steps.elsewhere()
    bank = elsewhere.fill(elsewhere.dataset(), elsewhere.references(SamplingSettings(num_shots=2)))
    alone = elsewhere.store.load(bank, MemoryBank)
    assert together.shot.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(together.feature, alone.feature, rtol=1e-4, atol=1e-5)


def test_a_reference_whose_mask_vanishes_is_left_out_with_a_warning(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    path = steps.project.folder / "references.json"
    content = read_coco(path)
    content["annotations"][0]["segmentation"] = [[120, 90, 124, 90, 124, 94, 120, 94]]  # outside its box
    path.write_text(json.dumps(content))
    references = steps.references(ids=["1", "2", "3"])
    bank = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    assert sorted(zip(bank.category_id.tolist(), bank.shot.tolist(), strict=True)) == [(3, 1), (8, 0)]
    assert "Reference annotation 1 (category 3, image r0.png) is left out" in caplog.text


def test_all_views_are_another_bank_of_the_same_references(steps: Steps) -> None:
    dataset, references = steps.dataset(), steps.references()
    crops = steps.fill(dataset, references)
    steps.config = steps.project.config_with({"labeling.method": "accurate"})
    views = steps.fill(dataset, references)
    assert views != crops
    one, all_views = (steps.store.load(bank, MemoryBank) for bank in (crops, views))
    assert one.category_id.tolist() == all_views.category_id.tolist()
    np.testing.assert_array_equal(one.foreground_weight, all_views.foreground_weight)
    assert not np.allclose(one.feature, all_views.feature, atol=1e-3)
