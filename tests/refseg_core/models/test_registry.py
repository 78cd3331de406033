"""The registry names every architecture once, with official addresses and plausible pins."""

import re
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from refseg_core.errors import WeightsError
from refseg_core.models.architectures import ENCODER_ARCHITECTURES, SEGMENTER_ARCHITECTURES
from refseg_core.models.encoder import Encoder
from refseg_core.models.registry import BASE_URL, REGISTRY, PublishedWeights, published_weights
from refseg_core.models.segmenter import Segmenter

PUBLISHED = [weights for weights in REGISTRY.values() if not weights.is_packaged]
BYTES_PER_PARAMETER = 4


def _name(weights: PublishedWeights) -> str:
    return weights.model


def _size_of_parameters(module: nn.Module) -> int:
    return BYTES_PER_PARAMETER * sum(value.numel() for value in module.state_dict().values())


def test_every_architecture_has_weights_of_its_kind() -> None:
    kinds = {weights.model: weights.kind for weights in REGISTRY.values()}
    assert kinds == dict.fromkeys(SEGMENTER_ARCHITECTURES, "segmenter") | dict.fromkeys(
        ENCODER_ARCHITECTURES, "encoder"
    )


def test_models_are_listed_under_their_own_name() -> None:
    assert all(name == weights.model for name, weights in REGISTRY.items())


@pytest.mark.parametrize("weights", PUBLISHED, ids=_name)
def test_published_weights_are_pinned_to_one_official_file(weights: PublishedWeights) -> None:
    assert weights.url is not None
    assert weights.url.startswith(BASE_URL)
    assert weights.url.endswith(f"/{weights.file_name}")
    assert re.fullmatch(r"[0-9a-f]{64}", weights.sha256 or "")
    assert weights.license == "Apache-2.0"


def test_no_two_models_share_a_file_or_a_checksum() -> None:
    for values in zip(*((weights.url, weights.file_name, weights.sha256) for weights in PUBLISHED), strict=True):
        assert Counter(values).most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("sam2_hiera_large", "segment_anything_2/072824/sam2_hiera_large.pt"),
        ("sam2.1_hiera_base_plus", "segment_anything_2/092824/sam2.1_hiera_base_plus.pt"),
        ("dinov2_vitl14", "dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"),
        ("dinov2_vitg14_reg", "dinov2/dinov2_vitg14/dinov2_vitg14_reg4_pretrain.pth"),
    ],
)
def test_addresses_are_the_official_ones(model: str, url: str) -> None:
    assert published_weights(model).url == BASE_URL + url


def test_the_demo_models_come_with_refseg() -> None:
    packaged = [weights for weights in REGISTRY.values() if weights.is_packaged]
    assert [weights.file_name for weights in packaged] == ["sam2_demo.pt", "dinov2_demo.pt"]


@pytest.mark.slow  # torch imports sympy for tensors without memory
@pytest.mark.parametrize("model", [w.model for w in PUBLISHED if w.kind == "encoder"])
def test_an_encoder_file_has_the_size_of_its_parameters(model: str) -> None:
    """The official files are float32 with a little structure around; so a pin to another file would show."""
    with torch.device("meta"):
        needed = _size_of_parameters(Encoder(ENCODER_ARCHITECTURES[model]))
    size = published_weights(model).size
    assert size is not None
    assert 0 <= size - needed < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("model", [w.model for w in PUBLISHED if w.kind == "segmenter"])
def test_a_segmenter_file_has_room_for_its_parameters_and_the_video_memory(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sam2 reads numbers from a linspace while building, which a meta tensor does not have.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        needed = _size_of_parameters(Segmenter(SEGMENTER_ARCHITECTURES[model]))
    size = published_weights(model).size
    assert size is not None
    # The video memory is the same in all sizes: 7.5 million parameters.
    assert 30_000_000 < size - needed < 30_500_000


def test_an_unknown_name_is_answered_with_similar_ones() -> None:
    with pytest.raises(WeightsError, match=r"'sam2_hiera_larg'. Did you mean .*sam2_hiera_large"):
        published_weights("sam2_hiera_larg")


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(WeightsError) as raised:
        published_weights("?")
    assert "Did you mean" not in str(raised.value)
    assert all(model in str(raised.value) for model in REGISTRY)
