"""Step 6: compares labels with ground truth, by the protocol that the settings choose."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.datasets.dataset import Dataset, select_images
from refseg_core.errors import DatasetError, StoreError, counted
from refseg_core.evaluation import protocols
from refseg_core.settings import Conventions, EvaluationSettings
from refseg_core.settings.choices import PROTOCOLS
from refseg_core.table_schema import Table
from refseg_core.tables import Detections, Images
from tasks.datasets.indexed import ground_truth
from tasks.datasets.protocol_choice import chosen_protocol
from tasks.datasets.shared_images import added_image_ids, describe, shared_image_ids
from tasks.runtime.retried_task import retried_task
from tasks.storage.uris import redact
from tasks.store.label_choice import other_labels
from tasks.store.label_store import StoredLabels
from tasks.store.reviews import decisions_hash, read_reviewed
from tasks.store.steps import EVALUATE
from tasks.store.store import Artifact, Recipe, Store

log = logging.getLogger(__name__)


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
    kept: LabelFilter | None = None,
) -> Artifact:
    """Evaluates the labels of the dataset's images by what people decided on them, over the prototypes' categories.

    `kept`: of these labels only those of its categories and areas count; AP counts all their scores, and there are
    numbers at its thresholds, too. Of pixels only what reaches its thresholds is painted.
    """
    decided = decisions_hash(StoredLabels(store, labels_key))
    decisive = _decisive(dataset, settings, conventions, is_novel=is_novel)
    images = store.load(dataset, Images)
    shared = shared_image_ids(store, prototypes, dataset, images)
    if shared:
        log.warning(describe(shared, len(images), are_excluded=settings.exclude_references))
    if settings.exclude_references and (added := added_image_ids(store, prototypes, dataset, images)):
        decisive["excluded_added"] = added  # earlier code evaluated these images
    recipe = Recipe(
        *EVALUATE,
        version=protocols.VERSION,
        settings={
            "conventions": conventions,
            **decisive,
            **({} if decided is None else {"decisions": decided}),
            **_kept(kept),
        },
        inputs={"dataset": dataset.name, "labels": f"labels/{labels_key}", "prototypes": prototypes.name},
    )

    def tables() -> list[Table]:
        truth = _truth(store, dataset, prototypes, kept)
        if settings.exclude_references:
            truth = _without(shared, truth)
        detections = _detections(store, labels_key, truth.images)
        if kept is None:
            return protocols.review(
                truth, detections, settings=settings, conventions=conventions, is_novel=is_novel
            ).tables
        is_of_pixels = PROTOCOLS[chosen_protocol(dataset, settings, conventions)].of_pixels
        cut = kept if is_of_pixels else replace(kept, thresholds=ScoreThresholds())
        return protocols.review(
            truth,
            cut.apply(detections, truth.categories),
            settings=settings.model_copy(update={"semantic_score_thresh": 0.0}),
            conventions=conventions,
            is_novel=is_novel,
            thresh_of=kept.thresholds.of,
        ).tables

    return store.make(recipe, tables)


def _truth(store: Store, dataset: Artifact, prototypes: Artifact, kept: LabelFilter | None) -> Dataset:
    """Returns the ground truth of the categories that count."""
    truth = ground_truth(store, dataset, prototypes)
    if kept is not None and kept.categories is not None:
        truth = replace(truth, categories=truth.categories[np.isin(truth.categories.name, kept.categories)])
    return truth


def _without(shared: Sequence[str], truth: Dataset) -> Dataset:
    """Returns the ground truth without the images that references lie in. Raises DatasetError where none is left."""
    if len(shared) == len(truth.images):
        raise DatasetError(
            f"evaluation.exclude_references: references lie in all of {counted(len(shared), 'image')}, so that none "
            "is left to evaluate. Give other targets, or set it to false."
        )
    return select_images(truth, set(truth.images.image_id) - set(shared))


def _decisive(
    dataset: Artifact, settings: EvaluationSettings, conventions: Conventions, *, is_novel: bool
) -> dict[str, Any]:
    """Returns what of the settings decides the numbers."""
    protocol = chosen_protocol(dataset, settings, conventions)
    excluded = {"exclude_references": True} if settings.exclude_references else {}
    if PROTOCOLS[protocol].of_pixels:
        return {"protocol": protocol, "score_thresh": settings.semantic_score_thresh, **excluded}
    return {"protocol": protocol, "score_threshes": settings.sorted_score_threshes, "is_novel": is_novel, **excluded}


def _kept(kept: LabelFilter | None) -> dict[str, Any]:
    """Returns what of a filter decides the numbers: nothing without one, which older metrics were made without."""
    if kept is None:
        return {}
    thresholds = {"others": kept.thresholds.others, "by_name": dict(kept.thresholds.by_name)}
    areas = {name: area and area._asdict() for name, area in (("min", kept.min_area), ("max", kept.max_area))}
    categories = None if kept.categories is None else sorted(kept.categories)
    return {"kept": {"thresholds": thresholds, "categories": categories, "areas": areas}}


def _detections(store: Store, labels_key: str, images: Images) -> Detections:
    detections, num_labeled = [Detections.empty()], 0
    for part, labeled in read_reviewed(StoredLabels(store, labels_key), images):
        detections.append(part)
        num_labeled += len(labeled)
    if num_labeled < len(images):
        others = other_labels(store, labels_key)
        hint = f" It also holds labels {'; '.join(others)}: to evaluate those, set what differs." if others else ""
        raise StoreError(
            f"{redact(store.uri)}: only {num_labeled} of {counted(len(images), 'image is', 'images are')} labeled "
            f"with these settings (labels {labels_key}). Run `refseg label` to the end first.{hint}"
        )
    return Detections.concatenate(detections)
