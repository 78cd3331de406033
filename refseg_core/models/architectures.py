"""The dimensions of SAM2's and DINOv2's models. Each model's own are in its entry of `registry.py`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SegmenterArchitecture:
    """A SAM2 image model: Hiera trunk, FPN neck, prompt encoder and mask decoder.

    `image_size` is the side of the square segmenter frame in pixels; the embedding has a sixteenth of it.
    """

    embed_dim: int
    num_heads: int
    stages: tuple[int, int, int, int]
    global_attention_blocks: tuple[int, ...]
    position_grid: tuple[int, int] = (7, 7)
    window_sizes: tuple[int, int, int, int] = (8, 4, 14, 7)
    width: int = 256
    image_size: int = 1024

    @property
    def stage_widths(self) -> tuple[int, int, int, int]:
        """Channels of the four trunk stages, fine to coarse."""
        first = self.embed_dim
        return first, 2 * first, 4 * first, 8 * first

    @property
    def embedding_size(self) -> int:
        """Side of the stride-16 embedding, in cells."""
        return self.image_size // 16

    @property
    def logits_size(self) -> int:
        """Side of the mask logits, in cells."""
        return self.image_size // 4


@dataclass(frozen=True)
class EncoderArchitecture:
    """A DINOv2 vision transformer.

    `image_size` is the side of the square encoder frame in pixels. The checkpoint's learnt position grid
    has exactly `grid_size` cells a side.
    """

    embed_dim: int
    depth: int
    num_heads: int
    num_registers: int = 0
    gated_mlp: bool = False
    image_size: int = 518
    patch_size: int = 14

    @property
    def grid_size(self) -> int:
        """Patches along one side of the frame."""
        return self.image_size // self.patch_size
