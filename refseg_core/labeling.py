"""Step 5: labels images: propose, match, merge. The only module that composes other steps. Method, section 6.

Use it as a library:

    labeler = Labeler(segmenter, encoder, prototypes, LabelingSettings())
    detections = labeler.label(image_HW3, image_id="harbour.jpg").detections
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from refseg_core.encoder import Encoder
from refseg_core.errors import ConfigurationError
from refseg_core.matching import match
from refseg_core.merging import Merged, mask_boxes, merge_softly, non_maximum_suppression
from refseg_core.packed_masks import extents
from refseg_core.pixels import squash, to_unit_range
from refseg_core.point_decoder import PointDecoder
from refseg_core.proposals import Proposals, propose
from refseg_core.run_lengths import encode_packed
from refseg_core.segmenter import Segmenter
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.tables import Detections, Prototypes


class ImageLabels(NamedTuple):
    """An image's instances, by falling score, and how many masks were proposed for it."""

    detections: Detections
    num_proposals: int


class Labeler:
    """Finds and segments every instance of the prototypes' categories in images."""

    def __init__(
        self,
        segmenter: Segmenter,
        encoder: Encoder,
        prototypes: Prototypes,
        settings: LabelingSettings | None = None,
        batches: BatchSettings | None = None,
    ) -> None:
        """Raises ConfigurationError where prototypes and encoder do not go together."""
        expected, came = encoder.architecture.embed_dim, prototypes.prototype.shape[1]
        if len(prototypes) == 0 or expected != came:
            raise ConfigurationError(
                f"The encoder needs at least one prototype of {expected} channels, got {len(prototypes)} of {came}. "
                "Build the bank with the encoder that labels."
            )
        self.segmenter = segmenter
        self.point_decoder = PointDecoder(segmenter)
        self.encoder = encoder
        self.category_id_K = prototypes.category_id
        self.prototypes_KC = torch.from_numpy(prototypes.prototype.copy()).to(segmenter.device)
        self.settings = settings or LabelingSettings()
        self.batches = batches or BatchSettings()

    @torch.inference_mode()
    def label(self, image_HW3: npt.NDArray[np.uint8], *, image_id: str) -> ImageLabels:
        """Labels one RGB image, uint8 [H, W, 3]; boxes and masks come in its own frame, pixels."""
        height, width = image_HW3.shape[:2]
        squashed = squash(image_HW3, self.segmenter.architecture.image_size)
        frame_13SS = to_unit_range(squashed)[None].to(self.segmenter.device)
        proposals = propose(
            self.point_decoder,
            self.segmenter.embed(frame_13SS),
            points_per_side=self.settings.points_per_side,
            points_per_batch=self.batches.points_per_batch,
            pred_iou_thresh=self.settings.pred_iou_thresh,
        )
        if len(proposals) == 0:
            return ImageLabels(Detections.empty(), 0)
        features_PC = self.encoder(frame_13SS)[0]
        merged, class_index_n = match_and_merge(
            proposals, features_PC, self.prototypes_KC, size=(height, width), settings=self.settings
        )
        category_id_n = self.category_id_K[class_index_n.cpu().numpy()]
        predicted_iou_n = proposals.predicted_iou_N[merged.row_n].cpu().numpy()
        return ImageLabels(_detections(image_id, merged, category_id_n, predicted_iou_n), len(proposals))


def match_and_merge(
    proposals: Proposals,
    features_PC: torch.Tensor,
    prototypes_KC: torch.Tensor,
    *,
    size: tuple[int, int],
    settings: LabelingSettings,
) -> tuple[Merged, torch.Tensor]:
    """Everything after the decoder: the merged masks, their rows in the proposals, and their class indices [n]."""
    masks_NGG = proposals.logits_NGG > 0
    matches = match(masks_NGG, features_PC, prototypes_KC)
    kept = non_maximum_suppression(
        mask_boxes(masks_NGG),
        proposals.predicted_iou_N,
        matches.class_index_N,
        box_nms_thresh=settings.box_nms_thresh,
    )
    kept = kept[: settings.candidates_per_detection * settings.max_detections]
    kept = kept[matches.similarity_N[kept] > 0]
    merged = merge_softly(
        proposals.logits_NGG[kept],
        matches.similarity_N[kept],
        matches.class_index_N[kept],
        matches.descriptor_NC[kept],
        size=size,
        max_detections=settings.max_detections,
    )
    rows = kept[merged.row_n]
    return Merged(rows, merged.score_n, merged.masks), matches.class_index_N[rows]


def _detections(
    image_id: str,
    merged: Merged,
    category_id_n: npt.NDArray[np.int64],
    predicted_iou_n: npt.NDArray[np.float32],
) -> Detections:
    columns_NWB = merged.masks.columns_NWB.cpu().numpy()
    boxes = extents(columns_NWB).astype(np.float64)
    boxes[:, 2:] += 1  # from inclusive pixel extents to the edges of the last pixels
    return Detections(
        image_id=np.full(len(boxes), image_id, dtype=object),
        category_id=category_id_n,
        score=merged.score_n.cpu().numpy(),
        predicted_iou=predicted_iou_n,
        box_xyxy=boxes,
        mask_rle=np.fromiter(encode_packed(columns_NWB, merged.masks.height), dtype=object, count=len(boxes)),
    )
