"""Weights fit exactly or are refused by name; nothing random is ever left in a model."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from refseg_core.errors import WeightsError
from refseg_core.models.checkpoints import load_state
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.dinov2 import build as build_encoder
from refseg_core.models.sam2 import SAM2
from refseg_core.models.sam2 import build as build_segmenter
from tests.support.models import TINY_ENCODER, TINY_SEGMENTER, seeded, tiny_encoder, tiny_segmenter

State = dict[str, Tensor]

# Names of SAM 2.0 and 2.1 checkpoints that only videos need.
_VIDEO = (
    "memory_attention.layers.0.self_attn.q_proj.weight",
    "memory_encoder.fuser.layers.0.gamma",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "mask_downsample.weight",
    "obj_ptr_proj.layers.0.weight",
    "obj_ptr_tpos_proj.weight",
)


@pytest.fixture(scope="module")
def _segmenter_state() -> State:
    return dict(tiny_segmenter().state_dict())


@pytest.fixture
def segmenter_state(_segmenter_state: State) -> State:
    return {name: value.clone() for name, value in _segmenter_state.items()}


@pytest.fixture
def encoder_state() -> State:
    return dict(tiny_encoder().state_dict())


@pytest.fixture(autouse=True)
def _random_start() -> Iterator[None]:
    with seeded(123):
        yield


def _segmenter(state: State) -> SAM2:
    return build_segmenter(TINY_SEGMENTER, state, model="tiny-sam")


def _encoder(state: State) -> DINOv2:
    return build_encoder(TINY_ENCODER, state, model="tiny-dino")


def test_every_parameter_is_the_checkpoints(segmenter_state: State, encoder_state: State) -> None:
    for model, state in ((_segmenter(segmenter_state), segmenter_state), (_encoder(encoder_state), encoder_state)):
        own = model.state_dict()
        assert own.keys() == state.keys()
        assert all(torch.equal(own[name], state[name]) for name in own)


def test_missing_unexpected_and_misshapen_parameters_are_reported_together(encoder_state: State) -> None:
    del encoder_state["blocks.1.attn.qkv.bias"]
    encoder_state["head.weight"] = torch.zeros(3)
    encoder_state["pos_embed"] = torch.zeros(1, 50, 32)
    with pytest.raises(WeightsError) as error:
        _encoder(encoder_state)
    message = str(error.value)
    assert "'tiny-dino'" in message
    assert "1 missing: blocks.1.attn.qkv.bias" in message
    assert "1 unexpected: head.weight" in message
    assert "1 of another shape: pos_embed (expected (1, 26, 32), got (1, 50, 32))" in message


def test_long_lists_of_names_are_cut_but_counted(encoder_state: State) -> None:
    with pytest.raises(WeightsError, match=rf"{len(encoder_state) - 1} missing: .* and {len(encoder_state) - 9} more"):
        _encoder({})


def test_a_model_that_does_not_fit_is_left_as_it_was() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    with pytest.raises(WeightsError, match="1 missing: bias"):
        load_state(module, {"weight": torch.zeros(2, 2)}, model="linear")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("name", _VIDEO)
def test_what_only_videos_need_is_tolerated(segmenter_state: State, name: str) -> None:
    _segmenter({**segmenter_state, name: torch.zeros(3)})


@pytest.mark.parametrize(
    "name", ["no_mem_embed_2", "memory", "sam_mask_decoder.extra", "image_encoder.trunk.blocks.9.norm1.weight", "model"]
)
def test_nothing_else_is_tolerated_in_a_segmenter(segmenter_state: State, name: str) -> None:
    with pytest.raises(WeightsError, match=f"1 unexpected: {name}"):
        _segmenter({**segmenter_state, name: torch.zeros(3)})


def test_an_encoder_tolerates_nothing_extra(encoder_state: State) -> None:
    with pytest.raises(WeightsError, match="1 unexpected: register_tokens"):
        _encoder({**encoder_state, "register_tokens": torch.zeros(1, 4, 32)})


def _is_optional(name: str) -> bool:
    return name.startswith(("sam_mask_decoder.pred_obj_score_head.", "sam_prompt_encoder.mask_downscaling."))


def test_only_what_images_never_reach_may_be_missing(segmenter_state: State) -> None:
    needed = {name: value for name, value in segmenter_state.items() if not _is_optional(name)}
    assert 0 < len(needed) < len(segmenter_state)
    _segmenter(needed)
    for name in ("no_mem_embed", "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"):
        with pytest.raises(WeightsError, match=f"1 missing: {name}"):
            _segmenter({other: value for other, value in needed.items() if other != name})
    with pytest.raises(WeightsError, match=f"{len(needed)} missing"):
        _segmenter({})


def test_what_may_be_missing_must_still_have_the_right_shape(encoder_state: State) -> None:
    with pytest.raises(WeightsError, match="mask_token"):
        _encoder({**encoder_state, "mask_token": torch.zeros(7)})


def test_nothing_random_is_left(segmenter_state: State, encoder_state: State) -> None:
    """Whatever the file lacks is zero, so that equal files make equal models."""
    needed = {name: value for name, value in segmenter_state.items() if not _is_optional(name)}
    torch.manual_seed(1)
    first = _segmenter(needed).state_dict()
    torch.manual_seed(2)
    second = _segmenter(needed).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all((first[name] == 0).all() for name in first if _is_optional(name))
    del encoder_state["mask_token"]
    assert (_encoder(encoder_state).mask_token == 0).all()


def test_half_precision_files_become_float32(encoder_state: State) -> None:
    model = _encoder({name: value.half() for name, value in encoder_state.items()})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.cls_token, encoder_state["cls_token"].half().float())


def test_models_come_ready_for_inference(segmenter_state: State, encoder_state: State) -> None:
    for model in (_segmenter(segmenter_state), _encoder(encoder_state)):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_does_not_share_memory_with_the_state(encoder_state: State) -> None:
    model = _encoder(encoder_state)
    before = model.cls_token.clone()
    encoder_state["cls_token"] += 1
    assert torch.equal(model.cls_token, before)
