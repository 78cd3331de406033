"""DINOv2, an encoder: a vision transformer turning an image into one feature per patch.

The project's own implementation, since no usable distribution exists; it carries the official parameter names
and loads the official checkpoints (S, B, L, g, without and with registers) unchanged.

Shapes: B images, E encoder frame side (px), P patches (37 * 37 in the published models), T tokens
(class + registers + P), C channels.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refseg_core.models.architectures import EncoderArchitecture
from refseg_core.models.checkpoints import has_shapes, load_state
from refseg_core.models.preprocessing import normalize

VERSION = 1  # of features

_LAYER_NORM_EPS = 1e-6
_MLP_RATIO = 4


class DINOv2(nn.Module):
    """The vision transformer with the official parameter names. Method, section 3.3."""

    def __init__(self, architecture: EncoderArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        dim, num_patches = architecture.embed_dim, architecture.grid_size**2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        if architecture.num_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, architecture.num_registers, dim))
        self.patch_embed = _PatchEmbedding(architecture)
        self.blocks = nn.ModuleList(_Block(architecture) for _ in range(architecture.depth))
        self.norm = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)

    @property
    def device(self) -> torch.device:
        """The device the parameters lie on."""
        return self.cls_token.device

    def forward(self, images_B3EE: Tensor, *, grid_size: int | None = None) -> Tensor:
        """Encodes images; float32 [B, 3, H, W], RGB in [0, 1], any square size -> float32 [B, P, C].

        The images are resized to the encoder frame (bicubic, a = -0.75, no antialiasing, not clamped: method,
        section 3.1) and normalized here. Features are those after the last LayerNorm, not normalized. `grid_size`:
        patches along one side, where it is not the architecture's; positions are interpolated then.
        """
        grid_size = grid_size or self.architecture.grid_size
        size = grid_size * self.architecture.patch_size
        if images_B3EE.shape[-1] != size or images_B3EE.shape[-2] != size:
            images_B3EE = F.interpolate(images_B3EE, size=(size, size), mode="bicubic", align_corners=False)
        tokens_BTC = self._embed(normalize(images_B3EE), grid_size)
        for block in self.blocks:
            tokens_BTC = block(tokens_BTC)
        return cast(Tensor, self.norm(tokens_BTC)[:, 1 + self.architecture.num_registers :])

    def _embed(self, images_B3EE: Tensor, grid_size: int) -> Tensor:
        patches_BPC = self.patch_embed(images_B3EE)
        class_B1C = self.cls_token.expand(len(patches_BPC), -1, -1)
        tokens = torch.cat((class_B1C, patches_BPC), dim=1) + self._positions(grid_size)
        if not self.architecture.num_registers:
            return tokens
        registers = self.register_tokens.expand(len(patches_BPC), -1, -1)
        return torch.cat((tokens[:, :1], registers, tokens[:, 1:]), dim=1)

    def _positions(self, grid_size: int) -> Tensor:
        side = self.architecture.grid_size
        if grid_size == side:
            return self.pos_embed
        learnt_1Cgg = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        frame = (grid_size, grid_size)
        resized_1Cgg = F.interpolate(learnt_1Cgg, size=frame, mode="bicubic", align_corners=False)
        return torch.cat((self.pos_embed[:, :1], resized_1Cgg.flatten(2).transpose(1, 2)), dim=1)


class _PatchEmbedding(nn.Module):
    def __init__(self, architecture: EncoderArchitecture) -> None:
        super().__init__()
        side = architecture.patch_size
        self.proj = nn.Conv2d(3, architecture.embed_dim, kernel_size=side, stride=side)

    def forward(self, images_B3EE: Tensor) -> Tensor:
        return cast(Tensor, self.proj(images_B3EE)).flatten(2).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, architecture: EncoderArchitecture) -> None:
        super().__init__()
        dim = architecture.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.attn = _SelfAttention(dim, architecture.num_heads)
        self.ls1 = _LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.mlp = _GatedMlp(dim) if architecture.gated_mlp else _Mlp(dim)
        self.ls2 = _LayerScale(dim)

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        tokens_BTC = tokens_BTC + self.ls1(self.attn(self.norm1(tokens_BTC)))
        return cast(Tensor, tokens_BTC + self.ls2(self.mlp(self.norm2(tokens_BTC))))


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        batch, length, dim = tokens_BTC.shape
        qkv = self.qkv(tokens_BTC).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).reshape(batch, length, dim)))


class _LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        return tokens_BTC * self.gamma


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, _MLP_RATIO * dim)
        self.fc2 = nn.Linear(_MLP_RATIO * dim, dim)

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(tokens_BTC))))


class _GatedMlp(nn.Module):
    """SwiGLU, as in ViT-g: two thirds of the usual width, rounded up to a multiple of eight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = (int(_MLP_RATIO * dim * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        gate, value = self.w12(tokens_BTC).chunk(2, dim=-1)
        return cast(Tensor, self.w3(F.silu(gate) * value))


def build(architecture: EncoderArchitecture, state: Mapping[str, Tensor] | None, *, model: str) -> DINOv2:
    """Builds an encoder in evaluation mode from an official checkpoint's state dict.

    Raises WeightsError naming the parameters that are missing, unexpected or of another shape. The mask token
    serves training only and may be missing.
    """
    encoder = DINOv2(architecture)
    if state is not None:
        load_state(encoder, state, model=model, may_be_missing=("mask_token",))
    return encoder.eval().requires_grad_(False)


def fits(architecture: EncoderArchitecture, state: Mapping[str, Tensor]) -> bool:
    """Returns whether width, patch grid, depth and registers of a state dict are the architecture's."""
    dim, last = architecture.embed_dim, architecture.depth - 1
    telltale: dict[str, tuple[int, ...] | None] = {
        "pos_embed": (1, 1 + architecture.grid_size**2, dim),
        "register_tokens": (1, architecture.num_registers, dim) if architecture.num_registers else None,
        f"blocks.{last}.norm1.weight": (dim,),
        f"blocks.{last + 1}.norm1.weight": None,
    }
    return has_shapes(state, telltale)
