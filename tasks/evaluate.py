"""Step 6: compares labels with ground truth, by the protocol that the settings choose."""

from typing import Any

from refseg_core.errors import StoreError
from refseg_core.evaluation import protocols
from refseg_core.evaluation.semantic import require_masks
from refseg_core.settings import Conventions, EvaluationSettings, ProtocolName
from refseg_core.settings.choices import PROTOCOLS
from refseg_core.table_schema import Table
from refseg_core.tables import Annotations, Detections, Images
from tasks.datasets.indexed import ground_truth, is_federated
from tasks.runtime.retried_task import retried_task
from tasks.storage.uris import redact
from tasks.store.label_store import StoredLabels
from tasks.store.reviews import decisions_hash, read_reviewed
from tasks.store.steps import EVALUATE
from tasks.store.store import Artifact, Recipe, Store


@retried_task("evaluate")
def evaluate(
    store: Store,
    *,
    dataset: Artifact,
    prototypes: Artifact,
    labels_key: str,
    settings: EvaluationSettings,
    conventions: Conventions,
    is_novel: bool = False,
) -> Artifact:
    """Evaluates the labels of the dataset's images by what people decided on them, over the prototypes' categories."""
    decided = decisions_hash(StoredLabels(store, labels_key))
    decisive = _decisive(dataset, settings, conventions, is_novel=is_novel)
    recipe = Recipe(
        *EVALUATE,
        version=protocols.VERSION,
        settings={"conventions": conventions, **decisive, **({} if decided is None else {"decisions": decided})},
        inputs={"dataset": dataset.name, "labels": f"labels/{labels_key}", "prototypes": prototypes.name},
    )

    def tables() -> list[Table]:
        truth = ground_truth(store, dataset, prototypes)
        detections = _detections(store, labels_key, truth.images)
        return protocols.review(truth, detections, settings=settings, conventions=conventions, is_novel=is_novel).tables

    return store.make(recipe, tables)


def check_protocol(store: Store, dataset: Artifact, settings: EvaluationSettings, conventions: Conventions) -> None:
    """Raises DatasetError where the dataset does not hold what the protocol compares."""
    if PROTOCOLS[_protocol(dataset, settings, conventions)].of_pixels:
        require_masks(store.load(dataset, Annotations))


def _protocol(dataset: Artifact, settings: EvaluationSettings, conventions: Conventions) -> ProtocolName:
    return protocols.choose_protocol(settings.protocol, conventions, is_federated=is_federated(dataset))


def _decisive(
    dataset: Artifact, settings: EvaluationSettings, conventions: Conventions, *, is_novel: bool
) -> dict[str, Any]:
    """Returns what of the settings decides the numbers."""
    protocol = _protocol(dataset, settings, conventions)
    if PROTOCOLS[protocol].of_pixels:
        return {"protocol": protocol, "score_thresh": settings.semantic_score_thresh}
    return {"protocol": protocol, "score_threshes": settings.sorted_score_threshes, "is_novel": is_novel}


def _detections(store: Store, labels_key: str, images: Images) -> Detections:
    detections, num_labeled = [Detections.empty()], 0
    for part, labeled in read_reviewed(StoredLabels(store, labels_key), images):
        detections.append(part)
        num_labeled += len(labeled)
    if num_labeled < len(images):
        raise StoreError(
            f"{redact(store.uri)}: only {num_labeled} of {len(images)} images are labeled. "
            "Run `refseg label` to the end first."
        )
    return Detections.concatenate(detections)
