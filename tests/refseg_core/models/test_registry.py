"""The registry names every architecture once, with official addresses and plausible pins."""

import re
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from refseg_core.errors import WeightsError
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.registry import BASE_URL, REGISTRY, ModelSpec, model_spec, recognize
from refseg_core.models.sam2 import SAM2

PUBLISHED = [spec for spec in REGISTRY.values() if not spec.is_packaged]
BYTES_PER_PARAMETER = 4


def _name(spec: ModelSpec) -> str:
    return spec.name


def _size_of_parameters(module: nn.Module) -> int:
    return BYTES_PER_PARAMETER * sum(value.numel() for value in module.state_dict().values())


@pytest.mark.slow  # torch imports sympy for tensors without memory
@pytest.mark.parametrize("spec", REGISTRY.values(), ids=_name)
def test_a_module_recognizes_its_own_models(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        state = spec.code.build(spec.architecture, None, model=spec.name).state_dict()
    assert recognize(spec.kind, state) == spec.name.replace("sam2.1", "sam2")


def test_parameters_of_nothing_known_are_no_model() -> None:
    with pytest.raises(WeightsError, match=r"not those of a known encoder: their parameters, a\.weight"):
        recognize("encoder", {"a.weight": torch.zeros(2)})


def test_models_are_listed_under_their_own_name() -> None:
    assert all(name == spec.name for name, spec in REGISTRY.items())


@pytest.mark.parametrize("spec", PUBLISHED, ids=_name)
def test_published_weights_are_pinned_to_one_official_file(spec: ModelSpec) -> None:
    assert spec.url is not None
    assert spec.url.startswith(BASE_URL)
    assert spec.url.endswith(f"/{spec.file_name}")
    assert re.fullmatch(r"[0-9a-f]{64}", spec.sha256 or "")


def test_no_two_models_share_a_file_or_a_checksum() -> None:
    for values in zip(*((spec.url, spec.file_name, spec.sha256) for spec in PUBLISHED), strict=True):
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
    assert model_spec(model).url == BASE_URL + url


def test_the_demo_models_come_with_refseg() -> None:
    packaged = [spec for spec in REGISTRY.values() if spec.is_packaged]
    assert [spec.file_name for spec in packaged] == ["sam2_demo.pt", "dinov2_demo.pt"]


@pytest.mark.slow  # torch imports sympy for tensors without memory
@pytest.mark.parametrize("model", [w.name for w in PUBLISHED if w.kind == "encoder"])
def test_an_encoder_file_has_the_size_of_its_parameters(model: str) -> None:
    """The official files are float32 with a little structure around; so a pin to another file would show."""
    with torch.device("meta"):
        needed = _size_of_parameters(DINOv2(REGISTRY[model].architecture))
    size = model_spec(model).size
    assert size is not None
    assert 0 <= size - needed < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("model", [w.name for w in PUBLISHED if w.kind == "segmenter"])
def test_a_segmenter_file_has_room_for_its_parameters_and_the_video_memory(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sam2 reads numbers from a linspace while building, which a meta tensor does not have.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        needed = _size_of_parameters(SAM2(REGISTRY[model].architecture))
    size = model_spec(model).size
    assert size is not None
    # The video memory is the same in all sizes: 7.5 million parameters.
    assert 30_000_000 < size - needed < 30_500_000


def test_an_unknown_name_is_answered_with_similar_ones() -> None:
    with pytest.raises(WeightsError, match=r"'sam2_hiera_larg'. Did you mean .*sam2_hiera_large"):
        model_spec("sam2_hiera_larg")


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(WeightsError) as raised:
        model_spec("?")
    assert "Did you mean" not in str(raised.value)
    assert all(model in str(raised.value) for model in REGISTRY)
