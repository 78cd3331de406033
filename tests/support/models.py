"""Tiny models with random but fixed parameters: real code paths in milliseconds, with no meaning in the numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from refseg_core.models.architectures import EncoderArchitecture, SegmenterArchitecture
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.registry import REGISTRY
from refseg_core.models.sam2 import SAM2

if TYPE_CHECKING:
    import pytest  # killed processes, of which there are hundreds, start without it

TINY_SEGMENTER = SegmenterArchitecture(8, 1, (1, 1, 2, 1), (3,), window_sizes=(4, 4, 4, 2), width=32, image_size=64)
TINY_ENCODER = EncoderArchitecture(32, 2, 2, image_size=70)
_SPREAD = 0.1  # of the parameters: large enough that prompts give different masks

# The demo's models, tiny: for `REGISTRY.update`, or `make_demo_tiny`.
TINY_DEMO = {
    "sam2_demo": replace(REGISTRY["sam2_demo"], architecture=TINY_SEGMENTER),
    "dinov2_demo": replace(REGISTRY["dinov2_demo"], architecture=TINY_ENCODER),
}

Model = TypeVar("Model", bound=nn.Module)


def make_demo_tiny(patch: "pytest.MonkeyPatch") -> None:
    """Has the demo's models be the tiny ones."""
    for name, spec in TINY_DEMO.items():
        patch.setitem(REGISTRY, name, spec)


def tiny_segmenter(architecture: SegmenterArchitecture = TINY_SEGMENTER, *, seed: int = 0) -> SAM2:
    """A segmenter of a 64 px frame (16 x 16 logits) unless asked otherwise."""
    with seeded(seed):
        return _randomized(SAM2(architecture))


def tiny_encoder(architecture: EncoderArchitecture = TINY_ENCODER, *, seed: int = 0) -> DINOv2:
    """An encoder of a 70 px frame (5 x 5 patches) unless asked otherwise."""
    with seeded(seed):
        return _randomized(DINOv2(architecture))


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global generator, on which modules draw at construction, and puts it back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _randomized(model: Model) -> Model:
    for parameter in model.parameters():
        if parameter.dim() > 1 or not parameter.any():
            nn.init.normal_(parameter, std=_SPREAD)
    return model.eval().requires_grad_(False)
