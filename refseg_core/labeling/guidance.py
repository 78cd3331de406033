"""Step 5a: chooses the points that the segmenter is prompted with: those where the image resembles a prototype.

The encoder sees the whole image at once, and tells for a hundredth of the decoder's work where it is worth a prompt.

Shapes: N points of a grid, n some of them, g patch grid side, P = g * g patches, C channels, K categories.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

VERSION = 1  # of which points are chosen


class Guide(NamedTuple):
    """Where an image resembles the prototypes.

    row_n: rows of the grid's points that are worth a prompt, int64 [n], ascending. similarity_K: of each category the
    largest cosine of any patch with its prototype, float32 [K] in [-1, 1]. class_index_k: the categories whose
    similarity exceeds the threshold, int64 [k], ascending; without any there is no point either.
    """

    row_n: Tensor
    similarity_K: Tensor
    class_index_k: Tensor


class Guidance:
    """Compares an image's patches with the prototypes, and chooses points by it."""

    def __init__(self, grid_N2: Tensor, image_size: int, prototypes_KC: Tensor, *, thresh: float | None) -> None:
        """`grid_N2`: points (x, y) in the segmenter frame, pixels. `thresh`: None chooses all points."""
        self._relative_11N2 = (grid_N2 / image_size * 2 - 1)[None, None]  # from -1 to 1 across the image
        self._prototypes_KC = prototypes_KC
        self._thresh = thresh

    def __call__(self, features_PC: Tensor) -> Guide:
        """Chooses the points at which S = max over categories of cos(patch, prototype) exceeds the threshold.

        S is computed for patches and read between them bilinearly, at the borders as in the outermost patch.
        """
        similarity_PK = F.normalize(features_PC, dim=1) @ self._prototypes_KC.T
        similarity_K = similarity_PK.amax(dim=0)
        class_index_k = torch.nonzero(similarity_K > (-torch.inf if self._thresh is None else self._thresh))[:, 0]
        return Guide(self._chosen(similarity_PK.amax(dim=1)), similarity_K, class_index_k)

    def _chosen(self, similarity_P: Tensor) -> Tensor:
        if self._thresh is None:
            return torch.arange(self._relative_11N2.shape[2], device=similarity_P.device)
        side = round(len(similarity_P) ** 0.5)
        similarity_N = F.grid_sample(
            similarity_P.view(1, 1, side, side), self._relative_11N2, padding_mode="border", align_corners=False
        ).flatten()
        return torch.nonzero(similarity_N > self._thresh)[:, 0]
