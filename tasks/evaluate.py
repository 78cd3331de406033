"""Step 6: compares labels with ground truth, by the protocol that the settings choose."""

from dataclasses import replace
from typing import Any

import numpy as np

from refseg_core import evaluation
from refseg_core.datasets.category_mapping import numbered_as
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import StoreError
from refseg_core.settings import Conventions, EvaluationSettings, Protocol
from refseg_core.tables import (
    Annotations,
    Categories,
    Confusion,
    Detections,
    Images,
    Metrics,
    Misses,
    Prototypes,
)
from tasks.index_dataset import is_federated, load_dataset
from tasks.runtime.retried_task import retried_task
from tasks.storage.uris import redact
from tasks.store.label_store import LabelRun
from tasks.store.lineage import reference_dataset
from tasks.store.store import Artifact, Recipe, Store, table_name


@retried_task("evaluate")
def evaluate(
    store_uri: str,
    *,
    dataset: Artifact,
    prototypes: Artifact,
    labels_key: str,
    settings: EvaluationSettings,
    conventions: Conventions,
    is_novel: bool = False,
) -> Artifact:
    """Evaluates the labels of the dataset's images, over the prototypes' categories."""
    store = Store(store_uri)
    recipe = Recipe(
        "evaluate",
        "metrics",
        version=2,
        settings={"conventions": conventions, **_decisive(dataset, settings, conventions, is_novel=is_novel)},
        inputs={"dataset": dataset.name, "labels": f"labels/{labels_key}", "prototypes": prototypes.name},
    )
    return store.make(
        recipe,
        lambda: (
            _review(
                ground_truth(store, dataset, prototypes), store, labels_key, settings, conventions, is_novel=is_novel
            ).tables
        ),
    )


def check_protocol(store: Store, dataset: Artifact, settings: EvaluationSettings, conventions: Conventions) -> None:
    """Raises DatasetError where the dataset does not hold what the protocol compares."""
    if _protocol(dataset, settings, conventions) == "semantic":
        evaluation.require_masks(store.load(dataset, Annotations))


def protocol_of(store: Store, metrics: Artifact) -> Protocol:
    """The protocol that gave the metrics."""
    manifest = store.manifest(metrics.name) or {}
    protocol: Protocol = manifest.get("settings", {}).get("protocol", "coco")
    return protocol


def _protocol(dataset: Artifact, settings: EvaluationSettings, conventions: Conventions) -> Protocol:
    return evaluation.choose_protocol(settings.protocol, conventions, is_federated=is_federated(dataset))


def _decisive(
    dataset: Artifact, settings: EvaluationSettings, conventions: Conventions, *, is_novel: bool
) -> dict[str, Any]:
    """What of the settings decides the numbers."""
    protocol = _protocol(dataset, settings, conventions)
    if protocol == "semantic":
        return {"protocol": protocol, "score_thresh": settings.semantic_score_thresh}
    return {"protocol": protocol, "score_threshes": settings.sorted_score_threshes, "is_novel": is_novel}


def load_review(store: Store, metrics: Artifact) -> evaluation.Review:
    """What the evaluation made. Metrics of older versions are all there is of them."""
    return evaluation.Review(
        store.load(metrics, Metrics),
        store.load(metrics, Confusion) if table_name(Confusion) in metrics.num_rows else None,
        store.load(metrics, Misses) if table_name(Misses) in metrics.num_rows else None,
    )


def _review(
    truth: Dataset,
    store: Store,
    labels_key: str,
    settings: EvaluationSettings,
    conventions: Conventions,
    *,
    is_novel: bool,
) -> evaluation.Review:
    return evaluation.review(
        truth.images,
        truth.annotations,
        truth.categories,
        _detections(store, labels_key, truth.images),
        federated_labels=truth.federated_labels,
        settings=settings,
        conventions=conventions,
        is_novel=is_novel,
    )


def ground_truth(store: Store, dataset: Artifact, prototypes: Artifact) -> Dataset:
    """The targets with the references' category ids; of categories the prototypes' alone."""
    referenced = store.load(reference_dataset(store, prototypes), Categories)
    targets = numbered_as(referenced, load_dataset(store, dataset))
    is_evaluated = np.isin(referenced.category_id, store.load(prototypes, Prototypes).category_id)
    return replace(targets, categories=_with_frequencies(referenced[is_evaluated], targets.categories))


def _detections(store: Store, labels_key: str, images: Images) -> Detections:
    detections, num_labeled = [Detections.empty()], 0
    for part, labeled in LabelRun(store, labels_key).read(images):
        detections.append(part)
        num_labeled += len(labeled)
    if num_labeled < len(images):
        raise StoreError(
            f"{redact(store.uri)}: only {num_labeled} of {len(images)} images are labelled. "
            "Run `refseg label` to the end first."
        )
    return Detections.concatenate(detections)


def _with_frequencies(evaluated: Categories, targets: Categories) -> Categories:
    """The referenced categories, with the frequencies that the targets give them."""
    frequency_of = dict(zip(targets.category_id.tolist(), targets.frequency, strict=True))
    frequencies = [frequency_of.get(category_id) for category_id in evaluated.category_id.tolist()]
    return evaluated.replace(frequency=np.array(frequencies, dtype=object))
