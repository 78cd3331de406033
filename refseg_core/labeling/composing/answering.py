"""What the models answer about an image of which something is kept.

Equal questions have equal answers, so as many items go through a model each time: see `filled`.

Shapes: P patches, C channels, G mask logits side, n masks or points, M masks of a point, R = n * M.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from refseg_core.labeling.batching import Batches, BatchSize, filled, in_batches
from refseg_core.labeling.composing.stages import Stage
from refseg_core.labeling.image_labels import ImageFrame
from refseg_core.labeling.kept.completed_image import ImageModels
from refseg_core.labeling.kept.crop_means import CropMeans
from refseg_core.labeling.kept.edge_logits import edge_values, reach_of
from refseg_core.labeling.kept.kept_image import LOGITS, MASKS_PER_POINT, KeptImage, KeptMasks
from refseg_core.labeling.matching import describe
from refseg_core.labeling.merging import upsample
from refseg_core.labeling.refinement import refine
from refseg_core.labeling.second_look import SecondLook
from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.boxes import mask_boxes
from refseg_core.models.protocols import ImageEmbedding
from refseg_core.settings import LabelingSettings

if TYPE_CHECKING:
    from refseg_core.labeling.composing.prompting import Prompting

# Prompts, boxes too, and crops at once where something of an image is kept. Every call has as many, so few are in vain.
_PROMPTS_ON_A_CPU, _CROPS_ON_A_CPU = 8, 4
_ALL_PASS = -1.0  # a threshold of predicted IoU

Encode = Callable[[Sequence[ImageFrame]], Tensor]
"""Images to patch features [B, P, C]."""


class Answering:
    """Asks the models about images, one after the other, in the form that is kept."""

    def __init__(
        self,
        prompting: "Prompting",
        encode: Encode,
        second_look: SecondLook,
        settings: LabelingSettings,
        batches: Batches,
        *,
        stage: Stage,
    ) -> None:
        self._prompting, self._encode, self._second_look = prompting, encode, second_look
        self._settings, self._batches, self._stage = settings, batches, stage

    def about(self, frame: Callable[[], ImageFrame]) -> ImageModels:
        """Returns what answers about an image, which is opened and embedded when this is first needed."""
        opened = _OpenedImage(frame, self._embed)
        return ImageModels(
            partial(self._begin, opened),
            partial(self._ask, opened),
            partial(self._look, opened),
            partial(self._refine, opened),
        )

    def _embed(self, frame: ImageFrame) -> ImageEmbedding:
        return self._prompting.embed(self._prompting.pixels([frame])).float()[0]

    def _begin(self, image: "_OpenedImage") -> KeptImage:
        (features_PC,) = self._encode([image.frame])
        logits_size, logits = self._prompting.segmenter.architecture.logits_size, LOGITS[self._settings.parts.all_masks]
        return KeptImage.begun(image.frame.size, features_PC.cpu(), logits_size=logits_size, logits=logits)

    def _ask(self, image: "_OpenedImage", point_n: Tensor, features_PC: Tensor) -> KeptMasks:
        """Prompts the segmenter with points, and describes the masks by the image's features."""
        batch = self._at_once(_PROMPTS_ON_A_CPU, self._batches.points)
        decode = partial(self._decode_all, self._prompting.decoder.prepare(image.embedding))
        features_PC = features_PC.to(self._prompting.segmenter.device)

        def ask(some_n: Tensor) -> KeptMasks:
            with self._stage("decoder"):
                logits_nMGG, predicted_iou_nM = decode(filled(some_n, batch.now))
            descriptor_RC = describe(logits_nMGG.flatten(0, 1) > 0, features_PC)
            is_good_nM = predicted_iou_nM[: len(some_n)] > self._settings.pred_iou_thresh
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
        decoder, prompts = self._prompting.decoder, self._grid_prompts[point_n.to(self._prompting.segmenter.device)]
        if not self._settings.parts.all_masks:
            logits_nGG, predicted_iou_n = decoder.decode_points(prepared, prompts, pred_iou_thresh=None)
            return logits_nGG[:, None], predicted_iou_n[:, None]
        logits_mGG, predicted_iou_m = decoder.decode_all_masks(prepared, prompts, pred_iou_thresh=_ALL_PASS)
        return logits_mGG.half().unflatten(0, (len(point_n), -1)), predicted_iou_m.unflatten(0, (len(point_n), -1))

    @cached_property
    def _grid_prompts(self) -> Tensor:
        return self._prompting.decoder.prompts(self._prompting.grid_N2)

    def _look(self, image: "_OpenedImage", masks_nGG: Tensor) -> CropMeans:
        """Encodes crops around masks."""
        assert image.frame.image_HW3 is not None  # see BatchLabeler.to_frame
        batch, pixels = self._at_once(_CROPS_ON_A_CPU, self._batches.crops), image.frame.image_HW3

        def look(some_nGG: Tensor) -> CropMeans:
            with self._stage("second look"):
                means = self._second_look.look(pixels, filled(some_nGG, batch.now))
            return CropMeans(*(part[: len(some_nGG)].cpu() for part in means))

        parts = in_batches(masks_nGG.to(self._prompting.segmenter.device), batch, look)
        return CropMeans(*map(torch.cat, zip(*parts, strict=True)))

    def _refine(self, image: "_OpenedImage", logits_nGG: Tensor) -> PackedMasks:
        """Decodes masks again from their boxes, and resizes them to the original frame."""
        batch = self._at_once(_PROMPTS_ON_A_CPU, self._batches.points)
        decode = partial(self._prompting.decode_boxes, image.embedding)
        image_size = self._prompting.segmenter.architecture.image_size

        def refined(some_nGG: Tensor) -> PackedMasks:
            refined_nGG = refine(decode, filled(some_nGG.float(), batch.now), image_size=image_size)
            return upsample(refined_nGG[: len(some_nGG)], image.frame.size, self._batches.pixels)

        masks = PackedMasks.concatenate(in_batches(logits_nGG, batch, refined))
        return PackedMasks(masks.columns_NWB.cpu(), masks.height)

    def _at_once(self, on_a_cpu: int, on_a_gpu: BatchSize) -> BatchSize:
        return BatchSize(on_a_cpu) if self._prompting.segmenter.device.type == "cpu" else on_a_gpu


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


def _kept_masks(
    key_N: Tensor, logits_NGG: Tensor, predicted_iou_N: Tensor, descriptor_NC: Tensor, reach: int
) -> KeptMasks:
    """Returns masks in the form that is kept, on the CPU."""
    masks_NGG = logits_NGG > 0
    packed = PackedMasks.of(masks_NGG)
    edge = edge_values(logits_NGG, reach)
    return KeptMasks(
        key_N,
        predicted_iou_N.cpu(),
        descriptor_NC.cpu(),
        mask_boxes(masks_NGG).cpu(),
        PackedMasks(packed.columns_NWB.cpu(), packed.height),
        edge.value_E.cpu(),
        edge.num_N.cpu(),
    )
