"""The training of the embedded demo's toy models: it learns, it is repeatable, and what it left fits the project."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import refseg_core.demo
from refseg_core.models.architectures import (
    EncoderArchitecture,
    SegmenterArchitecture,
)
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.dinov2 import build as build_encoder
from refseg_core.models.registry import REGISTRY
from refseg_core.models.sam2 import SAM2
from refseg_core.models.sam2 import build as build_segmenter
from tests.demo_scenes.dataset import VALIDATION_CATEGORIES, draw_targets
from tests.demo_training import (
    EncoderTraining,
    OptimizerSettings,
    SegmenterTraining,
    encoder_losses,
    pointing_losses,
    segmenter_losses,
    train_encoder,
    train_segmenter,
)
from tests.demo_training.__main__ import ENCODER_TRAINING, SEGMENTER_ROUNDS, save_weights

WEIGHTS = Path(refseg_core.demo.__file__).parent / "weights"
SMALL_SEGMENTER = SegmenterArchitecture(8, 1, (1, 1, 2, 1), (3,), window_sizes=(8, 4, 8, 4), width=32, image_size=256)
SMALL_ENCODER = EncoderArchitecture(32, 1, 2, image_size=96, patch_size=8)
QUICK = OptimizerSettings(num_steps=10, learning_rate=3e-3, warmup_steps=2, averaging=0.0)
FEW_PROMPTS = SegmenterTraining(QUICK, num_scenes=1, object_points=3, background_points=2, boxes=2, pointing_steps=0)
FEW_SCENES = EncoderTraining(replace(QUICK, num_steps=20, learning_rate=5e-4), num_scenes=3, num_categories=4)


class _Log:
    """A report that remembers the steps and refuses losses that are no numbers."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def __call__(self, step: int, losses: Mapping[str, float], model: nn.Module) -> None:
        assert all(np.isfinite(value) for value in losses.values())
        self.steps.append(step)


def _total(losses: Mapping[str, Tensor]) -> float:
    return float(torch.stack(list(losses.values())).sum())


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "architecture", "settings", "num_images"),
    [
        ((train_segmenter, build_segmenter, segmenter_losses), SMALL_SEGMENTER, FEW_PROMPTS, 1),
        ((train_encoder, build_encoder, encoder_losses), SMALL_ENCODER, FEW_SCENES, 3),
    ],
    ids=["segmenter", "encoder"],
)
def test_a_few_steps_teach_a_model_something(model: Any, architecture: Any, settings: Any, num_images: int) -> None:
    log, scenes = _Log(), draw_targets(VALIDATION_CATEGORIES, num_images, np.random.default_rng(0))
    train, build, losses = model

    def loss(steps: OptimizerSettings) -> float:
        trained = build(architecture, train(architecture, replace(settings, optimizer=steps), log), model="small")
        return _total(losses(trained, scenes, settings, np.random.default_rng(1)))

    few = settings.optimizer
    assert loss(few) < loss(replace(few, num_steps=1))
    assert log.steps == [*range(few.num_steps), 0]


@pytest.mark.slow  # the first optimizer brings torch's whole compiler
def test_equal_seeds_give_equal_models_and_leave_the_global_generator_alone() -> None:
    settings = EncoderTraining(OptimizerSettings(num_steps=2, seed=3), num_scenes=2, num_categories=3)
    torch.manual_seed(0)
    first = train_encoder(SMALL_ENCODER, settings)
    drawn = torch.rand(1)
    second = train_encoder(SMALL_ENCODER, settings)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert _equal(first, second)


@pytest.mark.slow
def test_trained_states_build_models(tmp_path: Path) -> None:
    one_step = OptimizerSettings(num_steps=1)
    segmenter = train_segmenter(
        SMALL_SEGMENTER, SegmenterTraining(one_step, num_scenes=1, object_points=2, background_points=1, boxes=1)
    )
    encoder = train_encoder(SMALL_ENCODER, EncoderTraining(one_step, num_scenes=2, num_categories=2))
    save_weights(segmenter, tmp_path / "segmenter.pt")
    save_weights(encoder, tmp_path / "encoder.pt")
    build_segmenter(SMALL_SEGMENTER, torch.load(tmp_path / "segmenter.pt", weights_only=True), model="small")
    build_encoder(SMALL_ENCODER, torch.load(tmp_path / "encoder.pt", weights_only=True), model="small")


def test_every_parameter_that_images_reach_gets_a_gradient() -> None:
    generator = np.random.default_rng(0)
    scenes = draw_targets(VALIDATION_CATEGORIES, 3, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        segmenter, encoder = SAM2(SMALL_SEGMENTER), DINOv2(SMALL_ENCODER)
    torch.stack(list(segmenter_losses(segmenter, scenes, FEW_PROMPTS, generator).values())).sum().backward()
    torch.stack(list(encoder_losses(encoder, scenes, FEW_SCENES, generator).values())).sum().backward()
    untouched = {name for name, p in segmenter.named_parameters() if p.grad is None}
    assert all("mask_downscaling" in name or "pred_obj_score_head" in name for name in untouched)
    assert {name for name, p in encoder.named_parameters() if p.grad is None} == {"mask_token"}


def test_pointing_losses_ask_for_the_place_of_the_prompt() -> None:
    generator = np.random.default_rng(0)
    scenes = draw_targets(VALIDATION_CATEGORIES, 1, generator)
    losses = pointing_losses(SAM2(SMALL_SEGMENTER), scenes, FEW_PROMPTS, generator)
    assert losses.keys() == {"point_mask", "box_mask", "grouping"}
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.fixture(scope="module")
def weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    segmenter, encoder = (
        torch.load(WEIGHTS / f"{name}.pt", weights_only=True) for name in ("sam2_demo", "dinov2_demo")
    )
    return segmenter, encoder


def test_the_committed_weights_are_half_precision_and_small(
    weights: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> None:
    assert all(value.dtype == torch.float16 for state in weights for value in state.values())
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.pt")) < 6_000_000


def test_the_committed_weights_load(weights: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    build_segmenter(REGISTRY["sam2_demo"].architecture, weights[0], model="sam2_demo")
    build_encoder(REGISTRY["dinov2_demo"].architecture, weights[1], model="dinov2_demo")


def test_the_committed_weights_were_trained_with_the_settings_in_the_code() -> None:
    record = json.loads((WEIGHTS / "training.json").read_text())
    trained = {what: part["settings"] for what, part in record.items()}
    assert trained == {
        "sam2_demo, round 0": asdict(SEGMENTER_ROUNDS[0]),
        "sam2_demo, round 1": asdict(
            replace(SEGMENTER_ROUNDS[1], optimizer=replace(SEGMENTER_ROUNDS[1].optimizer, seed=1))
        ),
        "dinov2_demo": asdict(ENCODER_TRAINING),
    }
