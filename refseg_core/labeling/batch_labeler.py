"""Step 5: labels batches of images: propose, match, merge. Only this and `composing/` compose these. Method, section 6.

`refseg_core.Labeler` does so for one image after the other; many go quicker in three parts, of which only the second
needs the models and their device:

    frames = [labeler.to_frame(image) for image in images]                # threads that read images
    labels = [found.labels(image_id) for found in labeler.find(frames)]   # and threads that write labels

What the paths do differently (`LabelingSettings.path`) is in `refseg_core/settings/labeling_paths.py`, what methods do
(`LabelingSettings.method`) in `refseg_core/settings/labeling_methods.py`.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling import guidance, matching, merging, previews, proposals, refinement, second_look
from refseg_core.labeling.batching import Batches, in_batches
from refseg_core.labeling.composing.answering import Answering
from refseg_core.labeling.composing.choosing import choose, match_and_merge
from refseg_core.labeling.composing.pool import KeptPool
from refseg_core.labeling.composing.prompting import Prompting
from refseg_core.labeling.composing.stages import Stage
from refseg_core.labeling.guidance import Guidance, Guide
from refseg_core.labeling.image_labels import Finish, FoundInstances, ImageFrame, ImageLabels
from refseg_core.labeling.kept.completed_image import CompletedImage
from refseg_core.labeling.kept.kept_image import KeptImage
from refseg_core.labeling.merging import Merged
from refseg_core.labeling.proposal_source import PromptCounts, Proposals, ProposalSource, Proposed
from refseg_core.labeling.refinement import refine
from refseg_core.labeling.second_look import SecondLook
from refseg_core.masks import cleanup
from refseg_core.models import point_decoder
from refseg_core.models.acceleration import half
from refseg_core.models.compilation import can_compile, compiled
from refseg_core.models.preprocessing import resize_to_square
from refseg_core.models.protocols import Encoder, ImageEmbedding, Segmenter
from refseg_core.references.guidance_thresh import USUAL
from refseg_core.settings import BatchSettings, LabelingSettings, areas
from refseg_core.settings.areas import AreaLimits
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import Prototypes
from refseg_core.versions import combined

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def kept_version() -> int:
    """Returns the version of what is kept of images, whichever of it settings use; without that of the models."""
    used = (proposals, matching, point_decoder, second_look, refinement)
    return combined(*(module.VERSION for module in used))


class EncodedImage(NamedTuple):
    """An image as the encoder sees it, and where it resembles the prototypes."""

    frame: ImageFrame
    features_PC: Tensor
    guide: Guide

    @property
    def is_prompted(self) -> bool:
        """Whether it has a point that is worth a prompt."""
        return len(self.guide.row_n) > 0


def _check_channels(encoder: Encoder, prototypes: Prototypes) -> None:
    expected, came = encoder.architecture.embed_dim, prototypes.prototype.shape[1]
    if len(prototypes) == 0 or expected != came:
        raise ConfigurationError(
            f"The encoder needs at least one prototype of {expected} channels, got {len(prototypes)} of {came}. "
            "Build the bank with the encoder that labels."
        )


def _limits(settings: LabelingSettings, category_ids: Sequence[int]) -> AreaLimits | None:
    area = settings.area
    return None if area.is_off else AreaLimits.of(area.min, area.max, [str(each) for each in category_ids])


def _finish(settings: LabelingSettings, limits: AreaLimits | None) -> Finish:
    return Finish(settings.min_island, settings.min_hole, limits, is_refined=settings.parts.max_refined_masks > 0)


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
        _check_channels(encoder, prototypes)
        self.segmenter = segmenter
        self.encoder = encoder
        self.category_id_K = prototypes.category_id
        compared = prototypes if negatives is None else Prototypes.concatenate([prototypes, negatives])
        self._num_negatives = len(compared) - len(prototypes)
        self._compared_JC = torch.from_numpy(compared.prototype.copy()).to(segmenter.device)
        self.prototypes_KC = self._compared_JC[: len(prototypes)]
        self.settings = settings or LabelingSettings()
        batches = batches or BatchSettings()
        self._batches = Batches.fit(batches, self.settings, segmenter.device, segmenter, encoder)
        self._path = LABELING_PATHS[self.settings.path]
        is_compiled = batches.compiled and self._path.has_previews and can_compile(segmenter.device)
        self._encode: Callable[[Tensor], Tensor] = compiled(encoder, wanted=is_compiled)
        self._limits = _limits(self.settings, self.category_id_K.tolist())
        self._finish = _finish(self.settings, self._limits)
        self._stage = stage
        self._prompting = Prompting(
            segmenter,
            self.settings,
            self._batches,
            compared_JC=self._compared_JC,
            source=source,
            is_compiled=is_compiled,
            stage=stage,
        )
        self._guidance = self._make_guidance()
        self._second_look = self._make_second_look()
        self._answering = Answering(
            self._prompting, self._features, self._second_look, self.settings, self._batches, stage=stage
        )
        if not self.settings.keep_proposals:  # with what is kept, the models may not be needed at all
            self._prompting.build()

    def _make_guidance(self) -> Guidance:
        size = self.segmenter.architecture.image_size
        return Guidance(self._prompting.grid_N2, size, self.prototypes_KC, thresh=self._guidance_thresh())

    def _make_second_look(self) -> SecondLook:
        return SecondLook(
            self.encoder,
            self._compared_JC,
            batch=self._batches.crops,
            part_penalty=self.settings.parts.part_penalty,
            num_negatives=self._num_negatives,
        )

    def _guidance_thresh(self) -> float | None:
        """Returns the threshold of the path. Whoever has the references has put a number in the place of 'auto'."""
        if not self._path.is_guided or self.settings.guidance_thresh is None:
            return None
        return USUAL if self.settings.guidance_thresh == "auto" else self.settings.guidance_thresh

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
        image = CompletedImage(kept, self._answering.about(frame))
        guide = self._guidance(image.kept.features_PC.to(self.segmenter.device))
        masks = image.masks(guide.row_n.cpu())
        pool = KeptPool(image, masks, self.segmenter.device, self._batches.pixels, self._second_look.revise)
        chosen = choose(
            pool,
            self._compared_JC,
            image.kept.size,
            self.settings,
            num_categories=len(self.prototypes_KC),
            limits=self._limits,
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
        return [
            EncodedImage(image, features_PC, self._guidance(features_PC))
            for image, features_PC in zip(images, self._features(images), strict=True)
        ]

    def _features(self, images: Sequence[ImageFrame]) -> Tensor:
        with self._stage("encoder"), half(self.segmenter.device, wanted=self._path.is_half):
            return self._encode(self._prompting.pixels(images)).float()

    def _segment(self, images: Sequence[EncodedImage]) -> list[FoundInstances]:
        embedding = self._prompting.embeddings([image.frame for image in images])
        return [self._find_on(image, embedding[index]) for index, image in enumerate(images)]

    def _find_on(self, image: EncodedImage, embedding: ImageEmbedding) -> FoundInstances:
        proposed = self._prompting.propose(embedding, image.features_PC, image.guide.row_n)
        return self._merge(image, proposed, partial(self._prompting.decode_boxes, embedding))

    def _find_nothing(self, image: EncodedImage) -> FoundInstances:
        nothing = Proposals.none(self.segmenter.architecture.logits_size, self.segmenter.device)
        return self._merge(image, Proposed(nothing, 0, PromptCounts(0, 0, 0, 0)), lambda _: nothing.logits_NGG)

    def _merge(self, image: EncodedImage, proposed: Proposed, decode_boxes: DecodeBoxes) -> FoundInstances:
        merged, class_index_n = match_and_merge(
            proposed.proposals,
            image.features_PC,
            self._compared_JC,
            size=image.frame.size,
            settings=self.settings,
            num_negatives=self._num_negatives,
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
            self._finish,
        )

    def _look_again(self, frame: ImageFrame, masks_nGG: Tensor, similarity_nK: Tensor) -> Tensor:
        assert frame.image_HW3 is not None  # see to_frame
        return self._second_look(frame.image_HW3, masks_nGG, similarity_nK)
