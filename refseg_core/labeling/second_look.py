"""Step 5c of the method `accurate`: encodes a crop around each of the best candidates, as references are encoded.

In the whole image an object of 60 pixels has a dozen patches, in a crop two hundred, as its reference had. And a crop
shows what is around: a mask of a part of an object has the rest of that object around it.

Shapes: n candidates, G mask logits side, E crop side (px), g crop patch grid side, P = g * g, C channels,
K categories. Boxes are in the image's own frame, pixels.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.labeling.batching import BatchSize, in_batches
from refseg_core.labeling.kept.crop_means import CropMeans
from refseg_core.masks.boxes import mask_boxes
from refseg_core.models.preprocessing import to_unit_range
from refseg_core.models.protocols import Encoder
from refseg_core.settings.labeling_methods import SMALL_GRID

VERSION = 1  # of similarities after a second look

_CONTEXT = 0.2  # how much larger a crop is than the longer side of its box, as crops of references are
_SAMPLES = 4  # points of the mask along one side of a patch; the share of them inside is the patch's weight
_LEAST_WEIGHT = 0.5  # patches; a mean over less says nothing
_INSIDE = 0.5  # of a mask that is read between its cells


class _Square(NamedTuple):
    """Where a crop lies in the image, cut at its borders, in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int


class SecondLook:
    """Revises the similarities of candidates by their crops."""

    def __init__(
        self, encoder: Encoder, prototypes_KC: Tensor, *, batch: BatchSize, part_penalty: float, num_negatives: int = 0
    ) -> None:
        """`part_penalty`: how much of the likeness of a crop's background to a category is taken from it.

        `num_negatives`: how many of the prototypes, the last, are of no category: a part of a negative is one, too.
        """
        self._encoder, self._prototypes_KC, self._batch = encoder, prototypes_KC, batch
        self._penalty_K = torch.full((len(prototypes_KC),), part_penalty, device=prototypes_KC.device)
        self._penalty_K[len(prototypes_KC) - num_negatives :] = 0

    def __call__(self, image_HW3: npt.NDArray[np.uint8], masks_nGG: Tensor, similarity_nK: Tensor) -> Tensor:
        """Returns similarities [n, K] in [0, 1]: the mean of the given ones and the crops', less the penalty.

        A candidate whose mask vanishes in its crop keeps what it has. `masks_nGG`: bool. `similarity_nK`: in [0, 1].
        """
        if len(masks_nGG) == 0:
            return similarity_nK
        return self.revise(self.look(image_HW3, masks_nGG), similarity_nK)

    def look(self, image_HW3: npt.NDArray[np.uint8], masks_nGG: Tensor) -> CropMeans:
        """Encodes a crop around each mask, bool [n, G, G], of which there is at least one."""
        squares = _squares(masks_nGG, image_HW3.shape[:2])

        def look(row_n: Tensor) -> CropMeans:
            return self._means(image_HW3, [squares[row] for row in row_n.tolist()], masks_nGG[row_n])

        parts = in_batches(torch.arange(len(squares)), self._batch, look)
        return CropMeans(*map(torch.cat, zip(*parts, strict=True)))

    def revise(self, means: CropMeans, similarity_nK: Tensor) -> Tensor:
        """Returns the revised similarities of candidates whose crops show this."""
        inside_nK, outside_nK = means.inside_nC @ self._prototypes_KC.T, means.outside_nC @ self._prototypes_KC.T
        revised_nK = (similarity_nK + inside_nK) / 2 - self._penalty_K * outside_nK
        return torch.where(means.has_mask_n[:, None], revised_nK.clamp(0, 1), similarity_nK)

    def _means(self, image_HW3: npt.NDArray[np.uint8], squares: list[_Square], masks_nGG: Tensor) -> CropMeans:
        weights_nP = _patch_weights(masks_nGG, squares, image_HW3.shape[:2])
        side = self._encoder.architecture.image_size * SMALL_GRID // self._encoder.architecture.grid_size
        crops_n3EE = torch.stack([_crop(image_HW3, square, side) for square in squares]).to(masks_nGG.device)
        features_nPC = self._encoder(crops_n3EE, grid_size=SMALL_GRID).float()
        inside_nC, outside_nC = (_mean(weight, features_nPC) for weight in (weights_nP, 1 - weights_nP))
        return CropMeans(inside_nC, outside_nC, weights_nP.sum(dim=1) >= _LEAST_WEIGHT)


def _mean(weights_nP: Tensor, features_nPC: Tensor) -> Tensor:
    """Returns the weighted mean features, unit length, [n, C]; zeros where hardly a patch counts."""
    total_n1 = weights_nP.sum(dim=1, keepdim=True)
    mean_nC = torch.einsum("np,npc->nc", weights_nP, features_nPC) / total_n1.clamp_min(_LEAST_WEIGHT)
    return torch.where(total_n1 >= _LEAST_WEIGHT, F.normalize(mean_nC, dim=1), 0)


def _squares(masks_nGG: Tensor, size: tuple[int, int]) -> list[_Square]:
    """Returns the squares around masks, `_CONTEXT` larger than their boxes' longer sides; `size`: (height, width)."""
    height, width = size
    extents = mask_boxes(masks_nGG).cpu().numpy().astype(np.float64)
    extents[:, 2:] += 1  # from inclusive cells to the edges of the last ones
    boxes_n4 = extents / masks_nGG.shape[-1] * (width, height, width, height)
    centers_n2 = (boxes_n4[:, :2] + boxes_n4[:, 2:]) / 2
    halves_n1 = (boxes_n4[:, 2:] - boxes_n4[:, :2]).max(axis=1, keepdims=True) * (1 + _CONTEXT) / 2
    first_n2 = np.floor(centers_n2 - halves_n1).clip(0).astype(int)
    last_n2 = np.ceil(centers_n2 + halves_n1).clip(max=(width, height)).astype(int)
    return [_Square(*corners) for corners in np.concatenate((first_n2, last_n2), axis=1).tolist()]


def _crop(image_HW3: npt.NDArray[np.uint8], square: _Square, side: int) -> Tensor:
    """Returns the pixels of a square, stretched to `side`: float32 [3, E, E] in [0, 1]."""
    pixels = to_unit_range(image_HW3[square.top : square.bottom, square.left : square.right])[None]
    return F.interpolate(pixels, size=(side, side), mode="bicubic", align_corners=False, antialias=True)[0].clamp(0, 1)


def _patch_weights(masks_nGG: Tensor, squares: list[_Square], size: tuple[int, int]) -> Tensor:
    """Returns the share of each patch of the crops that is inside the mask, float32 [n, P]."""
    height, width = size
    corners_n4 = torch.tensor(squares, device=masks_nGG.device) / torch.tensor(
        (width, height, width, height), device=masks_nGG.device
    )
    along = (torch.arange(SMALL_GRID * _SAMPLES, device=masks_nGG.device) + 0.5) / (SMALL_GRID * _SAMPLES)
    first_n12, last_n12 = corners_n4[:, None, :2], corners_n4[:, None, 2:]
    places_nX2 = (first_n12 + (last_n12 - first_n12) * along[:, None]) * 2 - 1
    x_nX, y_nX = places_nX2.unbind(dim=-1)
    grid_nXX2 = torch.stack(torch.broadcast_tensors(x_nX[:, None, :], y_nX[:, :, None]), dim=-1)
    read_n1XX = F.grid_sample(masks_nGG[:, None].float(), grid_nXX2, padding_mode="border", align_corners=False)
    inside_n1XX = read_n1XX > _INSIDE
    return F.avg_pool2d(inside_n1XX.float(), _SAMPLES).flatten(1)
