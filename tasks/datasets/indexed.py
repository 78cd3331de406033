"""Datasets as the store holds them, after step 0: read back, and as a ground truth that labels are compared with."""

from dataclasses import replace

import numpy as np

from refseg_core.datasets.category_mapping import numbered_as
from refseg_core.datasets.dataset import Dataset
from refseg_core.tables import Annotations, Categories, FederatedLabels, Images, Prototypes
from tasks.store.lineage import reference_dataset
from tasks.store.store import Artifact, Store, table_name


def load_dataset(store: Store, artifact: Artifact) -> Dataset:
    """Returns an indexed dataset."""
    return Dataset(
        store.load(artifact, Images),
        store.load(artifact, Annotations),
        store.load(artifact, Categories),
        store.load(artifact, FederatedLabels) if is_federated(artifact) else None,
    )


def is_federated(artifact: Artifact) -> bool:
    """Returns whether an indexed dataset's images say more of categories than their annotations do, as LVIS's do."""
    return table_name(FederatedLabels) in artifact.num_rows


def ground_truth(store: Store, dataset: Artifact, prototypes: Artifact) -> Dataset:
    """Returns the targets with the references' category ids.

    Of the referenced categories, those of the prototypes remain, with the frequencies that the targets give them.
    """
    referenced = store.load(reference_dataset(store, prototypes), Categories)
    targets = numbered_as(referenced, load_dataset(store, dataset))
    evaluated = referenced[np.isin(referenced.category_id, store.load(prototypes, Prototypes).category_id)]
    frequency_of = dict(zip(targets.categories.category_id.tolist(), targets.categories.frequency, strict=True))
    frequencies = [frequency_of.get(category_id) for category_id in evaluated.category_id.tolist()]
    return replace(targets, categories=evaluated.replace(frequency=np.array(frequencies, dtype=object)))
