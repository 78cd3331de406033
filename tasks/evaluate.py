"""Step 6: compares labels with ground truth, in COCO's terms."""

import numpy as np

from refseg_core import evaluation
from refseg_core.errors import DatasetError, StoreError
from refseg_core.settings import Conventions
from refseg_core.tables import Annotations, Categories, Detections, Images, Metrics, Prototypes
from tasks.addresses import redact
from tasks.artifacts import Artifact, Recipe, Store
from tasks.labels import LabelRun
from tasks.lineage import reference_dataset
from tasks.retrying import retried_task


@retried_task("evaluate")
def evaluate(
    store_uri: str, *, dataset: Artifact, prototypes: Artifact, labels_key: str, conventions: Conventions
) -> Artifact:
    """Evaluates the labels of the dataset's images, over the prototypes' categories."""
    store = Store(store_uri)
    recipe = Recipe(
        "evaluate",
        "metrics",
        version=1,
        settings={"conventions": conventions},
        inputs={"dataset": dataset.name, "labels": f"labels/{labels_key}", "prototypes": prototypes.name},
    )
    return store.make(recipe, lambda: [_metrics(store, dataset, prototypes, labels_key, conventions)])


def _metrics(
    store: Store, dataset: Artifact, prototypes: Artifact, labels_key: str, conventions: Conventions
) -> Metrics:
    images = store.load(dataset, Images)
    detections, num_labeled = [Detections.empty()], 0
    for part, labeled in LabelRun(store, labels_key).read(images):
        detections.append(part)
        num_labeled += len(labeled)
    if num_labeled < len(images):
        raise StoreError(
            f"{redact(store.uri)}: only {num_labeled} of {len(images)} images are labelled. "
            "Run `refseg label` to the end first."
        )
    return evaluation.evaluate(
        images,
        store.load(dataset, Annotations),
        _evaluated_categories(store, dataset, prototypes),
        Detections.concatenate(detections),
        conventions=conventions,
    )


def _evaluated_categories(store: Store, dataset: Artifact, prototypes: Artifact) -> Categories:
    referenced = store.load(reference_dataset(store, prototypes), Categories)
    check_categories(referenced, store.load(dataset, Categories))
    return referenced[np.isin(referenced.category_id, store.load(prototypes, Prototypes).category_id)]


def check_categories(references: Categories, targets: Categories) -> None:
    """Raises DatasetError where references and targets give one id different names."""
    name_of = dict(zip(targets.category_id.tolist(), targets.name, strict=True))
    conflicts = [
        f"{category_id} is {name!r} in the references and {name_of[category_id]!r} in the targets"
        for category_id, name in zip(references.category_id.tolist(), references.name, strict=True)
        if name_of.get(category_id, name) != name
    ]
    if conflicts:
        raise DatasetError(
            f"References and targets number their categories differently: {'; '.join(conflicts[:8])}. "
            "Give both annotation files the same category ids."
        )
