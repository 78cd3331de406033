"""An encoder that is one file, and one line in the registry: a patch's feature is its mean color, less gray."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refseg_core.models.architectures import EncoderArchitecture

VERSION = 1


class ColorEncoder(nn.Module):
    """Features of three channels."""

    def __init__(self, architecture: EncoderArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.gray = nn.Parameter(torch.full((3,), 0.5), requires_grad=False)

    @property
    def device(self) -> torch.device:
        return self.gray.device

    def forward(self, images_B3EE: Tensor, *, grid_size: int | None = None) -> Tensor:
        means_B3gg = F.adaptive_avg_pool2d(images_B3EE, grid_size or self.architecture.grid_size)
        return means_B3gg.flatten(2).transpose(1, 2) - self.gray


def build(architecture: EncoderArchitecture, state: Mapping[str, Tensor] | None, *, model: str) -> ColorEncoder:
    encoder = ColorEncoder(architecture)
    encoder.load_state_dict(encoder.state_dict() if state is None else dict(state))
    return encoder


def fits(architecture: EncoderArchitecture, state: Mapping[str, Tensor]) -> bool:
    return set(state) == {"gray"}
