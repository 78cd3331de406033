"""Proposes a threshold for each category of labels and saves them: an artifact, of which the last one counts.

What says it is the ground truth of the labeled images; for categories of which that has no instance, what people
decided on labels; else the references themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refseg_core.analysis import operating_points, reference_quality
from refseg_core.analysis.audit import ReviewedScores, reviewed_scores, wilson_interval
from refseg_core.analysis.decisions import label_decisions
from refseg_core.analysis.operating_points import Evidence, Proposal, propose
from refseg_core.analysis.reference_quality import guess_threshold
from refseg_core.datasets.dataset import Dataset, select_images
from refseg_core.evaluation.matching import CategoryMatches
from refseg_core.evaluation.protocols import match_instances
from refseg_core.tables import (
    Categories,
    CategoryThresholds,
    Decisions,
    Detections,
    Images,
    ReferenceQuality,
    ThresholdCurves,
)
from refseg_core.versions import combined
from tasks.datasets.indexed import ground_truth
from tasks.datasets.shared_images import shared_image_ids
from tasks.outputs.reference_sheets import assess
from tasks.runtime.progress import ProgressStep, report
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import labeled_categories
from tasks.store.reviews import decisions_hash, decisions_on
from tasks.store.steps import PROPOSE_THRESHOLDS
from tasks.store.store import Artifact, Recipe
from tasks.store.thresholds import last_proposal, num_labeled, shards_hash

_CURVE_POINTS = np.arange(100, 0, -1) / 100
_FEWEST_AUDITED = 5


def propose_thresholds(run: StoredLabels, wanted_precision: float | None = None) -> Artifact:
    """Proposes and saves thresholds, unless those that were saved last were proposed from the same.

    `wanted_precision`: the lowest score that reaches it; None: the score of the best F1.
    """
    recipe = _recipe(run, wanted_precision)
    return run.store.make(recipe, lambda: list(_proposed(run, wanted_precision)))


def _recipe(run: StoredLabels, wanted_precision: float | None) -> Recipe:
    """Returns a recipe with the number of the last proposal where it was made from the same, else with the next one."""
    dataset = run.requested()
    settings: dict[str, Any] = {
        "precision": wanted_precision,
        "shards": shards_hash(run),
        "decisions": decisions_hash(run),
    }
    inputs = {"labels": run.root, **({} if dataset is None else {"dataset": dataset.name})}
    last = last_proposal(run)
    number = 0 if last is None else int((run.store.manifest(last.name) or {})["settings"]["number"])
    same = Recipe(
        *PROPOSE_THRESHOLDS,
        version=combined(operating_points.VERSION, reference_quality.VERSION),
        settings=settings | {"number": number},
        inputs=inputs,
    )
    is_same = last is not None and same.key == last.key
    return same if is_same else replace(same, settings=settings | {"number": number + 1})


@dataclass(frozen=True)
class _Known:
    """What is known of a category, and what says it."""

    source: str
    evidence: Evidence
    audit: ReviewedScores | None = None


def _proposed(run: StoredLabels, wanted_precision: float | None) -> Iterator[CategoryThresholds | ThresholdCurves]:
    categories = labeled_categories(run.store, run.prototypes())
    known = _reviewed(run, categories) | _true(run, categories)
    together = {
        source: Evidence.together([one.evidence for one in known.values() if one.source == source])
        for source in {one.source for one in known.values()}
    }
    proposals: dict[int, Proposal | None] = {}
    guessed = {} if wanted_precision is not None else _guessed(run)
    report(ProgressStep.PROPOSE_THRESHOLDS, total=len(known))
    for category_id, one in known.items():
        proposals[category_id] = propose(one.evidence, together[one.source], wanted_precision=wanted_precision)
        report(ProgressStep.PROPOSE_THRESHOLDS, advanced=1)
    yield _table(categories, known, proposals, guessed, num_labeled(run))
    yield _curves(known)


def _true(run: StoredLabels, categories: Categories) -> dict[int, _Known]:
    """Returns what the ground truth of the labeled images says of each category that it has an instance of."""
    dataset = run.requested()
    if dataset is None or not dataset.num_rows["annotations"]:
        return {}
    truth, detections = _labeled(run, dataset, ground_truth(run.store, dataset, run.prototypes()))
    matches = match_instances(truth, detections, "corrected")
    ids = np.sort(categories.category_id).tolist()
    return {
        category_id: _Known("ground truth", _judged(of_category))
        for category_id, of_category in zip(ids, matches, strict=True)
        if len(of_category.wanted_image)
    }


def _judged(matches: CategoryMatches) -> Evidence:
    """Returns what ground truth says of a category's labels; those that count for nothing are left out."""
    is_judged = matches.is_right | matches.is_wrong
    return Evidence(
        matches.score[is_judged].astype(np.float64),
        matches.is_right[is_judged].astype(np.float64),
        np.ones(int(is_judged.sum())),
        matches.image[is_judged] - 1,
        np.ones(len(matches.wanted_image)),
        matches.wanted_image - 1,
    )


def _labeled(run: StoredLabels, dataset: Artifact, truth: Dataset) -> tuple[Dataset, Detections]:
    """Returns the ground truth of the images that are labeled, and their labels.

    Without images that references lie in, of which labels are better than of others, where there are others.
    """
    detections, image_ids = [Detections.empty()], set[str]()
    shared = shared_image_ids(run.store, run.prototypes(), dataset, truth.images)
    if len(shared) < len(truth.images):
        truth = select_images(truth, set(truth.images.image_id) - set(shared))
    for part, labeled in run.read(truth.images):
        detections.append(part[part.unrepeated()])
        image_ids.update(labeled.image_id[labeled.status != "unreadable"])
    return select_images(truth, image_ids), Detections.concatenate(detections)


def _reviewed(run: StoredLabels, categories: Categories) -> dict[int, _Known]:
    """Returns what people's decisions say of each category that they decided on labels of."""
    decisions = decisions_on(run)
    judged = reviewed_scores(decisions)
    if not len(judged.score):
        return {}
    missed = _missed(decisions)
    scores = _scores(run, run.images())
    known = {}
    for category_id in categories.category_id.tolist():
        own = judged.category_id == category_id
        if own.any():
            right = judged.is_right[own].astype(np.float64)
            all_scores = scores.get(category_id, np.zeros(0))
            evidence = Evidence.of_sample(judged.score[own], right, all_scores, missed.get(category_id, 0))
            known[category_id] = _Known("reviews", evidence, judged)
    return known


def _missed(decisions: Decisions) -> dict[int, int]:
    """Returns how many instances of each category had no label, or one of another category."""
    labels = label_decisions(decisions)
    is_missed = np.isin(labels.verdict, ["add", "category"])
    ids, counts = np.unique(labels.category_id[is_missed], return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _scores(run: StoredLabels, images: Images) -> Mapping[int, operating_points.Floats]:
    """Returns the scores of all labels of each category."""
    ids, scores = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for repeated, _ in run.read(images):
        part = repeated[repeated.unrepeated()]
        ids.append(part.category_id)
        scores.append(part.score.astype(np.float64))
    all_ids, all_scores = np.concatenate(ids), np.concatenate(scores)
    return {category_id: all_scores[all_ids == category_id] for category_id in np.unique(all_ids).tolist()}


def _guessed(run: StoredLabels) -> dict[int, float]:
    """Returns what the references themselves say of each category."""
    has_quality = bool(run.recipe_or_error()["settings"].get("parts", {}).get("quality_in_score"))
    quality = run.store.load(assess(run.store, run.prototypes()), ReferenceQuality)
    own = np.array([np.nan if one is None else one for one in quality.own_similarity], dtype=np.float64)
    guesses = {
        category_id: guess_threshold(own[quality.category_id == category_id], own, has_quality=has_quality)
        for category_id in np.unique(quality.category_id).tolist()
    }
    return {category_id: guess for category_id, guess in guesses.items() if guess is not None}


def _table(
    categories: Categories,
    known: Mapping[int, _Known],
    proposals: Mapping[int, Proposal | None],
    guessed: Mapping[int, float],
    num_images: int,
) -> CategoryThresholds:
    rows: list[tuple[object, ...]] = []
    for category_id, name in zip(categories.category_id.tolist(), categories.name, strict=True):
        one, proposal = known.get(category_id), proposals.get(category_id)
        if one is not None and proposal is not None:
            rows.append((category_id, str(name), one.source, *_numbers(category_id, one, proposal)))
        elif category_id in guessed:
            rows.append((category_id, str(name), "references", guessed[category_id], *_UNKNOWN))
        else:
            rows.append((category_id, str(name), "none", None, *_UNKNOWN))
    names = ("category_id", "category_name", "evidence", *_NUMBERS)
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    table = {name: np.array(values, dtype=object) for name, values in zip(names, columns, strict=True)}
    return CategoryThresholds(**table, num_images=np.full(len(rows), num_images))


_NUMBERS = (
    *("score_thresh", "thresh_low", "thresh_high", "num_instances", "num_labels"),
    *("precision", "precision_low", "precision_high", "recall", "f1"),
)


_UNKNOWN = (None, None, 0, 0, None, None, None, None, None)  # all of these but the threshold


def _numbers(category_id: int, known: _Known, proposal: Proposal) -> tuple[float | None, ...]:
    """Returns the values of `_NUMBERS`."""
    labels = known.evidence.score >= proposal.thresh
    num_right, num = int(known.evidence.is_right[labels].sum()), int(labels.sum())
    if known.audit is not None:
        audited = known.audit.precision(category_id, proposal.thresh)
        if audited.num_decided >= _FEWEST_AUDITED:
            num_right, num = audited.num_right, audited.num_decided
    low, high = wilson_interval(num_right, num)
    return (
        *(proposal.thresh, proposal.low, proposal.high, len(known.evidence.instance_unit), num),
        *(proposal.precision, low, high, proposal.recall, proposal.f1),
    )


def _curves(known: Mapping[int, _Known]) -> ThresholdCurves:
    parts = [ThresholdCurves.empty()]
    for category_id, one in known.items():
        counts = one.evidence.sorted().counts().at(_CURVE_POINTS)
        has_labels = counts.num_labels > 0
        parts.append(
            ThresholdCurves(
                category_id=np.full(int(has_labels.sum()), category_id, dtype=np.int64),
                score=counts.score[has_labels],
                precision=counts.precision[has_labels],
                recall=counts.recall[has_labels],
            )
        )
    return ThresholdCurves.concatenate(parts)
