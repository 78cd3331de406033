"""Cuts the images that are not labelled yet into shards."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.tables import Images
from tasks.models.weights import weights_sha256
from tasks.runtime.progress import report
from tasks.runtime.retried_task import retried_task
from tasks.specs import ModelSettings
from tasks.storage.uris import redact
from tasks.store.label_store import FOLDER, LabelRun
from tasks.store.shard_plans import Shard
from tasks.store.store import Artifact, Recipe, Store

_VERSION_OF_PATH = {"fast": 2, "turbo": 2}  # counted up where what a path computes is changed


@dataclass(frozen=True)
class LabelPlan:
    """What is to be labelled: the images, the labels' key, and the shards still to do.

    `gone`, once it is known, is the table of labels whose images were removed or changed.
    """

    dataset: Artifact
    key: str
    pending: tuple[Shard, ...]
    gone: Artifact | None = None


@retried_task("plan shards")
def plan_shards(
    store_uri: str,
    *,
    dataset: Artifact,
    prototypes: Artifact,
    images_uri: str,
    labeling: LabelingSettings,
    batches: BatchSettings,
    segmenter: ModelSettings,
    encoder: ModelSettings,
) -> LabelPlan:
    """Plans new images, and finds the shards that are not labelled yet."""
    store = Store(store_uri)
    recipe = Recipe(
        "label_shard",
        FOLDER,
        version=1,
        settings={"images": redact(images_uri), **_deciding(labeling)},
        inputs={"prototypes": prototypes.name},
        weights={
            "segmenter": weights_sha256(segmenter.model, segmenter.weights),
            "encoder": weights_sha256(encoder.model, encoder.weights),
        },
    )
    run = LabelRun.open(store, recipe)
    run.request(dataset)
    pending = tuple(run.pending(run.plan(store.load(dataset, Images), batches.images_per_shard)))
    report("label", total=int(np.sum([len(shard) for shard in pending])))
    return LabelPlan(dataset, run.key, pending)


def _deciding(labeling: LabelingSettings) -> dict[str, Any]:
    """What of the settings decides the labels; nothing for the exact path, whose labels were made before others."""
    version = _VERSION_OF_PATH.get(labeling.path)
    changed = {} if version is None else {"path_version": version}
    return changed | labeling.model_dump(mode="json", exclude={"path"} if labeling.path == "exact" else set())
