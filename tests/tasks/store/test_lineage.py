"""From prototypes back to the references and the dataset that they were made from."""

import uuid

import pytest

from refseg_core.errors import StoreError
from refseg_core.tables import Categories, MemoryBank, Prototypes, References
from tasks.store.lineage import reference_dataset, references_of
from tasks.store.store import Artifact, Recipe, Store


@pytest.fixture
def store() -> Store:
    return Store(f"memory://{uuid.uuid4().hex}")


def _dataset(store: Store) -> Artifact:
    return store.save(Recipe("index_dataset", "dataset", version=1, inputs={"content": "0"}), [Categories.empty()])


def _sampled(store: Store, dataset: Artifact) -> Artifact:
    recipe = Recipe("sample_references", "references", version=1, inputs={"dataset": dataset.name})
    return store.save(recipe, [References.empty()])


def _segmented(store: Store, sampled: Artifact) -> Artifact:
    inputs = {"references": sampled.name, "images": "0"}
    return store.save(Recipe("segment_references", "references", version=1, inputs=inputs), [References.empty()])


def _prototypes(store: Store, references: Artifact) -> Artifact:
    inputs = {"references": references.name, "images": "0"}
    bank = store.save(Recipe("fill_memory_bank", "memory_bank", version=1, inputs=inputs), [MemoryBank.empty()])
    recipe = Recipe("postprocess_memory_bank", "prototypes", version=1, inputs={"memory_bank": bank.name})
    return store.save(recipe, [Prototypes.empty()])


def test_references_with_masks_of_their_own_lead_straight_to_the_dataset(store: Store) -> None:
    dataset = _dataset(store)
    sampled = _sampled(store, dataset)
    prototypes = _prototypes(store, sampled)
    assert references_of(store, prototypes) == sampled
    assert reference_dataset(store, prototypes) == dataset


def test_segmented_references_lead_to_the_dataset_through_the_sampled_ones(store: Store) -> None:
    dataset = _dataset(store)
    segmented = _segmented(store, _sampled(store, dataset))
    prototypes = _prototypes(store, segmented)
    assert references_of(store, prototypes) == segmented
    assert reference_dataset(store, prototypes) == dataset


def test_what_is_gone_from_the_store_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match="prototypes/0123"):
        references_of(store, Artifact("prototypes", "0123", {}))
    with pytest.raises(StoreError, match="dataset/0123"):
        reference_dataset(store, _prototypes(store, _sampled(store, Artifact("dataset", "0123", {}))))


def test_messages_show_no_secret() -> None:
    store = Store(f"memory://user:hunter2@{uuid.uuid4().hex}/store")
    for gone in (Artifact("prototypes", "0123", {}), _prototypes(store, Artifact("references", "0123", {}))):
        with pytest.raises(StoreError, match="0123") as caught:
            references_of(store, gone)
        assert "hunter2" not in str(caught.value)
