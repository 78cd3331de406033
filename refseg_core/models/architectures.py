"""The dimensions of every model refseg knows, by name.

Only dimensions: parameters come from checkpoints, and where those lie is the registry's matter
(`refseg_core/models/registry.py`).
"""

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
    has exactly `grid_size` cells a side: refseg never interpolates it.
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


_HIERA_SIZES = {
    "tiny": SegmenterArchitecture(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": SegmenterArchitecture(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base_plus": SegmenterArchitecture(112, 2, (2, 3, 16, 3), (12, 16, 20), position_grid=(14, 14)),
    "large": SegmenterArchitecture(144, 2, (2, 6, 36, 4), (23, 33, 43), window_sizes=(8, 4, 16, 8)),
}

_VIT_SIZES = {
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "g": (1536, 40, 24),
}


def _vit(size: str, num_registers: int) -> EncoderArchitecture:
    embed_dim, depth, num_heads = _VIT_SIZES[size]
    return EncoderArchitecture(embed_dim, depth, num_heads, num_registers, gated_mlp=size == "g")


SEGMENTER_ARCHITECTURES: dict[str, SegmenterArchitecture] = {
    **{f"sam2_hiera_{size}": architecture for size, architecture in _HIERA_SIZES.items()},
    **{f"sam2.1_hiera_{size}": architecture for size, architecture in _HIERA_SIZES.items()},
    "sam2_demo": SegmenterArchitecture(24, 1, (1, 2, 4, 1), (5,), window_sizes=(8, 4, 8, 4), width=112, image_size=256),
}

ENCODER_ARCHITECTURES: dict[str, EncoderArchitecture] = {
    **{f"dinov2_vit{size}14": _vit(size, num_registers=0) for size in _VIT_SIZES},
    **{f"dinov2_vit{size}14_reg": _vit(size, num_registers=4) for size in _VIT_SIZES},
    "dinov2_demo": EncoderArchitecture(96, 4, 3, image_size=192, patch_size=8),
}
