"""The proposals of an image as instances are chosen from them: just decoded, or kept.

Shapes: N proposals, n some of them, G mask logits side, P patches, C channels, K categories.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from refseg_core.labeling.kept.completed_image import CompletedImage
from refseg_core.labeling.kept.crop_means import CropMeans
from refseg_core.labeling.kept.edge_logits import edge_cells, reach_of, restored
from refseg_core.labeling.kept.kept_image import ChosenMasks
from refseg_core.labeling.matching import Matches, compare, match, match_plainly
from refseg_core.labeling.merging import upsample, upsample_whole
from refseg_core.labeling.proposal_source import Proposals
from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.boxes import mask_boxes
from refseg_core.masks.upsampling import can_upsample, upsample_packed

Look = Callable[[Tensor, Tensor], Tensor]
"""Masks bool [n, G, G] and similarities [n, K] to revised similarities."""


class Pool(Protocol):
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

    def upsampled(self, row_n: Tensor) -> PackedMasks:
        """Returns masks of some in the original frame."""

    def look_again(self, row_n: Tensor, similarity_nK: Tensor) -> Tensor:
        """Returns similarities of some, [n, K], revised."""

    def refined(self, row_n: Tensor) -> PackedMasks:
        """Returns masks of some, decoded again, in the original frame."""


@dataclass(frozen=True)
class DecodedPool:
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
        """Bool [N, G, G]."""
        return self.proposals.logits_NGG > 0

    def predicted_ious(self) -> Tensor:
        """Returns those of all, float32 [N]."""
        return self.proposals.predicted_iou_N

    def matches(self, prototypes_KC: Tensor) -> Matches:
        """Compares all proposals with the prototypes."""
        return (match_plainly if self.is_plain else match)(self.masks, self.features_PC, prototypes_KC)

    def boxes(self) -> Tensor:
        """Returns inclusive extents of all, int64 [N, 4]."""
        return mask_boxes(self.masks)

    def shares(self) -> Tensor:
        """Returns how much of the image each covers, float64 [N]."""
        return self.masks.flatten(1).sum(dim=1).double() / self.masks.shape[1:].numel()

    def logits(self, row_n: Tensor) -> Tensor:
        """Returns logits of some, [n, G, G]."""
        return self.proposals.logits_NGG[row_n]

    def upsampled(self, row_n: Tensor) -> PackedMasks:
        """Returns masks of some in the original frame."""
        return upsample(self.logits(row_n).float(), self.size, self.pixels_at_once)

    def look_again(self, row_n: Tensor, similarity_nK: Tensor) -> Tensor:
        """Returns similarities of some, [n, K], revised."""
        return self.second_look(self.masks[row_n], similarity_nK)

    def refined(self, row_n: Tensor) -> PackedMasks:
        """Returns masks of some, decoded again, in the original frame."""
        return upsample(self.refine(self.logits(row_n).float()), self.size, self.pixels_at_once)


@dataclass(frozen=True)
class KeptPool:
    """Proposals of which everything is kept, or computed and then kept: on the CPU, but for what is returned."""

    image: CompletedImage
    masks: ChosenMasks
    device: torch.device
    pixels_at_once: int
    revise: Callable[[CropMeans, Tensor], Tensor]

    def predicted_ious(self) -> Tensor:
        """Returns those of all, float32 [N]."""
        return self.masks.predicted_ious().to(self.device)

    def matches(self, prototypes_KC: Tensor) -> Matches:
        """Compares all proposals with the prototypes."""
        return compare(self.masks.descriptors().to(self.device), prototypes_KC)

    def boxes(self) -> Tensor:
        """Returns inclusive extents of all, int64 [N, 4]."""
        return self.masks.boxes().to(self.device)

    def shares(self) -> Tensor:
        """Returns how much of the image each covers, float64 [N]."""
        return self.masks.shares()

    def logits(self, row_n: Tensor) -> Tensor:
        """Returns logits of some, [n, G, G]."""
        masks = self.masks[row_n.cpu()]
        reach = reach_of(masks.masks.height, self.image.kept.size)
        return restored(masks.masks.unpack().to(self.device), masks.edge_E.to(self.device), reach)

    def upsampled(self, row_n: Tensor) -> PackedMasks:
        """Returns masks of some in the original frame."""
        masks, size = self.masks[row_n.cpu()], self.image.kept.size
        if self.device.type != "cpu" or not can_upsample(masks.masks.height, size):
            return upsample(self.logits(row_n).float(), size, self.pixels_at_once)
        return upsample_packed(
            masks.masks,
            edge_cells(masks.masks, masks.edge_E, reach_of(masks.masks.height, size)),
            size,
            lambda rows: upsample_whole(self.logits(row_n[torch.from_numpy(rows)]).float(), size, self.pixels_at_once),
        )

    def look_again(self, row_n: Tensor, similarity_nK: Tensor) -> Tensor:
        """Returns similarities of some, [n, K], revised."""
        masks = self.masks[row_n.cpu()]
        means = self.image.look(masks.key_N, masks.masks)
        return self.revise(CropMeans(*(part.to(self.device) for part in means)), similarity_nK)

    def refined(self, row_n: Tensor) -> PackedMasks:
        """Returns masks of some, decoded again, in the original frame."""
        refined = self.image.refine(self.masks.keys(row_n.cpu()), lambda row_m: self.logits(row_n.cpu()[row_m]))
        return PackedMasks(refined.columns_NWB.to(self.device), refined.height)
