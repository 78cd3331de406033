"""What the segmenter is asked: the embeddings of images, proposals for points of the grid, masks for boxes.

Shapes: B images, P patches, C channels, G mask logits side, N points or previews, J prototypes and negatives.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from refseg_core.labeling.batching import Batches, in_batches
from refseg_core.labeling.composing.stages import Stage
from refseg_core.labeling.image_labels import ImageFrame
from refseg_core.labeling.matching import match
from refseg_core.labeling.merging import non_maximum_suppression
from refseg_core.labeling.previews import PreviewedGrid, Previews
from refseg_core.labeling.proposal_source import ProposalSource, Proposed
from refseg_core.labeling.proposals import AllMasks, PointGrid, point_grid
from refseg_core.masks.boxes import mask_boxes
from refseg_core.models.acceleration import half, tensor_cores
from refseg_core.models.compilation import compiled
from refseg_core.models.preprocessing import to_unit_range
from refseg_core.models.protocols import DecodesQuickly, ImageEmbedding, Segmenter
from refseg_core.settings import LabelingSettings
from refseg_core.settings.labeling_paths import LABELING_PATHS


class Prompting:
    """Asks the segmenter about images, by a grid of points or another source of proposals.

    What needs the segmenter's parameters is built when it is first needed, or by `build`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        settings: LabelingSettings,
        batches: Batches,
        *,
        compared_JC: Tensor,
        source: ProposalSource | None,
        is_compiled: bool,
        stage: Stage,
    ) -> None:
        """`compared_JC`: what previews are ordered by. `source`: None: the grid of points."""
        self.segmenter = segmenter
        self.grid_N2 = point_grid(settings.points_per_side, segmenter.architecture.image_size, segmenter.device)
        self._settings, self._batches, self._compared_JC = settings, batches, compared_JC
        self._path = LABELING_PATHS[settings.path]
        self._given_source, self._is_compiled, self._stage = source, is_compiled, stage

    def build(self) -> tuple[object, ...]:
        """Builds what needs the segmenter's parameters."""
        return self.embed, self.source

    @cached_property
    def embed(self) -> Callable[[Tensor], ImageEmbedding]:
        """Embeds pixels of images."""
        return compiled(self.segmenter.embed, wanted=self._is_compiled)

    @cached_property
    def source(self) -> ProposalSource:
        """Where proposals come from."""
        return self._given_source or self._grid_source(self.grid_N2)

    @cached_property
    def decoder(self) -> DecodesQuickly[Any]:
        """The quick decoder, which the plain path does without."""
        return self.segmenter.point_decoder(is_compiled=self._is_compiled)

    def pixels(self, images: Sequence[ImageFrame]) -> Tensor:
        """Returns images as the models take them, float32 [B, 3, S, S] in [0, 1], on their device."""
        return torch.stack([to_unit_range(image.pixels_SS3) for image in images]).to(self.segmenter.device)

    def embeddings(self, images: Sequence[ImageFrame]) -> ImageEmbedding:
        """Returns the embeddings of images, one after the other, in float32."""
        with self._stage("segmenter"), half(self.segmenter.device, wanted=self._path.is_half):
            return self.embed(self.pixels(images)).float()

    def propose(self, embedding: ImageEmbedding, features_PC: Tensor, row_n: Tensor) -> Proposed:
        """Proposes masks for one image; `row_n`: which points of the grid to use."""
        with self._stage("decoder"), tensor_cores(self.segmenter.device, wanted=self._path.is_half):
            return self.source.propose(embedding, features_PC, row_n)

    def decode_boxes(self, embedding: ImageEmbedding, boxes_n4: Tensor) -> Tensor:
        """Returns logits [n, G, G] of boxes xyxy in the segmenter frame."""
        decode = partial(self.decoder.decode_boxes, embedding)
        return torch.cat([logits for logits, _ in in_batches(boxes_n4, self._batches.points, decode)])

    def _grid_source(self, grid_N2: Tensor) -> ProposalSource:
        batch, thresh = self._batches.points, self._settings.pred_iou_thresh
        if self._path.is_plain:
            return PointGrid(self.segmenter, grid_N2, batch=batch, pred_iou_thresh=thresh)
        decoder = self.decoder
        if self._settings.parts.all_masks:
            return AllMasks(decoder, grid_N2, batch=batch, pred_iou_thresh=thresh)
        if not self._path.has_previews:
            return PointGrid(decoder, grid_N2, batch=batch, pred_iou_thresh=thresh)
        return PreviewedGrid(decoder, grid_N2, self._distinct, batch=batch, pred_iou_thresh=thresh)

    def _distinct(self, previews: Previews, features_PC: Tensor) -> Tensor:
        """Returns the previews that suppression is not sure to drop, by falling similarity."""
        matches = match(previews.masks_nhh, features_PC, self._compared_JC)
        kept = non_maximum_suppression(
            mask_boxes(previews.masks_nhh),
            previews.predicted_iou_n,
            matches.class_index_N,
            box_nms_thresh=(1 + self._settings.box_nms_thresh) / 2,  # boxes of previews are up to three pixels off
        )
        return kept[matches.similarity_N[kept].argsort(descending=True, stable=True)]
