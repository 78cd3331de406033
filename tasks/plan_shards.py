"""Compares the dataset as it is now with the labels that there are.

Images that are not labeled yet are cut into shards; labels of images that are gone, removed from the folder or changed
since, are found and named.
"""

import logging
from dataclasses import asdict
from typing import Any

import numpy as np

from refseg_core import images as image_decoding
from refseg_core.errors import listed
from refseg_core.labeling.batch_labeler import version_of
from refseg_core.labeling.composing.candidates import NEGATIVES_VERSION
from refseg_core.models import preprocessing
from refseg_core.models.registry import model_spec
from refseg_core.settings import PART_NAMES, LabelingSettings, Purpose
from refseg_core.settings.labeling_methods import PUBLISHED
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import GoneLabels, Images, NegativePrototypes
from refseg_core.versions import combined
from tasks.models.area_limits import with_areas
from tasks.models.guidance import guidance_of, is_chosen, with_thresh
from tasks.models.weights import sha256_of_models
from tasks.runtime.progress import ProgressStep, report
from tasks.runtime.retried_task import retried_task
from tasks.specs import LabelSpec
from tasks.storage.uris import redact
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import LabelPlan, PlanPart
from tasks.store.steps import FIND_GONE_LABELS, LABEL_SHARD
from tasks.store.store import Artifact, Recipe, Store, table_name

log = logging.getLogger(__name__)

_OTHER_IDS = (
    "%d of %d images were planned before under other ids, and are labeled again: ids are those of targets.annotations "
    "where it is COCO json, and names of files elsewhere: %s. To keep the labels that there are, stop now and set "
    "targets.annotations to what it was."
)
_GONE_VERSION = 1  # of tables of gone labels
_CLEANING = ("min_island", "min_hole")  # nothing is smaller than a pixel


@retried_task("plan shards")
def plan_shards(
    store: Store, *, dataset: Artifact, prototypes: Artifact, spec: LabelSpec, purpose: Purpose = "run"
) -> LabelPlan:
    """Plans new images, and finds the shards that are not labeled yet. `purpose`: what the labels are noted to be for.

    Labels for several purposes are the same labels where everything that decides them is the same.
    """
    labeling, inputs = with_areas(store, prototypes, spec.labeling), {"prototypes": prototypes.name}
    if is_chosen(labeling):
        guidance = guidance_of(store, prototypes, spec)
        labeling, inputs["guidance"] = with_thresh(store, guidance, labeling), guidance.name
    of_models = (model_spec(model.model).version for model in (spec.segmenter, spec.encoder))
    recipe = Recipe(
        *LABEL_SHARD,
        version=combined(image_decoding.VERSION, preprocessing.VERSION, *of_models),  # whatever the path
        settings={"images": redact(spec.images), **_deciding(labeling), **_of_negatives(prototypes)},
        inputs=inputs,
        weights=sha256_of_models(spec),
    )
    run = StoredLabels.open(store, recipe)
    run.request(dataset, purpose)
    images, num_plans = store.load(dataset, Images), run.plans.count()
    shards = run.plan(images, spec.batches.images_per_shard)
    if 0 < num_plans < run.plans.count() and (names := planned_under_other_ids(run, images, num_plans)):
        log.warning(_OTHER_IDS, len(names), len(images), listed(names))
    pending = tuple(run.pending(shards))
    report(ProgressStep.LABEL, total=int(np.sum([len(shard) for shard in pending])))
    return LabelPlan(dataset, run.key, pending)


def _deciding(labeling: LabelingSettings) -> dict[str, Any]:
    """Returns the settings that decide labels; without path and parts for those that older stores have labels of."""
    version = version_of(labeling)
    changed = {} if version == 1 else {"path_version": version}
    path = LABELING_PATHS[labeling.path]
    named = {} if path.name == "exact" else {"path": path.former_name or path.name}
    parts = {} if labeling.parts == PUBLISHED else {"parts": asdict(labeling.parts)}
    unused = {"keep_proposals"} | (set() if path.is_guided else {"guidance_thresh"})
    of_masks = {"area": labeling.area.model_dump(exclude={"margin"})} if not labeling.area.is_off else {}
    of_masks |= {name: pixels for name in _CLEANING if (pixels := getattr(labeling, name)) > 1}
    excluded = {"path", "method", "area", *_CLEANING, *PART_NAMES} | unused
    return changed | named | parts | labeling.model_dump(mode="json", exclude=excluded) | of_masks


def planned_under_other_ids(run: StoredLabels, now: Images, num_plans: int) -> list[str]:
    """Returns the names of files that were planned in their version before, by ids that no image has now.

    Only those that a plan after the first `num_plans` holds by their new ids.
    """
    ids, before = set(now.image_id), set[tuple[str, str]]()
    names: list[str] = []
    for number, manifest in enumerate(run.plans.manifests()):
        for part in run.plans.parts_of(number, manifest):
            images = part.images
            files = zip(images.image_id, images.file_name, map(_of_file, images.version), strict=True)
            if number < num_plans:
                before |= {(name, version) for own, name, version in files if own not in ids}
            else:
                names += [name for _, name, version in files if (name, version) in before]
    return names


def _of_file(version: str) -> str:
    """Returns what a listing says of a file, without what annotations say of its frame."""
    return version.partition(" ")[0]


def _of_negatives(prototypes: Artifact) -> dict[str, int]:
    """Returns the version of what negatives do, where there are some."""
    has_some = table_name(NegativePrototypes) in prototypes.num_rows
    return {"negatives_version": NEGATIVES_VERSION} if has_some else {}


@retried_task("find gone labels")
def find_gone_labels(store: Store, *, dataset: Artifact, labels_key: str) -> Artifact:
    """Compares everything that was ever planned with the dataset as it is now; deletes nothing."""
    run = StoredLabels(store, labels_key)
    recipe = Recipe(
        *FIND_GONE_LABELS,
        version=_GONE_VERSION,
        settings={"num_plans": run.plans.count()},
        inputs={"dataset": dataset.name, "labels": run.root},
    )
    return store.make(recipe, lambda: [gone_labels(run, store.load(dataset, Images))])


def gone_labels(run: StoredLabels, now: Images) -> GoneLabels:
    """Returns the planned images that are not among the given ones in their version."""
    version_of = dict(zip(now.image_id, now.version, strict=True))
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
