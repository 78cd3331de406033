"""The encoder against a plain restatement of DINOv2: softmax written out, one head at a time."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.models.architectures import EncoderArchitecture
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.registry import REGISTRY
from tests.support.closeness import assert_close
from tests.support.models import TINY_ENCODER, random_tensor, tiny_encoder

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

VARIANTS = {
    "plain": TINY_ENCODER,
    "registers": dataclasses.replace(TINY_ENCODER, num_registers=4),
    "gated": dataclasses.replace(TINY_ENCODER, gated_mlp=True),
    "both": dataclasses.replace(TINY_ENCODER, num_registers=2, gated_mlp=True, num_heads=4),
}


def _normalized(tokens: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    centered = tokens - tokens.mean(dim=-1, keepdim=True)
    deviation = (centered.pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return centered / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(tokens: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return tokens @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _attention(tokens: Tensor, state: dict[str, Tensor], name: str, num_heads: int) -> Tensor:
    dim = tokens.shape[-1]
    width = dim // num_heads
    qkv = _linear(tokens, state, f"{name}.qkv")
    heads = []
    for head in range(num_heads):
        query, key, value = (qkv[:, part * dim + head * width :][:, :width] for part in range(3))
        logits = query @ key.T / width**0.5
        weights = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        heads.append(weights @ value)
    return _linear(torch.cat(heads, dim=1), state, f"{name}.proj")


def _mlp(tokens: Tensor, state: dict[str, Tensor], name: str, *, gated: bool) -> Tensor:
    if not gated:
        return _linear(F.gelu(_linear(tokens, state, f"{name}.fc1")), state, f"{name}.fc2")
    both = _linear(tokens, state, f"{name}.w12")
    gate, value = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
    return _linear(gate * torch.sigmoid(gate) * value, state, f"{name}.w3")


def _restated(encoder: DINOv2, image_3EE: Tensor) -> Tensor:
    """float64 [P, C]; one image, already in the encoder frame."""
    architecture = encoder.architecture
    state = {name: value.double() for name, value in encoder.state_dict().items()}
    side = architecture.patch_size
    pixels = ((image_3EE - _MEAN) / _STD).double()
    kernel = state["patch_embed.proj.weight"].flatten(1)
    patches = [
        kernel @ pixels[:, y : y + side, x : x + side].flatten() + state["patch_embed.proj.bias"]
        for y in range(0, architecture.image_size, side)
        for x in range(0, architecture.image_size, side)
    ]
    positioned = torch.cat((state["cls_token"][0], torch.stack(patches))) + state["pos_embed"][0]
    registers = state["register_tokens"][0] if architecture.num_registers else positioned[:0]
    tokens = torch.cat((positioned[:1], registers, positioned[1:]))
    for block in (f"blocks.{index}" for index in range(architecture.depth)):
        attended = _attention(
            _normalized(tokens, state, f"{block}.norm1"), state, f"{block}.attn", architecture.num_heads
        )
        tokens = tokens + state[f"{block}.ls1.gamma"] * attended
        mixed = _mlp(_normalized(tokens, state, f"{block}.norm2"), state, f"{block}.mlp", gated=architecture.gated_mlp)
        tokens = tokens + state[f"{block}.ls2.gamma"] * mixed
    return _normalized(tokens, state, "norm")[1 + architecture.num_registers :]


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_equal_a_plain_restatement(variant: str) -> None:
    encoder = tiny_encoder(VARIANTS[variant])
    with torch.no_grad():  # at 1 they could be left out unnoticed
        for index, (name, parameter) in enumerate(encoder.named_parameters()):
            if parameter.dim() == 1:
                parameter.add_(random_tensor(*parameter.shape, seed=index) - 0.5)
            assert parameter.any(), name
    image = random_tensor(3, 70, 70)
    features = encoder(image[None])[0]
    assert features.shape == (25, 32)
    assert features.dtype == torch.float32
    assert_close(features.double(), _restated(encoder, image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_registers_are_dropped_and_patches_stay_in_their_place(variant: str) -> None:
    """With nothing mixed between tokens, changing one patch of the image changes that feature alone."""
    encoder = tiny_encoder(VARIANTS[variant])
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("ls1.gamma"):
                parameter.zero_()
    image = random_tensor(1, 3, 70, 70)
    changed = image.clone()
    changed[:, :, 14:28, 42:56] += 0.5  # second row of patches, fourth column
    moved = (encoder(image) - encoder(changed)).abs().amax(dim=-1)[0].view(5, 5) > 1e-4
    assert moved.nonzero().tolist() == [[1, 3]]


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    encoder, images = tiny_encoder(), random_tensor(3, 3, 70, 70)
    alone = torch.cat([encoder(image[None]) for image in images])
    assert_close(encoder(images), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [14, 64, 71, 256])
def test_other_sizes_are_resized_without_antialiasing_or_clamping(side: int) -> None:
    encoder = tiny_encoder()
    image = (random_tensor(1, 3, side, side) > 0.5).float()  # hard edges, which bicubic overshoots
    resized = F.interpolate(image, size=(70, 70), mode="bicubic", align_corners=False)
    assert resized.min() < 0
    assert torch.equal(encoder(image), encoder(resized))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_architectures_own_grid_changes_nothing(variant: str) -> None:
    encoder, images = tiny_encoder(VARIANTS[variant]), random_tensor(2, 3, 61, 61)
    assert torch.equal(encoder(images, grid_size=5), encoder(images))


def _cubic(distance: float) -> float:
    """The weight of a sample at this distance, for a = -0.75."""
    far = abs(distance)
    if far <= 1:
        return 1.25 * far**3 - 2.25 * far**2 + 1
    return -0.75 * (far**3 - 5 * far**2 + 8 * far - 4) if far < 2 else 0.0


def _resampling(size: int, grid_size: int) -> Tensor:
    """Bicubic weights of `size` learnt places for each of `grid_size`, beyond the border those of the border."""
    weights = torch.zeros(grid_size, size, dtype=torch.float64)
    for place in range(grid_size):
        center = (place + 0.5) * size / grid_size - 0.5
        for sample in range(math.floor(center) - 1, math.floor(center) + 3):
            weights[place, min(max(sample, 0), size - 1)] += _cubic(center - sample)
    return weights


@pytest.mark.parametrize("grid_size", [1, 3, 4, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_another_grid_has_the_features_of_an_encoder_that_learnt_its_positions(variant: str, grid_size: int) -> None:
    encoder = tiny_encoder(VARIANTS[variant])
    other = DINOv2(dataclasses.replace(VARIANTS[variant], image_size=14 * grid_size))
    along = _resampling(5, grid_size)
    learnt = encoder.pos_embed[0, 1:].double().view(5, 5, -1)
    between = torch.einsum("yr,xs,rsc->yxc", along, along, learnt).flatten(0, 1)
    positions = torch.cat((encoder.pos_embed[0, :1], between.float()))[None]
    other.load_state_dict(encoder.state_dict() | {"pos_embed": positions})
    images = random_tensor(2, 3, 90, 90)
    features = encoder(images, grid_size=grid_size)
    assert features.shape == (2, grid_size**2, 32)
    assert_close(features, other.eval()(images), atol=1e-5, rtol=0)


def _num_parameters(architecture: EncoderArchitecture) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DINOv2(architecture).parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "num_parameters"),
    # The official checkpoints' own counts.
    [
        ("dinov2_vits14", 22_056_576),
        ("dinov2_vitb14", 86_580_480),
        ("dinov2_vitl14", 304_368_640),
        ("dinov2_vitg14", 1_136_480_768),
        ("dinov2_vits14_reg", 22_058_112),
        ("dinov2_vitb14_reg", 86_583_552),
        ("dinov2_vitl14_reg", 304_372_736),
        ("dinov2_vitg14_reg", 1_136_486_912),
    ],
)
def test_official_models_have_their_official_size(model: str, num_parameters: int) -> None:
    assert _num_parameters(REGISTRY[model].architecture) == num_parameters
    assert REGISTRY[model].architecture.grid_size == 37
