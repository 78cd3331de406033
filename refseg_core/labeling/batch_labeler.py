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
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling import guidance, matching, merging, previews, proposals, refinement, second_look
from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE, Batches, BatchSize, filled, in_batches
from refseg_core.labeling.guidance import Guidance, Guide
from refseg_core.labeling.image_labels import Finish, FoundInstances, ImageFrame, ImageLabels, PromptCounts
from refseg_core.labeling.kept.completed_image import CompletedImage, ImageModels
from refseg_core.labeling.kept.crop_means import CropMeans
from refseg_core.labeling.kept.edge_logits import edge_values, reach_of, restored
from refseg_core.labeling.kept.kept_image import LOGITS, MASKS_PER_POINT, KeptImage, KeptMasks
from refseg_core.labeling.matching import Matches, compare, describe, match, match_plainly
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
from refseg_core.masks import cleanup
from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.boxes import mask_boxes
from refseg_core.models import point_decoder
from refseg_core.models.acceleration import half, tensor_cores
from refseg_core.models.compilation import can_compile, compiled
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import DecodesQuickly, Encoder, ImageEmbedding, Segmenter
from refseg_core.references.guidance_thresh import USUAL
from refseg_core.settings import BatchSettings, LabelingSettings, areas
from refseg_core.settings.areas import AreaLimits
from refseg_core.settings.labeling_methods import MethodParts
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import Prototypes
from refseg_core.versions import combined

Item = TypeVar("Item")
Result = TypeVar("Result")

Stage = Callable[[str], AbstractContextManager[object]]
"""Wraps a stage of the work, by its name, to measure how long each takes."""

# Prompts, boxes too, and crops at once where something of an image is kept. Every call has as many, so few are in vain.
_PROMPTS_ON_A_CPU, _CROPS_ON_A_CPU = 8, 4
_ALL_PASS = -1.0  # a threshold of predicted IoU

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
        cleanup: max(settings.min_island, settings.min_hole) > 1,
        areas: not settings.area.is_off,
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


def _limits(settings: LabelingSettings, category_ids: Sequence[int]) -> AreaLimits | None:
    area = settings.area
    return None if area.is_off else AreaLimits.of(area.min, area.max, [str(each) for each in category_ids])


class _OpenedImage:
    """An image that is opened and embedded when this is first needed."""

    def __init__(self, frame: Callable[[], ImageFrame], embed: Callable[[ImageFrame], ImageEmbedding]) -> None:
        self._frame, self._embed = frame, embed

    @cached_property
    def frame(self) -> ImageFrame:
        return self._frame()

    @cached_property
    def embedding(self) -> ImageEmbedding:
        return self._embed(self.frame)


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
        negatives: Prototypes | None = None,
        stage: Stage = lambda _: nullcontext(),
    ) -> None:
        """`source`: where proposals come from; None: the settings' grid of points.

        `negatives`: what is no instance, though it resembles one; masks that resemble it most are left out.

        Limits of areas in `settings` name categories by their ids, as text.

        Raises ConfigurationError where prototypes and encoder do not go together, or limits and categories.
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
        compared = prototypes if negatives is None else Prototypes.concatenate([prototypes, negatives])
        self._compared_JC = torch.from_numpy(compared.prototype.copy()).to(segmenter.device)
        self.prototypes_KC = self._compared_JC[: len(prototypes)]
        self.settings = settings or LabelingSettings()
        batches = batches or BatchSettings()
        self._batches = Batches.fit(batches, self.settings, segmenter.device, segmenter, encoder)
        self._path = LABELING_PATHS[self.settings.path]
        is_compiled = batches.compiled and self._path.has_previews and can_compile(segmenter.device)
        self._encode: Callable[[Tensor], Tensor] = compiled(encoder, wanted=is_compiled)
        size = segmenter.architecture.image_size
        self._grid_N2 = point_grid(self.settings.points_per_side, size, segmenter.device)
        self._guidance = Guidance(self._grid_N2, size, self.prototypes_KC, thresh=self._guidance_thresh())
        self._is_compiled = is_compiled
        self._limits = _limits(self.settings, self.category_id_K.tolist())
        self._given_source = source
        self._second_look = SecondLook(
            encoder, self._compared_JC, batch=self._batches.crops, part_penalty=self.settings.parts.part_penalty
        )
        self._stage = stage
        if not self.settings.keep_proposals:  # with what is kept, the models may not be needed at all
            self._use_models()

    def _use_models(self) -> tuple[object, ...]:
        """Builds what needs the models' parameters."""
        return self._embed, self._source

    def _guidance_thresh(self) -> float | None:
        """Returns the threshold of the path. Whoever has the references has put a number in the place of 'auto'."""
        if not self._path.is_guided or self.settings.guidance_thresh is None:
            return None
        return USUAL if self.settings.guidance_thresh == "auto" else self.settings.guidance_thresh

    @cached_property
    def _embed(self) -> Callable[[Tensor], ImageEmbedding]:
        return compiled(self.segmenter.embed, wanted=self._is_compiled)

    @cached_property
    def _source(self) -> ProposalSource:
        return self._given_source or self._grid_source(self._grid_N2)

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

    @torch.inference_mode()
    def find_kept(
        self, kept: KeptImage | None, frame: Callable[[], ImageFrame]
    ) -> tuple[FoundInstances, KeptImage | None]:
        """Finds the instances of an image by what is kept of it, and by the models where that is not enough.

        Returns also what the models were asked, None where nothing: whoever keeps it spares the next labeler asking.
        What is found does not depend on what is kept, to the last bit. `frame` gives the image, if it is needed.
        """
        opened = _OpenedImage(frame, lambda frame: self._embed(self._pixels([frame])).float()[0])
        models = ImageModels(
            partial(self._begin, opened),
            partial(self._ask, opened),
            partial(self._look, opened),
            partial(self._refine, opened),
        )
        image = CompletedImage(kept, models)
        guide = self._guidance(image.kept.features_PC.to(self.segmenter.device))
        masks = image.masks(guide.row_n.cpu())
        pool = _Kept(image, masks, self.segmenter.device, self._second_look.revise)
        chosen = _chosen(
            pool,
            self._compared_JC,
            image.kept.size,
            self.settings,
            num_categories=len(self.prototypes_KC),
            limits=self._limits,
            pixels_at_once=self._batches.pixels,
            stage=self._stage,
        )
        counts = len(masks), PromptCounts(len(guide.row_n), len(guide.row_n), 0, len(masks))
        return self._found(chosen, pool.predicted_ious(), counts, guide), image.added

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
            self._compared_JC,
            size=image.frame.size,
            settings=self.settings,
            num_negatives=len(self._compared_JC) - len(self.prototypes_KC),
            limits=self._limits,
            pixels_at_once=self._batches.pixels,
            stage=self._stage,
            second_look=partial(self._look_again, image.frame),
            refine=partial(refine, decode_boxes, image_size=self.segmenter.architecture.image_size),
        )
        predicted_iou_N = proposed.proposals.predicted_iou_N
        counts = proposed.num_proposals, proposed.prompts
        return self._found((merged, class_index_n), predicted_iou_N, counts, image.guide)

    def _found(
        self, chosen: tuple[Merged, Tensor], predicted_iou_N: Tensor, counts: tuple[int, PromptCounts], guide: Guide
    ) -> FoundInstances:
        merged, class_index_n = chosen
        return FoundInstances(
            merged.masks,
            merged.score_n,
            self.category_id_K[class_index_n.cpu().numpy()],
            predicted_iou_N[merged.row_n],
            *counts,
            guide,
            self.category_id_K,
            Finish(self.settings.min_island, self.settings.min_hole, self._limits),
        )

    def _look_again(self, frame: ImageFrame, masks_nGG: Tensor, similarity_nK: Tensor) -> Tensor:
        assert frame.image_HW3 is not None  # see to_frame
        return self._second_look(frame.image_HW3, masks_nGG, similarity_nK)

    # What the models answer about an image of which something is kept. As many at once each time: see `filled`.

    def _at_once(self, on_a_cpu: int, on_a_gpu: BatchSize) -> BatchSize:
        return BatchSize(on_a_cpu) if self.segmenter.device.type == "cpu" else on_a_gpu

    def _begin(self, image: _OpenedImage) -> KeptImage:
        sizes, (encoded,) = self.segmenter.architecture, self._encode_images([image.frame])
        logits = LOGITS[self.settings.parts.all_masks]
        return KeptImage.begun(
            image.frame.size, encoded.features_PC.cpu(), logits_size=sizes.logits_size, logits=logits
        )

    def _ask(self, image: _OpenedImage, point_n: Tensor, features_PC: Tensor) -> KeptMasks:
        """Prompts the segmenter with points, and describes the masks by the image's features."""
        batch = self._at_once(_PROMPTS_ON_A_CPU, self._batches.points)
        decode = partial(self._decode_all, self._decoder.prepare(image.embedding))
        features_PC = features_PC.to(self.segmenter.device)

        def ask(some_n: Tensor) -> KeptMasks:
            with self._stage("decoder"):
                logits_nMGG, predicted_iou_nM = decode(filled(some_n, batch.now))
            descriptor_RC = describe(logits_nMGG.flatten(0, 1) > 0, features_PC)
            is_good_nM = predicted_iou_nM[: len(some_n)] > self.settings.pred_iou_thresh
            key_nM = some_n[:, None] * MASKS_PER_POINT + torch.arange(is_good_nM.shape[1])
            row_m = torch.nonzero(is_good_nM.flatten())[:, 0]
            return _kept_masks(
                key_nM.flatten()[row_m.cpu()],
                logits_nMGG.flatten(0, 1)[row_m],
                predicted_iou_nM.flatten()[row_m],
                descriptor_RC[row_m],
                reach_of(logits_nMGG.shape[-1], image.frame.size),
            )

        return KeptMasks.joined(in_batches(point_n, batch, ask))

    def _decode_all(self, prepared: Any, point_n: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits [n, M, G, G] and predicted IoU [n, M] of points, the poor ones too, which are few."""
        prompts = self._grid_prompts[point_n.to(self.segmenter.device)]
        if not self.settings.parts.all_masks:
            logits_nGG, predicted_iou_n = self._decoder.decode_points(prepared, prompts, pred_iou_thresh=None)
            return logits_nGG[:, None], predicted_iou_n[:, None]
        logits_mGG, predicted_iou_m = self._decoder.decode_all_masks(prepared, prompts, pred_iou_thresh=_ALL_PASS)
        return logits_mGG.half().unflatten(0, (len(point_n), -1)), predicted_iou_m.unflatten(0, (len(point_n), -1))

    @cached_property
    def _grid_prompts(self) -> Tensor:
        return self._decoder.prompts(self._grid_N2)

    def _look(self, image: _OpenedImage, masks_nGG: Tensor) -> CropMeans:
        """Encodes crops around masks."""
        assert image.frame.image_HW3 is not None  # see to_frame
        batch, pixels = self._at_once(_CROPS_ON_A_CPU, self._batches.crops), image.frame.image_HW3

        def look(some_nGG: Tensor) -> CropMeans:
            with self._stage("second look"):
                means = self._second_look.look(pixels, filled(some_nGG, batch.now))
            return CropMeans(*(part[: len(some_nGG)].cpu() for part in means))

        parts = in_batches(masks_nGG.to(self.segmenter.device), batch, look)
        return CropMeans(*map(torch.cat, zip(*parts, strict=True)))

    def _refine(self, image: _OpenedImage, logits_nGG: Tensor) -> PackedMasks:
        """Decodes masks again from their boxes, and resizes them to the original frame."""
        batch = self._at_once(_PROMPTS_ON_A_CPU, self._batches.points)
        decode = partial(self._decode_boxes, image.embedding)

        def refined(some_nGG: Tensor) -> PackedMasks:
            refined_nGG = refine(
                decode, filled(some_nGG.float(), batch.now), image_size=self.segmenter.architecture.image_size
            )
            return upsample(refined_nGG[: len(some_nGG)], image.frame.size, self._batches.pixels)

        masks = PackedMasks.concatenate(in_batches(logits_nGG, batch, refined))
        return PackedMasks(masks.columns_NWB.cpu(), masks.height)

    def _distinct(self, previews: Previews, features_PC: Tensor) -> Tensor:
        """Returns the previews that suppression is not sure to drop, by falling similarity."""
        matches = match(previews.masks_nhh, features_PC, self._compared_JC)
        kept = non_maximum_suppression(
            mask_boxes(previews.masks_nhh),
            previews.predicted_iou_n,
            matches.class_index_N,
            box_nms_thresh=(1 + self.settings.box_nms_thresh) / 2,  # boxes of previews are up to three pixels off
        )
        return kept[matches.similarity_N[kept].argsort(descending=True, stable=True)]


class _Pool(Protocol):
    """Proposals of an image, as instances are chosen from them; rows int64 [n]."""

    def predicted_ious(self) -> Tensor:
        """Returns those of all, float32 [N]."""

    def matches(self, prototypes_KC: Tensor) -> Matches:
        """Compares all proposals with the prototypes."""

    def boxes(self) -> Tensor:
        """Returns inclusive extents of all, int64 [N, 4]."""

    def shares(self) -> Tensor:
        """Returns how much of the image each covers, in [0, 1], float64 [N]."""

    def logits(self, row_n: Tensor) -> Tensor:
        """Returns logits of some, [n, G, G]."""

    def look_again(self, row_n: Tensor, similarity_nK: Tensor) -> Tensor:
        """Returns similarities of some, [n, K], revised."""

    def refined(self, row_n: Tensor) -> PackedMasks:
        """Returns masks of some, decoded again, in the original frame."""


@dataclass(frozen=True)
class _Decoded:
    """Proposals as they were decoded. `size`: (height, width) of the original frame, px."""

    proposals: Proposals
    features_PC: Tensor
    size: tuple[int, int]
    pixels_at_once: int
    is_plain: bool
    second_look: Look
    refine: Callable[[Tensor], Tensor]

    @cached_property
    def masks(self) -> Tensor:
        return self.proposals.logits_NGG > 0

    def predicted_ious(self) -> Tensor:
        return self.proposals.predicted_iou_N

    def matches(self, prototypes_KC: Tensor) -> Matches:
        return (match_plainly if self.is_plain else match)(self.masks, self.features_PC, prototypes_KC)

    def boxes(self) -> Tensor:
        return mask_boxes(self.masks)

    def shares(self) -> Tensor:
        return self.masks.flatten(1).sum(dim=1).double() / self.masks.shape[1:].numel()

    def logits(self, row_n: Tensor) -> Tensor:
        return self.proposals.logits_NGG[row_n]

    def look_again(self, row_n: Tensor, similarity_nK: Tensor) -> Tensor:
        return self.second_look(self.masks[row_n], similarity_nK)

    def refined(self, row_n: Tensor) -> PackedMasks:
        return upsample(self.refine(self.logits(row_n).float()), self.size, self.pixels_at_once)


@dataclass(frozen=True)
class _Kept:
    """Proposals of which everything is kept, or computed and then kept: on the CPU, but for what is returned."""

    image: CompletedImage
    masks: KeptMasks
    device: torch.device
    revise: Callable[[CropMeans, Tensor], Tensor]

    def predicted_ious(self) -> Tensor:
        return self.masks.predicted_iou_N.to(self.device)

    def matches(self, prototypes_KC: Tensor) -> Matches:
        return compare(self.masks.descriptor_NC.to(self.device), prototypes_KC)

    def boxes(self) -> Tensor:
        return self.masks.box_N4.to(self.device)

    def shares(self) -> Tensor:
        masks = self.masks.masks
        return masks.areas() / (masks.height * masks.columns_NWB.shape[1])

    def logits(self, row_n: Tensor) -> Tensor:
        masks = self.masks[row_n.cpu()]
        reach = reach_of(masks.masks.height, self.image.kept.size)
        return restored(masks.masks.unpack().to(self.device), masks.edge_E.to(self.device), reach)

    def look_again(self, row_n: Tensor, similarity_nK: Tensor) -> Tensor:
        masks = self.masks[row_n.cpu()]
        means = self.image.look(masks.key_N, masks.masks.unpack())
        return self.revise(CropMeans(*(part.to(self.device) for part in means)), similarity_nK)

    def refined(self, row_n: Tensor) -> PackedMasks:
        refined = self.image.refine(self.masks.key_N[row_n.cpu()], self.logits(row_n))
        return PackedMasks(refined.columns_NWB.to(self.device), refined.height)


def _kept_masks(
    key_N: Tensor, logits_NGG: Tensor, predicted_iou_N: Tensor, descriptor_NC: Tensor, reach: int
) -> KeptMasks:
    """Returns masks in the form that is kept, on the CPU."""
    masks_NGG = logits_NGG > 0
    packed = PackedMasks.of(masks_NGG)
    edge_E, num_edge_N = edge_values(logits_NGG, reach)
    return KeptMasks(
        key_N,
        predicted_iou_N.cpu(),
        descriptor_NC.cpu(),
        mask_boxes(masks_NGG).cpu(),
        PackedMasks(packed.columns_NWB.cpu(), packed.height),
        edge_E.cpu(),
        num_edge_N.cpu(),
    )


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
    pool = _Decoded(proposals, features_PC, size, pixels_at_once, is_plain, second_look, refine)
    num_categories = len(prototypes_KC) - num_negatives
    return _chosen(
        pool,
        prototypes_KC,
        size,
        settings,
        num_categories=num_categories,
        limits=limits,
        pixels_at_once=pixels_at_once,
        stage=stage,
    )


def _chosen(
    pool: _Pool,
    prototypes_KC: Tensor,
    size: tuple[int, int],
    settings: LabelingSettings,
    *,
    num_categories: int,
    limits: AreaLimits | None,
    pixels_at_once: int,
    stage: Stage,
) -> tuple[Merged, Tensor]:
    parts, fit = settings.parts, _Fit(pool, limits, size)
    with stage("matching"):
        candidates = _candidates(pool, prototypes_KC, settings, fit)
    if parts.max_second_looks:
        with stage("second look"):
            candidates = _looked_at_again(candidates, pool, parts)
            candidates = candidates[fit(candidates.row_n, candidates.matches.class_index_N)]
    if num_categories < len(prototypes_KC):
        candidates = candidates[torch.nonzero(candidates.matches.class_index_N < num_categories)[:, 0]]
    with stage("merging"):
        merged = _merged(candidates, pool, size, settings, pixels_at_once)
    rows, masks = candidates.row_n[merged.row_n], merged.masks
    if parts.max_refined_masks:
        with stage("refining"):
            masks = masks.replaced(pool.refined(rows[: parts.max_refined_masks]))
    return Merged(rows, merged.score_n, masks), candidates.matches.class_index_N[merged.row_n]


@dataclass(frozen=True)
class _Candidates:
    """Proposals that are no duplicates, in their order: rows of the proposals, likenesses, predicted IoU."""

    row_n: Tensor
    matches: Matches
    predicted_iou_n: Tensor

    def __getitem__(self, row_n: Tensor) -> "_Candidates":
        return _Candidates(self.row_n[row_n], self.matches[row_n], self.predicted_iou_n[row_n])


@dataclass(frozen=True)
class _Fit:
    """Which proposals of an image of a size (height, width), px, have an area that their category may have."""

    pool: _Pool
    limits: AreaLimits | None
    size: tuple[int, int]

    def __call__(self, row_n: Tensor, class_index_n: Tensor) -> Tensor:
        """Returns which of some proposals fit, as rows of these, int64 [m] ascending."""
        if self.limits is None:
            return torch.arange(len(row_n), device=row_n.device)
        area_n, num_pixels = self._areas[row_n.cpu().numpy()], self.size[0] * self.size[1]
        fits_n = self.limits.fit(area_n, class_index_n.cpu().numpy(), image_pixels=num_pixels)
        return torch.from_numpy(np.flatnonzero(fits_n)).to(row_n.device)

    @cached_property
    def _areas(self) -> npt.NDArray[np.float64]:
        areas: npt.NDArray[np.float64] = self.pool.shares().cpu().numpy() * (self.size[0] * self.size[1])
        return areas


def _candidates(pool: _Pool, prototypes_KC: Tensor, settings: LabelingSettings, fit: _Fit) -> _Candidates:
    """Matches proposals, drops those of a wrong size and duplicates, and takes the first that resemble anything."""
    matches = pool.matches(prototypes_KC)
    rank_N, boxes_N4 = _rank(pool.predicted_ious(), matches, settings.parts), pool.boxes()
    fitting = fit(torch.arange(len(rank_N), device=rank_N.device), matches.class_index_N)
    kept = non_maximum_suppression(
        boxes_N4[fitting],
        rank_N[fitting],
        matches.class_index_N[fitting],
        box_nms_thresh=settings.box_nms_thresh,
    )
    kept = fitting[kept]
    kept = kept[: settings.candidates_per_detection * settings.max_detections]
    kept = kept[matches.similarity_N[kept] > 0]
    return _Candidates(kept, matches[kept], pool.predicted_ious()[kept])


def _merged(
    candidates: _Candidates,
    pool: _Pool,
    size: tuple[int, int],
    settings: LabelingSettings,
    pixels_at_once: int,
) -> Merged:
    """Merges candidates, as rows of them."""
    is_plain, has_quality = LABELING_PATHS[settings.path].is_plain, settings.parts.quality_in_score
    merge = merge_plainly if is_plain else partial(merge_softly, pixels_at_once=pixels_at_once)
    matches = candidates.matches
    merged = merge(
        pool.logits(candidates.row_n).float(),
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


def _looked_at_again(candidates: _Candidates, pool: _Pool, parts: MethodParts) -> _Candidates:
    """Revises the best candidates, and orders all again.

    The others lose what those lost on average, so that all stay comparable.
    """
    matches, predicted_iou_n = candidates.matches, candidates.predicted_iou_n
    best = (matches.similarity_N * predicted_iou_n).argsort(descending=True, stable=True)[: parts.max_second_looks]
    if len(best) > 0:
        revised_bK = pool.look_again(candidates.row_n[best], matches.similarity_NK[best])
        loss = (matches.similarity_N[best] - revised_bK.amax(dim=1)).mean()
        similarity_nK = (matches.similarity_NK - loss).clamp(0, 1)
        similarity_nK[best] = revised_bK
        matches = Matches.of(similarity_nK, matches.descriptor_NC)
    order = _rank(predicted_iou_n, matches, parts).argsort(descending=True, stable=True)
    return _Candidates(candidates.row_n, matches, predicted_iou_n)[order]
