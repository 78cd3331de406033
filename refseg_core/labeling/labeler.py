"""Step 5: labels images: propose, match, merge. The only module that composes other steps. Method, section 6.

Use it as a library:

    labeler = Labeler(segmenter, encoder, prototypes, LabelingSettings())
    detections = labeler.label(image_HW3, image_id="harbour.jpg").detections

Many images go quicker in three parts, of which only the second needs the models and their device:

    squashed = [labeler.squash(image) for image in images]              # threads that read images
    labels = [found.labels(image_id) for found in labeler.find(squashed)]   # and threads that write labels

Four paths compute the same thing (`LabelingSettings.path`). `reference` does as is published, step by step. `exact` has
its answers for a fraction of the work. `fast` looks at small previews of all masks first and decodes in full only what
suppression leaves of these; on a GPU it runs both encoders in half precision. `turbo` does so and searches for the
points that are worth a preview.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling import matching, merging, previews, proposals
from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE, Batches, in_batches
from refseg_core.labeling.image_labels import Found, ImageLabels, PromptCounts, Squashed
from refseg_core.labeling.matching import Matches, match, match_plainly
from refseg_core.labeling.merging import Merged, mask_boxes, merge_plainly, merge_softly, non_maximum_suppression
from refseg_core.labeling.previews import Previews, SparseSearch, preview_points
from refseg_core.labeling.proposals import DecodesPoints, Prepared, Proposals, point_grid, propose
from refseg_core.models import point_decoder
from refseg_core.models.compilation import can_compile, compiled
from refseg_core.models.encoder import Encoder
from refseg_core.models.point_decoder import PointDecoder, PreparedImage
from refseg_core.models.precision import half, tensor_cores
from refseg_core.models.preprocessing import squash, to_unit_range
from refseg_core.models.segmenter import ImageEmbedding, Segmenter
from refseg_core.settings import BatchSettings, LabelingPath, LabelingSettings
from refseg_core.tables import Prototypes
from refseg_core.versions import combined

Stage = Callable[[str], AbstractContextManager[object]]
"""Wraps a stage of the work, by its name: for whoever wants to know how long each takes."""

_ROUNDS, _BEST = 2, 48  # of a sparse search: how often neighbors are asked, and of how many previews


@dataclass(frozen=True)
class _Path:
    """What a path does otherwise than `exact`."""

    is_plain: bool = False
    is_half: bool = False  # both encoders, on a GPU
    previews: bool = False
    sparse: bool = False  # fewer points


_PATHS: dict[LabelingPath, _Path] = {
    "reference": _Path(is_plain=True),
    "exact": _Path(),
    "fast": _Path(is_half=True, previews=True),
    "turbo": _Path(is_half=True, previews=True, sparse=True),
}


def version_of(path: LabelingPath) -> int:
    """Returns the version of what a path computes, without that of the models."""
    steps = combined(proposals.VERSION, matching.VERSION, merging.VERSION)
    if _PATHS[path].is_plain:
        return steps
    quicker = combined(steps, point_decoder.VERSION)
    return combined(quicker, previews.VERSION) if _PATHS[path].previews else quicker


class _Proposed(NamedTuple):
    """Masks to choose from; how many there were before their previews said which are duplicates; what it took."""

    proposals: Proposals
    num_proposals: int
    prompts: PromptCounts


class Labeler:
    """Finds and segments every instance of the prototypes' categories in images."""

    def __init__(
        self,
        segmenter: Segmenter,
        encoder: Encoder,
        prototypes: Prototypes,
        settings: LabelingSettings | None = None,
        batches: BatchSettings | None = None,
        *,
        stage: Stage = lambda _: nullcontext(),
    ) -> None:
        """Raises ConfigurationError where prototypes and encoder do not go together."""
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
        self._batches = Batches.fit(
            batches,
            segmenter.architecture,
            segmenter.device,
            (segmenter, encoder),
            self.settings.points_per_side**2,
        )
        self._path = _PATHS[self.settings.path]
        is_compiled = batches.compiled and self._path.previews and can_compile(segmenter.device)
        self._embed = compiled(segmenter.embed, wanted=is_compiled)
        self._encode: Callable[[Tensor], Tensor] = compiled(encoder, wanted=is_compiled)
        self._point_decoder = PointDecoder(segmenter, is_compiled=is_compiled)
        size = segmenter.architecture.image_size
        self._grid_N2 = point_grid(self.settings.points_per_side, size, segmenter.device)
        self._prompts = (segmenter if self._path.is_plain else self._point_decoder).prompts(self._grid_N2)
        self._stage = stage

    @property
    def images_per_batch(self) -> int:
        """How many images `find` should get at once."""
        return self._batches.images.now

    def label(self, image_HW3: npt.NDArray[np.uint8], *, image_id: str) -> ImageLabels:
        """Labels one RGB image, uint8 [H, W, 3]; boxes and masks come in its own frame, pixels."""
        (found,) = self.find([self.squash(image_HW3)])
        return found.labels(image_id)

    def squash(self, image_HW3: npt.NDArray[np.uint8]) -> Squashed:
        """What the models need of an RGB image, uint8 [H, W, 3]."""
        height, width = image_HW3.shape[:2]
        return Squashed(squash(image_HW3, self.segmenter.architecture.image_size), (height, width))

    @torch.inference_mode()
    def find(self, images: Sequence[Squashed]) -> list[Found]:
        """Finds the instances of images, of which `images_per_batch` go through both encoders together."""
        if not images:
            return []
        found = in_batches(
            torch.arange(len(images)),
            self._batches.images,
            lambda rows: self._find_batch([images[row] for row in rows]),
        )
        return list(chain.from_iterable(found))

    def _find_batch(self, images: Sequence[Squashed]) -> list[Found]:
        frames_B3SS = torch.stack([to_unit_range(image.pixels_SS3) for image in images]).to(self.segmenter.device)
        with self._stage("segmenter"), self._half():
            embedding = self._embed(frames_B3SS).float()
        with self._stage("encoder"), self._half():
            features_BPC = self._encode(frames_B3SS).float()
        return [self._find(image, embedding[index], features_BPC[index]) for index, image in enumerate(images)]

    def _half(self) -> AbstractContextManager[None]:
        return half(self.segmenter.device, wanted=self._path.is_half)

    def _find(self, image: Squashed, embedding: ImageEmbedding, features_PC: Tensor) -> Found:
        with self._stage("decoder"), tensor_cores(self.segmenter.device, wanted=self._path.is_half):
            proposals, num_proposals, prompts = self._propose(embedding, features_PC)
        merged, class_index_n = match_and_merge(
            proposals,
            features_PC,
            self.prototypes_KC,
            size=image.size,
            settings=self.settings,
            pixels_at_once=self._batches.pixels,
            stage=self._stage,
        )
        category_id_n = self.category_id_K[class_index_n.cpu().numpy()]
        predicted_iou_n = proposals.predicted_iou_N[merged.row_n]
        return Found(merged.masks, merged.score_n, category_id_n, predicted_iou_n, num_proposals, prompts)

    def _propose(self, embedding: ImageEmbedding, features_PC: Tensor) -> _Proposed:
        if self._path.is_plain:
            return self._decode(self.segmenter, embedding)
        image = self._point_decoder.prepare(embedding)
        if not self._path.previews:
            return self._decode(self._point_decoder, image)
        previews = self._preview(image, features_PC)
        row_n = previews.row_n[self._distinct(previews, features_PC)].sort().values
        # Previews have told whose predicted IoU passes.
        decode = partial(self._point_decoder.decode_points, image, pred_iou_thresh=None)
        proposals = Proposals.joined(in_batches(self._prompts[row_n], self._batches.points, decode))
        prompts = PromptCounts(previews.num_asked + len(row_n), previews.num_asked, len(row_n))
        return _Proposed(proposals, len(previews), prompts)

    def _decode(self, decoder: DecodesPoints[Prepared], image: Prepared) -> _Proposed:
        """Of all points."""
        proposals = propose(
            decoder,
            image,
            self._prompts,
            batch=self._batches.points,
            pred_iou_thresh=self.settings.pred_iou_thresh,
        )
        return _Proposed(proposals, len(proposals), PromptCounts(len(self._prompts), 0, len(proposals)))

    def _preview(self, image: PreparedImage, features_PC: Tensor) -> Previews:
        """Previews of all points, or of those that a sparse search asks."""
        look = partial(
            preview_points,
            partial(self._point_decoder.preview_points, image),
            self._prompts,
            batch=self._batches.points,
            pred_iou_thresh=self.settings.pred_iou_thresh,
        )
        if not self._path.sparse:
            return look(torch.arange(len(self._grid_N2), device=self._grid_N2.device))
        search = SparseSearch(self._grid_N2, self.segmenter.architecture.image_size)
        previews = look(search.every_other())
        previews = previews.joined(look(search.uncovered(previews)))
        for _ in range(_ROUNDS):
            best_n = self._distinct(previews, features_PC)[:_BEST]
            previews = previews.joined(look(search.beside(previews.row_n[best_n])))
        return previews

    def _distinct(self, previews: Previews, features_PC: Tensor) -> Tensor:
        """Which previews suppression is not sure to drop, by falling similarity."""
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
) -> tuple[Merged, Tensor]:
    """Everything after the decoder: the merged masks, their rows in the proposals, and their class indices [n]."""
    is_plain = _PATHS[settings.path].is_plain
    with stage("matching"):
        masks_NGG = proposals.logits_NGG > 0
        matches = (match_plainly if is_plain else match)(masks_NGG, features_PC, prototypes_KC)
        kept = _suppress(masks_NGG, proposals.predicted_iou_N, matches, box_nms_thresh=settings.box_nms_thresh)
        kept = kept[: settings.candidates_per_detection * settings.max_detections]
        kept = kept[matches.similarity_N[kept] > 0]
    with stage("merging"):
        merge = merge_plainly if is_plain else partial(merge_softly, pixels_at_once=pixels_at_once)
        merged = merge(
            proposals.logits_NGG[kept],
            matches.similarity_N[kept],
            matches.class_index_N[kept],
            matches.descriptor_NC[kept],
            size=size,
            max_detections=settings.max_detections,
        )
    rows = kept[merged.row_n]
    return Merged(rows, merged.score_n, merged.masks), matches.class_index_N[rows]


def _suppress(masks_Nss: Tensor, predicted_iou_N: Tensor, matches: Matches, *, box_nms_thresh: float) -> Tensor:
    return non_maximum_suppression(
        mask_boxes(masks_Nss), predicted_iou_N, matches.class_index_N, box_nms_thresh=box_nms_thresh
    )
