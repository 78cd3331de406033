"""Finds the labels that belong to images which are gone: removed from the folder, or changed since."""

import numpy as np

from refseg_core.tables import GoneLabels, Images
from tasks.runtime.retried_task import retried_task
from tasks.store.label_store import LabelRun
from tasks.store.shard_plans import PlanPart
from tasks.store.store import Artifact, Recipe, Store


@retried_task("find gone labels")
def find_gone_labels(store_uri: str, *, dataset: Artifact, labels_key: str) -> Artifact:
    """Compares everything that was ever planned with the dataset as it is now; deletes nothing."""
    store = Store(store_uri)
    run = LabelRun(store, labels_key)
    recipe = Recipe(
        "find_gone_labels",
        "gone_labels",
        version=1,
        settings={"num_plans": run.plans.count()},
        inputs={"dataset": dataset.name, "labels": run.root},
    )
    return store.make(recipe, lambda: [gone_labels(run, store.load(dataset, Images))])


def gone_labels(run: LabelRun, images: Images) -> GoneLabels:
    """The planned images that are not among the given ones in their version."""
    version_of = dict(zip(images.image_id, images.version, strict=True))
    return GoneLabels.concatenate([_gone(part, version_of) for part in run.plans.parts()])


def _gone(part: PlanPart, version_of: dict[str, str]) -> GoneLabels:
    now = [version_of.get(image_id) for image_id in part.images.image_id]
    rows = np.array([row for row, version in enumerate(part.images.version) if now[row] != version], dtype=np.int64)
    shard_of = np.array([shard.name for shard in part.shards for _ in range(len(shard))], dtype=object)
    return GoneLabels(
        image_id=part.images.image_id[rows],
        version=part.images.version[rows],
        reason=np.array(["removed" if now[row] is None else "changed" for row in rows.tolist()], dtype=object),
        shard=shard_of[rows],
    )
