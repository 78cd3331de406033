"""Step 5b: matches proposals to prototypes. Method, section 6.4.

Shapes: N masks, G logits side, g patch grid side, P = g * g patches, C channels, K categories.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

VERSION = 1  # of matches

_MASKS_PER_CHUNK = 128  # bounds the float copies of the masks to 32 MiB at 256 x 256


@dataclass(frozen=True)
class Matches:
    """How much masks resemble the categories, and the best category of each.

    similarity float32 in [0, 1], to all categories [N, K] and to the best [N], 0 for an empty mask or no likeness at
    all; class_index int64 [N]; descriptor float32 [N, C], unit length.
    """

    similarity_NK: Tensor
    similarity_N: Tensor
    class_index_N: Tensor
    descriptor_NC: Tensor

    @classmethod
    def of(cls, similarity_NK: Tensor, descriptor_NC: Tensor) -> "Matches":
        """Takes the category of the largest similarity."""
        similarity_N, class_index_N = similarity_NK.max(dim=1)
        return cls(similarity_NK, similarity_N, class_index_N, descriptor_NC)

    def __getitem__(self, row_n: Tensor) -> "Matches":
        """Returns those of some masks."""
        similarity_nK, similarity_n = self.similarity_NK[row_n], self.similarity_N[row_n]
        return Matches(similarity_nK, similarity_n, self.class_index_N[row_n], self.descriptor_NC[row_n])


def match(masks_NGG: Tensor, features_PC: Tensor, prototypes_KC: Tensor) -> Matches:
    """Describes each mask by the mean feature inside it and compares it with the prototypes.

    `masks_NGG`: bool. `features_PC`: the image's patch features. `prototypes_KC`: unit length.
    """
    return compare(describe(masks_NGG, features_PC), prototypes_KC)


def describe(masks_NGG: Tensor, features_PC: Tensor) -> Tensor:
    """Returns each mask's mean feature, unit length, float32 [N, C]; zeros where the mask is empty."""
    weights_NP = pooling_weights(masks_NGG, round(len(features_PC) ** 0.5))
    area_N1 = weights_NP.sum(dim=1, keepdim=True)
    return F.normalize((weights_NP @ features_PC) / area_N1.clamp_min(0.5), dim=1)


def compare(descriptor_NC: Tensor, prototypes_KC: Tensor) -> Matches:
    """Compares described masks with the prototypes, both of unit length."""
    return Matches.of((descriptor_NC @ prototypes_KC.T).clamp_min(0), descriptor_NC)


def match_plainly(masks_NGG: Tensor, features_PC: Tensor, prototypes_KC: Tensor) -> Matches:
    """Returns what `match` returns, computed as published: with features upsampled to the mask grid (path `plain`)."""
    side = round(len(features_PC) ** 0.5)
    features_1Cgg = features_PC.T.reshape(1, -1, side, side)
    upsampled_CGG = F.interpolate(features_1Cgg, size=masks_NGG.shape[-2:], mode="bilinear", align_corners=False)[0]
    pixels_NX = masks_NGG.flatten(1).to(torch.float32)
    sum_NC = pixels_NX @ upsampled_CGG.flatten(1).T
    return compare(F.normalize(sum_NC / pixels_NX.sum(dim=1, keepdim=True).clamp_min(0.5), dim=1), prototypes_KC)


def pooling_weights(masks_NGG: Tensor, grid_size: int) -> Tensor:
    """Float32 [N, P]: how much each patch counts in a mask; a mask's weights sum to its pixel count.

    Averaging features upsampled bilinearly to the mask's grid equals weighting the patches by U^T B U, with B the
    mask and U the upsampling matrix, so that the large upsampled features are never built (section 6.4).
    """
    identity = torch.eye(grid_size, device=masks_NGG.device)
    upsampling_Gg = F.interpolate(identity[None], size=masks_NGG.shape[-1], mode="linear")[0].T
    chunks = [
        (upsampling_Gg.T @ (chunk.to(torch.float32) @ upsampling_Gg)).flatten(1)
        for chunk in masks_NGG.split(_MASKS_PER_CHUNK)
    ]
    return torch.cat(chunks)
