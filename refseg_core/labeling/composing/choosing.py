"""Chooses the instances of an image from its proposals: matches, looks again, merges, refines.

Shapes: N proposals, n instances or candidates, G mask logits side, P patches, C channels, K categories and negatives.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE
from refseg_core.labeling.composing.candidates import Candidates, Fit, candidates_of, looked_at_again
from refseg_core.labeling.composing.pool import DecodedPool, Look, Pool
from refseg_core.labeling.composing.stages import Stage
from refseg_core.labeling.merging import Merged, merge_plainly, merge_softly
from refseg_core.labeling.proposal_source import Proposals
from refseg_core.settings import LabelingSettings
from refseg_core.settings.areas import AreaLimits
from refseg_core.settings.labeling_paths import LABELING_PATHS


def match_and_merge(
    proposals: Proposals,
    features_PC: Tensor,
    prototypes_KC: Tensor,
    *,
    size: tuple[int, int],
    settings: LabelingSettings,
    num_negatives: int = 0,
    limits: AreaLimits | None = None,
    pixels_at_once: int = UPSAMPLED_AT_ONCE,
    stage: Stage = lambda _: nullcontext(),
    second_look: Look = lambda _, similarity_nK: similarity_nK,
    refine: Callable[[Tensor], Tensor] = lambda logits_nGG: logits_nGG,
) -> tuple[Merged, Tensor]:
    """Returns the merged masks, with their rows in the proposals, and their class indices [n].

    `second_look`: revises similarities [n, K] of masks [n, G, G]; `refine`: decodes logits [n, G, G] again. Both are
    called as the settings' method says. `num_negatives`: how many of the prototypes, the last, are of no category: a
    mask that resembles one of these most is left out before masks are merged.
    """
    is_plain = LABELING_PATHS[settings.path].is_plain
    return choose(
        DecodedPool(proposals, features_PC, size, pixels_at_once, is_plain, second_look, refine),
        prototypes_KC,
        size,
        settings,
        num_categories=len(prototypes_KC) - num_negatives,
        limits=limits,
        stage=stage,
    )


def choose(
    pool: Pool,
    prototypes_KC: Tensor,
    size: tuple[int, int],
    settings: LabelingSettings,
    *,
    num_categories: int,
    limits: AreaLimits | None,
    stage: Stage,
) -> tuple[Merged, Tensor]:
    """Returns what `match_and_merge` returns. `num_categories`: how many of the prototypes, the first, are of one."""
    parts, fit = settings.parts, Fit(pool, limits, size)
    with stage("matching"):
        candidates = candidates_of(pool, prototypes_KC, settings, fit)
    if parts.max_second_looks:
        with stage("second look"):
            candidates = looked_at_again(candidates, pool, parts, num_categories)
            candidates = candidates[fit(candidates.row_n, candidates.matches.class_index_N)]
    if num_categories < len(prototypes_KC):
        candidates = candidates[torch.nonzero(candidates.matches.class_index_N < num_categories)[:, 0]]
    with stage("merging"):
        merged = _merged(candidates, pool, size, settings)
    rows, masks = candidates.row_n[merged.row_n], merged.masks
    if parts.max_refined_masks:
        with stage("refining"):
            masks = masks.replaced(pool.refined(rows[: parts.max_refined_masks]))
    return Merged(rows, merged.score_n, masks), candidates.matches.class_index_N[merged.row_n]


def _merged(candidates: Candidates, pool: Pool, size: tuple[int, int], settings: LabelingSettings) -> Merged:
    """Merges candidates, as rows of them."""
    matches, has_quality = candidates.matches, settings.parts.quality_in_score
    score_n = matches.similarity_N * candidates.predicted_iou_n if has_quality else matches.similarity_N
    of_candidates = score_n, matches.class_index_N, matches.descriptor_NC
    if LABELING_PATHS[settings.path].is_plain:
        logits_nGG = pool.logits(candidates.row_n).float()
        merged = merge_plainly(logits_nGG, *of_candidates, size=size, max_detections=settings.max_detections)
    else:
        merged = merge_softly(pool.upsampled(candidates.row_n), *of_candidates, max_detections=settings.max_detections)
    # The root keeps the order, and scores near those of similarity alone: people have thresholds for these.
    return replace(merged, score_n=merged.score_n.sqrt()) if has_quality else merged
