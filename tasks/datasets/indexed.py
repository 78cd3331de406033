"""Datasets as the store holds them, after step 0: read back, and as a ground truth that labels are compared with."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refseg_core.datasets.category_mapping import numbered_as
from refseg_core.datasets.checks.boxes import odd_boxes
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.oddities import Oddity
from refseg_core.errors import DatasetError
from refseg_core.tables import Annotations, Categories, DatasetOddities, FederatedLabels, Images, Prototypes
from tasks.store.lineage import reference_dataset
from tasks.store.store import Artifact, Store, table_name


def load_dataset(store: Store, artifact: Artifact) -> Dataset:
    """Returns an indexed dataset."""
    return Dataset(
        store.load(artifact, Images),
        store.load(artifact, Annotations),
        store.load(artifact, Categories),
        store.load(artifact, FederatedLabels) if is_federated(artifact) else None,
        oddities=_oddities(store, artifact),
    )


def check_boxes(store: Store, artifact: Artifact) -> None:
    """Raises DatasetError where many of an indexed dataset's boxes contradict its masks or images."""
    odd = odd_boxes(load_dataset(store, artifact))
    if odd is not None:
        raise DatasetError(
            f"references: {odd}. Found: {'; '.join(odd.examples)}. Set references.boxes to 'xyxy' for "
            "x1, y1, x2, y2, to 'xywh' to take them as they are, or to 'mask' to take them from the masks."
        )


def oddities_table(oddities: Sequence[Oddity]) -> DatasetOddities:
    """Returns what was odd or guessed when a dataset was read, as a store holds it."""
    return DatasetOddities(
        what=np.array([oddity.what for oddity in oddities], dtype=object),
        count=np.array([oddity.count for oddity in oddities], dtype=np.int64),
        examples=np.array(["\n".join(oddity.examples) for oddity in oddities], dtype=object),
    )


def _oddities(store: Store, artifact: Artifact) -> tuple[Oddity, ...]:
    if table_name(DatasetOddities) not in artifact.num_rows:
        return ()
    table = store.load(artifact, DatasetOddities)
    columns = zip(table.what, table.count.tolist(), table.examples, strict=True)
    return tuple(Oddity(str(what), count, tuple(examples.splitlines())) for what, count, examples in columns)


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
