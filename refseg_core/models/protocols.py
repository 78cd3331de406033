"""What the steps need of a segmenter and of an encoder, whatever they are made of.

Shapes: B images, E and S side of a model's square input (px), P patches of a square grid, C channels, N prompts, K
points of one prompt, G side of mask logits, h side of previews.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

Prepared = TypeVar("Prepared")


class EncoderSizes(Protocol):
    """The sizes of an encoder."""

    @property
    def embed_dim(self) -> int:
        """Channels of a feature."""

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""

    @property
    def grid_size(self) -> int:
        """Patches along one side."""


class SegmenterSizes(Protocol):
    """The sizes of a segmenter."""

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""

    @property
    def embedding_size(self) -> int:
        """Side of the embedding, in cells."""

    @property
    def logits_size(self) -> int:
        """Side of mask logits, in cells."""


class _Model(Protocol):
    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters, whose memory counts."""

    def to(self, device: torch.device, /) -> Self:
        """Moves the parameters and returns the model."""


class Encoder(_Model, Protocol):
    """Turns an image into one feature per patch."""

    @property
    def architecture(self) -> EncoderSizes:
        """The sizes of what it takes and gives."""

    def __call__(self, images_B3EE: Tensor, /, *, grid_size: int | None = None) -> Tensor:
        """Returns features float32 [B, P, C], row by row, of RGB images in [0, 1] of any square size.

        `grid_size`: patches along one side; None: those of the architecture. Fewer see less and cost less.
        """


@dataclass(frozen=True)
class ImageEmbedding:
    """What the decoder needs of B images: feature maps at three strides."""

    stride16_BWhw: Tensor
    stride8_Bchw: Tensor
    stride4_Bchw: Tensor

    def __getitem__(self, index: int) -> "ImageEmbedding":
        """The embedding of one image, still batched (B = 1)."""
        here = slice(index, index + 1)
        return ImageEmbedding(self.stride16_BWhw[here], self.stride8_Bchw[here], self.stride4_Bchw[here])

    def float(self) -> "ImageEmbedding":
        """The embedding in float32, whatever it was computed in."""
        return ImageEmbedding(self.stride16_BWhw.float(), self.stride8_Bchw.float(), self.stride4_Bchw.float())


class DecodesPoints(Protocol[Prepared]):
    """Turns each point, a prompt of its own, into its best mask."""

    def prompts(self, points_N2: Tensor, /) -> Tensor:
        """Computes once what points (x, y) in the segmenter frame, a row each, share on all images."""

    def prepare(self, embedding: ImageEmbedding, /) -> Prepared:
        """Computes once what all prompts on an image share."""

    def decode_points(
        self, prepared: Prepared, prompts: Tensor, /, *, pred_iou_thresh: float | None
    ) -> tuple[Tensor, Tensor]:
        """Returns logits [n, G, G] and predicted IoU [n] of the prompts above the threshold, in order; None: of all."""


class PreviewsPoints(DecodesPoints[Prepared], Protocol[Prepared]):
    """Also computes small previews of the masks, for a fraction of the work."""

    def preview_points(self, prepared: Prepared, prompts: Tensor, /) -> tuple[Tensor, Tensor]:
        """Returns logits [N, h, h] and predicted IoU [N] of all prompts."""


class DecodesQuickly(PreviewsPoints[Prepared], Protocol[Prepared]):
    """Decodes whatever labeling prompts with."""

    def decode_all_masks(
        self, prepared: Prepared, prompts: Tensor, /, *, pred_iou_thresh: float
    ) -> tuple[Tensor, Tensor]:
        """Returns logits [n, G, G] and predicted IoU [n] of all masks of the prompts above the threshold, in order."""

    def decode_boxes(self, embedding: ImageEmbedding, boxes_N4: Tensor, /) -> tuple[Tensor, Tensor]:
        """Returns logits [N, G, G] and predicted IoU [N] of boxes xyxy in the segmenter frame."""


class Segmenter(_Model, DecodesPoints[ImageEmbedding], Protocol):
    """Embeds an image and turns prompts on it into masks."""

    @property
    def architecture(self) -> SegmenterSizes:
        """The sizes of what it takes and gives."""

    def embed(self, images_B3SS: Tensor, /) -> ImageEmbedding:
        """Embeds RGB images in [0, 1] in the segmenter frame."""

    def decode_boxes(self, embedding: ImageEmbedding, boxes_N4: Tensor, /) -> tuple[Tensor, Tensor]:
        """Returns logits [N, G, G] and predicted IoU [N] of boxes xyxy in the segmenter frame."""

    def decode_clicks(self, embedding: ImageEmbedding, points_K2: Tensor, /) -> tuple[Tensor, Tensor]:
        """Returns logits [G, G] and predicted IoU of the one instance that all points (x, y) lie on."""

    def point_decoder(self, *, is_compiled: bool = False) -> DecodesQuickly[Any]:
        """Returns a quicker decoder of the same masks; `is_compiled`: its previews, for this machine."""
