"""What is kept of an image: features, points that were asked, their masks, crops that were looked at, refined masks.

All of it follows from the image and the models alone. A mask's key is the row of its point in the grid, times
`MASKS_PER_POINT`, plus which of the point's masks it is.

Shapes: P patches, C channels, N masks, G mask logits side, E values of logits near edges (`edge_logits.py`), n some
masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refseg_core.labeling.kept.crop_means import CropMeans
from refseg_core.masks.bitmasks import PackedMasks

MASKS_PER_POINT = 3
LOGITS = {True: torch.float16, False: torch.float32}
"""The type of logits, by whether all masks of a point are candidates."""


@dataclass(frozen=True)
class KeptMasks:
    """Masks that points were answered with, by ascending key.

    key int64 [N]; predicted_iou float32 [N]; descriptor float32 [N, C], unit length; box int64 [N, 4], inclusive
    extents in cells; masks of G x G cells; values near edges [E], and how many each mask has, int64 [N].
    """

    key_N: Tensor
    predicted_iou_N: Tensor
    descriptor_NC: Tensor
    box_N4: Tensor
    masks: PackedMasks
    edge_E: Tensor
    num_edge_N: Tensor

    @classmethod
    def none(cls, logits_size: int, num_channels: int, logits: torch.dtype) -> "KeptMasks":
        """No masks."""
        packed = PackedMasks.of(torch.zeros(0, logits_size, logits_size, dtype=torch.bool))
        keys, boxes = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.int64)
        return cls(
            keys, torch.zeros(0), torch.zeros(0, num_channels), boxes, packed, torch.zeros(0, dtype=logits), keys
        )

    @classmethod
    def joined(cls, parts: Sequence["KeptMasks"]) -> "KeptMasks":
        """Returns the masks of all parts, which share no key."""
        joined = cls(
            torch.cat([part.key_N for part in parts]),
            torch.cat([part.predicted_iou_N for part in parts]),
            torch.cat([part.descriptor_NC for part in parts]),
            torch.cat([part.box_N4 for part in parts]),
            PackedMasks.concatenate([part.masks for part in parts]),
            torch.cat([part.edge_E for part in parts]),
            torch.cat([part.num_edge_N for part in parts]),
        )
        return joined[joined.key_N.argsort()]

    def __len__(self) -> int:
        return len(self.key_N)

    def __getitem__(self, row_n: Tensor) -> "KeptMasks":
        return KeptMasks(
            self.key_N[row_n],
            self.predicted_iou_N[row_n],
            self.descriptor_NC[row_n],
            self.box_N4[row_n],
            self.masks[row_n],
            self.edge_E[self._places(row_n)],
            self.num_edge_N[row_n],
        )

    def of_points(self, point_n: Tensor) -> "ChosenMasks":
        """Returns the masks of some points of the grid."""
        return ChosenMasks(self, torch.nonzero(torch.isin(self.key_N // MASKS_PER_POINT, point_n))[:, 0])

    def _places(self, row_n: Tensor) -> Tensor:
        """Returns where the values of these masks stand, int64 [e]."""
        num_n = self.num_edge_N[row_n]
        first_n = (self.num_edge_N.cumsum(0) - self.num_edge_N)[row_n]
        within_e = torch.arange(int(num_n.sum())) - (num_n.cumsum(0) - num_n).repeat_interleave(num_n)
        return first_n.repeat_interleave(num_n) + within_e


@dataclass(frozen=True)
class ChosenMasks:
    """Some of the masks that are kept, by their rows, int64 [N], without a copy of their cells, which are megabytes."""

    kept: KeptMasks
    row_N: Tensor

    def __len__(self) -> int:
        return len(self.row_N)

    def __getitem__(self, row_n: Tensor) -> KeptMasks:
        return self.kept[self.row_N[row_n]]

    def predicted_ious(self) -> Tensor:
        """Returns float32 [N]."""
        return self.kept.predicted_iou_N[self.row_N]

    def descriptors(self) -> Tensor:
        """Returns float32 [N, C], unit length."""
        return self.kept.descriptor_NC[self.row_N]

    def boxes(self) -> Tensor:
        """Returns int64 [N, 4], inclusive extents in cells."""
        return self.kept.box_N4[self.row_N]

    def keys(self, row_n: Tensor) -> Tensor:
        """Returns those of some of these, int64 [n]."""
        return self.kept.key_N[self.row_N[row_n]]

    def shares(self) -> Tensor:
        """Returns how much of the image each covers, in [0, 1], float64 [N]."""
        masks = self.kept.masks
        return masks.areas()[self.row_N] / (masks.height * masks.columns_NWB.shape[1])


@dataclass(frozen=True)
class KeptLooks:
    """What crops of masks showed: keys int64 [n], in any order, each once."""

    key_n: Tensor
    means: CropMeans

    @classmethod
    def none(cls, num_channels: int) -> "KeptLooks":
        """No crops."""
        nothing = torch.zeros(0, num_channels)
        return cls(torch.zeros(0, dtype=torch.int64), CropMeans(nothing, nothing, torch.zeros(0, dtype=torch.bool)))

    def plus(self, other: "KeptLooks") -> "KeptLooks":
        """Returns both; of a mask that is in both, what is here."""
        row_n = unknown(self.key_n, other.key_n)
        means = CropMeans(
            *(torch.cat((own, theirs[row_n])) for own, theirs in zip(self.means, other.means, strict=True))
        )
        return KeptLooks(torch.cat((self.key_n, other.key_n[row_n])), means)


@dataclass(frozen=True)
class KeptRefined:
    """Masks that were decoded again from their boxes, in the original frame: keys int64 [n], as of looks."""

    key_n: Tensor
    masks: PackedMasks

    @classmethod
    def none(cls, size: tuple[int, int]) -> "KeptRefined":
        """No masks; `size`: (height, width) of the original frame, px."""
        return cls(torch.zeros(0, dtype=torch.int64), PackedMasks.of(torch.zeros(0, *size, dtype=torch.bool)))

    def plus(self, other: "KeptRefined") -> "KeptRefined":
        """Returns both; of a mask that is in both, what is here."""
        row_n = unknown(self.key_n, other.key_n)
        masks = PackedMasks.concatenate([self.masks, other.masks[row_n]])
        return KeptRefined(torch.cat((self.key_n, other.key_n[row_n])), masks)


@dataclass(frozen=True)
class KeptImage:
    """What is kept of an image: `size` (height, width) px; features float32 [P, C]; rows of points asked, int64."""

    size: tuple[int, int]
    features_PC: Tensor
    asked_n: Tensor
    masks: KeptMasks
    looks: KeptLooks
    refined: KeptRefined

    @classmethod
    def begun(cls, size: tuple[int, int], features_PC: Tensor, *, logits_size: int, logits: torch.dtype) -> "KeptImage":
        """An image that was encoded and not asked yet."""
        num_channels = features_PC.shape[1]
        masks = KeptMasks.none(logits_size, num_channels, logits)
        asked_n = torch.zeros(0, dtype=torch.int64)
        return cls(size, features_PC, asked_n, masks, KeptLooks.none(num_channels), KeptRefined.none(size))

    def emptied(self) -> "KeptImage":
        """Returns the image as if nothing were kept of it but its sizes."""
        logits_size, logits = self.masks.masks.height, self.masks.edge_E.dtype
        return KeptImage.begun(self.size, self.features_PC[:0], logits_size=logits_size, logits=logits)

    def plus(self, other: "KeptImage") -> "KeptImage":
        """Returns what is kept of the image here and there; of a mask that is in both, what is here."""
        is_new_N = ~torch.isin(other.masks.key_N // MASKS_PER_POINT, self.asked_n)
        return KeptImage(
            self.size,
            self.features_PC if len(self.features_PC) else other.features_PC,
            torch.cat((self.asked_n, other.asked_n)).unique(),
            KeptMasks.joined([self.masks, other.masks[torch.nonzero(is_new_N)[:, 0]]]),
            self.looks.plus(other.looks),
            self.refined.plus(other.refined),
        )


def unknown(known_n: Tensor, key_n: Tensor) -> Tensor:
    """Returns which of the keys [n] are not among the known ones, as rows of them, int64."""
    return torch.nonzero(~torch.isin(key_n, known_n))[:, 0]


def rows_of(known_n: Tensor, key_n: Tensor) -> Tensor:
    """Returns where keys [n], all of them known, stand among the known ones, which may have any order, int64 [n]."""
    order_n = known_n.argsort()
    return order_n[torch.searchsorted(known_n[order_n], key_n)]
