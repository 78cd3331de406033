"""Step 5: labels batches of images: propose, match, merge. The only module that composes these. Method, section 6.

`refseg_core.Labeler` does so for one image after the other; many go quicker in three parts, of which only the second
needs the models and their device:

    frames = [labeler.to_frame(image) for image in images]                # threads that read images
    labels = [found.labels(image_id) for found in labeler.find(frames)]   # and threads that write labels

What the paths do differently (`LabelingSettings.path`) is in `refseg_core/settings/labeling_paths.py`, what methods do
(`LabelingSettings.method`) in `refseg_core/settings/labeling_methods.py`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling import guidance, matching, merging, previews, proposals, refinement, second_look
from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE, Batches, in_batches
from refseg_core.labeling.guidance import Guidance, Guide
from refseg_core.labeling.image_labels import FoundInstances, ImageFrame, ImageLabels, PromptCounts
from refseg_core.labeling.matching import Matches, match, match_plainly
from refseg_core.labeling.merging import (
    Merged,
    merge_plainly,
    merge_softly,
    non_maximum_suppression,
    upsample,
)
from refseg_core.labeling.previews import PreviewedGrid, Previews
from refseg_core.labeling.proposal_source import Proposals, ProposalSource, Proposed
from refseg_core.labeling.proposals import AllMasks, PointGrid, point_grid
from refseg_core.labeling.refinement import refine
from refseg_core.labeling.second_look import SecondLook
from refseg_core.masks.boxes import mask_boxes
from refseg_core.models import point_decoder
from refseg_core.models.acceleration import half, tensor_cores
from refseg_core.models.compilation import can_compile, compiled
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import DecodesQuickly, Encoder, ImageEmbedding, Segmenter
from refseg_core.references.guidance_thresh import USUAL
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.settings.labeling_methods import MethodParts
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import Prototypes
from refseg_core.versions import combined

Item = TypeVar("Item")
Result = TypeVar("Result")

Stage = Callable[[str], AbstractContextManager[object]]
"""Wraps a stage of the work, by its name, to measure how long each takes."""

Look = Callable[[Tensor, Tensor], Tensor]
"""Masks bool [n, G, G] and similarities [n, K] to revised similarities."""

DecodeBoxes = Callable[[Tensor], Tensor]
"""Boxes xyxy [n, 4] in the segmenter frame to logits [n, G, G]."""


def version_of(settings: LabelingSettings) -> int:
    """Returns the version of what settings compute, without that of the models."""
    path, parts = LABELING_PATHS[settings.path], settings.parts
    used = {
        point_decoder: not path.is_plain,
        guidance: path.is_guided,
        previews: path.has_previews,
        second_look: parts.max_second_looks > 0,
        refinement: parts.max_refined_masks > 0,
    }
    optional = (module.VERSION for module, is_used in used.items() if is_used)
    return combined(proposals.VERSION, matching.VERSION, merging.VERSION, *optional)


class EncodedImage(NamedTuple):
    """An image as the encoder sees it, and where it resembles the prototypes."""

    frame: ImageFrame
    features_PC: Tensor
    guide: Guide

    @property
    def is_prompted(self) -> bool:
        """Whether it has a point that is worth a prompt."""
        return len(self.guide.row_n) > 0


class BatchLabeler:
    """Finds and segments every instance of the prototypes' categories in images."""

    def __init__(
        self,
        segmenter: Segmenter,
        encoder: Encoder,
        prototypes: Prototypes,
        settings: LabelingSettings | None = None,
        batches: BatchSettings | None = None,
        *,
        source: ProposalSource | None = None,
        stage: Stage = lambda _: nullcontext(),
    ) -> None:
        """`source`: where proposals come from; None: the settings' grid of points.

        Raises ConfigurationError where prototypes and encoder do not go together.
        """
        expected, came = encoder.architecture.embed_dim, prototypes.prototype.shape[1]
        if len(prototypes) == 0 or expected != came:
            raise ConfigurationError(
                f"The encoder needs at least one prototype of {expected} channels, got {len(prototypes)} of {came}. "
                "Build the bank with the encoder that labels."
            )
        self.segmenter = segmenter
        self.encoder = encoder
        self.category_id_K = prototypes.category_id
        self.prototypes_KC = torch.from_numpy(prototypes.prototype.copy()).to(segmenter.device)
        self.settings = settings or LabelingSettings()
        batches = batches or BatchSettings()
        self._batches = Batches.fit(batches, self.settings, segmenter.device, segmenter, encoder)
        self._path = LABELING_PATHS[self.settings.path]
        is_compiled = batches.compiled and self._path.has_previews and can_compile(segmenter.device)
        self._embed = compiled(segmenter.embed, wanted=is_compiled)
        self._encode: Callable[[Tensor], Tensor] = compiled(encoder, wanted=is_compiled)
        size = segmenter.architecture.image_size
        grid_N2 = point_grid(self.settings.points_per_side, size, segmenter.device)
        self._guidance = Guidance(grid_N2, size, self.prototypes_KC, thresh=self._guidance_thresh())
        self._is_compiled = is_compiled
        self._source = source or self._grid_source(grid_N2)
        self._second_look = SecondLook(
            encoder, self.prototypes_KC, batch=self._batches.crops, part_penalty=self.settings.parts.part_penalty
        )
        self._stage = stage

    def _guidance_thresh(self) -> float | None:
        """Returns the threshold of the path. Whoever has the references has put a number in the place of 'auto'."""
        if not self._path.is_guided or self.settings.guidance_thresh is None:
            return None
        return USUAL if self.settings.guidance_thresh == "auto" else self.settings.guidance_thresh

    @cached_property
    def _decoder(self) -> DecodesQuickly[Any]:
        """The quick decoder, which the plain path does without."""
        return self.segmenter.point_decoder(is_compiled=self._is_compiled)

    def _grid_source(self, grid_N2: Tensor) -> ProposalSource:
        batch, thresh = self._batches.points, self.settings.pred_iou_thresh
        if self._path.is_plain:
            return PointGrid(self.segmenter, grid_N2, batch=batch, pred_iou_thresh=thresh)
        decoder = self._decoder
        if self.settings.parts.all_masks:
            return AllMasks(decoder, grid_N2, batch=batch, pred_iou_thresh=thresh)
        if not self._path.has_previews:
            return PointGrid(decoder, grid_N2, batch=batch, pred_iou_thresh=thresh)
        return PreviewedGrid(
            decoder,
            grid_N2,
            self._distinct,
            batch=batch,
            pred_iou_thresh=thresh,
        )

    @property
    def images_per_batch(self) -> int:
        """How many images `find`, `encode` and `find_in` should get at once."""
        return self._batches.images.now

    def label(self, image_HW3: npt.NDArray[np.uint8], *, image_id: str) -> ImageLabels:
        """Labels one RGB image, uint8 [H, W, 3]; boxes and masks come in its own frame, pixels."""
        (found,) = self.find([self.to_frame(image_HW3)])
        return found.labels(image_id)

    def to_frame(self, image_HW3: npt.NDArray[np.uint8]) -> ImageFrame:
        """Returns what the models need of an RGB image, uint8 [H, W, 3]."""
        height, width = image_HW3.shape[:2]
        pixels_SS3 = resize_to_square(image_HW3, self.segmenter.architecture.image_size)
        return ImageFrame(pixels_SS3, (height, width), image_HW3 if self.settings.parts.max_second_looks else None)

    def find(self, images: Sequence[ImageFrame]) -> list[FoundInstances]:
        """Finds the instances of images, of which `images_per_batch` go through each encoder together.

        An image without a point that is worth a prompt does not reach the segmenter.
        """
        return self.find_in(self.encode(images))

    @torch.inference_mode()
    def encode(self, images: Sequence[ImageFrame]) -> list[EncodedImage]:
        """Returns what the encoder sees in images, and where they are worth a prompt."""
        return self._in_batches(images, self._encode_images)

    @torch.inference_mode()
    def find_in(self, images: Sequence[EncodedImage]) -> list[FoundInstances]:
        """Finds the instances of images, of which only those that are prompted cost more than a moment."""
        segmented = iter(self._in_batches([image for image in images if image.is_prompted], self._segment))
        return [next(segmented) if image.is_prompted else self._find_nothing(image) for image in images]

    def _in_batches(self, items: Sequence[Item], work: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
        if not items:
            return []
        rows = torch.arange(len(items))
        parts = in_batches(rows, self._batches.images, lambda batch: work([items[row] for row in batch]))
        return list(chain.from_iterable(parts))

    def _encode_images(self, images: Sequence[ImageFrame]) -> list[EncodedImage]:
        with self._stage("encoder"), self._half():
            features_BPC = self._encode(self._pixels(images)).float()
        return [
            EncodedImage(image, features_PC, self._guidance(features_PC))
            for image, features_PC in zip(images, features_BPC, strict=True)
        ]

    def _segment(self, images: Sequence[EncodedImage]) -> list[FoundInstances]:
        with self._stage("segmenter"), self._half():
            embedding = self._embed(self._pixels([image.frame for image in images])).float()
        return [self._find_on(image, embedding[index]) for index, image in enumerate(images)]

    def _find_on(self, image: EncodedImage, embedding: ImageEmbedding) -> FoundInstances:
        return self._merge(image, self._propose(image, embedding), partial(self._decode_boxes, embedding))

    def _decode_boxes(self, embedding: ImageEmbedding, boxes_n4: Tensor) -> Tensor:
        decode = partial(self._decoder.decode_boxes, embedding)
        return torch.cat([logits for logits, _ in in_batches(boxes_n4, self._batches.points, decode)])

    def _pixels(self, images: Sequence[ImageFrame]) -> Tensor:
        return torch.stack([to_unit_range(image.pixels_SS3) for image in images]).to(self.segmenter.device)

    def _propose(self, image: EncodedImage, embedding: ImageEmbedding) -> Proposed:
        with self._stage("decoder"), tensor_cores(self.segmenter.device, wanted=self._path.is_half):
            return self._source.propose(embedding, image.features_PC, image.guide.row_n)

    def _find_nothing(self, image: EncodedImage) -> FoundInstances:
        nothing = Proposals.none(self.segmenter.architecture.logits_size, self.segmenter.device)
        return self._merge(image, Proposed(nothing, 0, PromptCounts(0, 0, 0, 0)), lambda _: nothing.logits_NGG)

    def _half(self) -> AbstractContextManager[None]:
        return half(self.segmenter.device, wanted=self._path.is_half)

    def _merge(self, image: EncodedImage, proposed: Proposed, decode_boxes: DecodeBoxes) -> FoundInstances:
        merged, class_index_n = match_and_merge(
            proposed.proposals,
            image.features_PC,
            self.prototypes_KC,
            size=image.frame.size,
            settings=self.settings,
            pixels_at_once=self._batches.pixels,
            stage=self._stage,
            second_look=partial(self._look_again, image.frame),
            refine=partial(refine, decode_boxes, image_size=self.segmenter.architecture.image_size),
        )
        category_id_n = self.category_id_K[class_index_n.cpu().numpy()]
        return FoundInstances(
            merged.masks,
            merged.score_n,
            category_id_n,
            proposed.proposals.predicted_iou_N[merged.row_n],
            proposed.num_proposals,
            proposed.prompts,
            image.guide,
            self.category_id_K,
        )

    def _look_again(self, frame: ImageFrame, masks_nGG: Tensor, similarity_nK: Tensor) -> Tensor:
        assert frame.image_HW3 is not None  # see to_frame
        return self._second_look(frame.image_HW3, masks_nGG, similarity_nK)

    def _distinct(self, previews: Previews, features_PC: Tensor) -> Tensor:
        """Returns the previews that suppression is not sure to drop, by falling similarity."""
        matches = match(previews.masks_nhh, features_PC, self.prototypes_KC)
        kept = _suppress(
            previews.masks_nhh,
            previews.predicted_iou_n,
            matches,
            box_nms_thresh=(1 + self.settings.box_nms_thresh) / 2,  # boxes of previews are up to three pixels off
        )
        return kept[matches.similarity_N[kept].argsort(descending=True, stable=True)]


def match_and_merge(
    proposals: Proposals,
    features_PC: Tensor,
    prototypes_KC: Tensor,
    *,
    size: tuple[int, int],
    settings: LabelingSettings,
    pixels_at_once: int = UPSAMPLED_AT_ONCE,
    stage: Stage = lambda _: nullcontext(),
    second_look: Look = lambda _, similarity_nK: similarity_nK,
    refine: Callable[[Tensor], Tensor] = lambda logits_nGG: logits_nGG,
) -> tuple[Merged, Tensor]:
    """Returns the merged masks, with their rows in the proposals, and their class indices [n].

    `second_look`: revises similarities [n, K] of masks [n, G, G]; `refine`: decodes logits [n, G, G] again. Both are
    called as the settings' method says.
    """
    parts = settings.parts
    with stage("matching"):
        masks_NGG = proposals.logits_NGG > 0
        candidates = _candidates(masks_NGG, proposals.predicted_iou_N, features_PC, prototypes_KC, settings)
    if parts.max_second_looks:
        with stage("second look"):
            candidates = _looked_at_again(candidates, masks_NGG, second_look, parts)
    with stage("merging"):
        merged = _merged(candidates, proposals.logits_NGG, size, settings, pixels_at_once)
    rows, masks = candidates.row_n[merged.row_n], merged.masks
    if parts.max_refined_masks:
        with stage("refining"):
            best = refine(proposals.logits_NGG[rows[: parts.max_refined_masks]].float())
            masks = masks.replaced(upsample(best, size, pixels_at_once))
    return Merged(rows, merged.score_n, masks), candidates.matches.class_index_N[merged.row_n]


@dataclass(frozen=True)
class _Candidates:
    """Proposals that are no duplicates, in their order: rows of the proposals, likenesses, predicted IoU."""

    row_n: Tensor
    matches: Matches
    predicted_iou_n: Tensor

    def __getitem__(self, row_n: Tensor) -> "_Candidates":
        return _Candidates(self.row_n[row_n], self.matches[row_n], self.predicted_iou_n[row_n])


def _candidates(
    masks_NGG: Tensor,
    predicted_iou_N: Tensor,
    features_PC: Tensor,
    prototypes_KC: Tensor,
    settings: LabelingSettings,
) -> _Candidates:
    """Matches proposals, drops duplicates, and takes the first of those that resemble anything."""
    is_plain = LABELING_PATHS[settings.path].is_plain
    matches = (match_plainly if is_plain else match)(masks_NGG, features_PC, prototypes_KC)
    rank_N = _rank(predicted_iou_N, matches, settings.parts)
    kept = _suppress(masks_NGG, rank_N, matches, box_nms_thresh=settings.box_nms_thresh)
    kept = kept[: settings.candidates_per_detection * settings.max_detections]
    kept = kept[matches.similarity_N[kept] > 0]
    return _Candidates(kept, matches[kept], predicted_iou_N[kept])


def _merged(
    candidates: _Candidates,
    logits_NGG: Tensor,
    size: tuple[int, int],
    settings: LabelingSettings,
    pixels_at_once: int,
) -> Merged:
    """Merges candidates, as rows of them."""
    is_plain, has_quality = LABELING_PATHS[settings.path].is_plain, settings.parts.quality_in_score
    merge = merge_plainly if is_plain else partial(merge_softly, pixels_at_once=pixels_at_once)
    matches = candidates.matches
    merged = merge(
        logits_NGG[candidates.row_n].float(),
        matches.similarity_N * candidates.predicted_iou_n if has_quality else matches.similarity_N,
        matches.class_index_N,
        matches.descriptor_NC,
        size=size,
        max_detections=settings.max_detections,
    )
    # The root keeps the order, and scores near those of similarity alone: people have thresholds for these.
    return replace(merged, score_n=merged.score_n.sqrt()) if has_quality else merged


def _rank(predicted_iou_N: Tensor, matches: Matches, parts: MethodParts) -> Tensor:
    """Returns by what candidates are ordered: the higher, the earlier."""
    if parts.similarity_exponent == 0:
        return predicted_iou_N
    return predicted_iou_N * matches.similarity_N**parts.similarity_exponent


def _looked_at_again(candidates: _Candidates, masks_NGG: Tensor, look: Look, parts: MethodParts) -> _Candidates:
    """Revises the best candidates, and orders all again.

    The others lose what those lost on average, so that all stay comparable.
    """
    matches, predicted_iou_n = candidates.matches, candidates.predicted_iou_n
    best = (matches.similarity_N * predicted_iou_n).argsort(descending=True, stable=True)[: parts.max_second_looks]
    if len(best) > 0:
        revised_bK = look(masks_NGG[candidates.row_n[best]], matches.similarity_NK[best])
        loss = (matches.similarity_N[best] - revised_bK.amax(dim=1)).mean()
        similarity_nK = (matches.similarity_NK - loss).clamp(0, 1)
        similarity_nK[best] = revised_bK
        matches = Matches.of(similarity_nK, matches.descriptor_NC)
    order = _rank(predicted_iou_n, matches, parts).argsort(descending=True, stable=True)
    return _Candidates(candidates.row_n, matches, predicted_iou_n)[order]


def _suppress(masks_Nss: Tensor, rank_N: Tensor, matches: Matches, *, box_nms_thresh: float) -> Tensor:
    return non_maximum_suppression(mask_boxes(masks_Nss), rank_N, matches.class_index_N, box_nms_thresh=box_nms_thresh)
