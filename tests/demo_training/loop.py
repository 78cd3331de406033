"""Follows a model's losses downhill and averages its parameters; what is learned is not its matter."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.demo_training.settings import OptimizerSettings

Model = TypeVar("Model", bound=nn.Module)
Report = Callable[[int, Mapping[str, float], nn.Module], None]


def train(
    build: Callable[[], Model],
    losses: Callable[[Model, int], dict[str, Tensor]],
    settings: OptimizerSettings,
    report: Report | None,
) -> dict[str, Tensor]:
    """Builds a model and trains it on the losses of every step; returns the state dict of its running average.

    Everything that torch draws follows the seed, and its global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build()
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
        for step in range(settings.num_steps):
            parts = losses(model, step)
            optimizer.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_norm)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            if report:
                report(step, {name: float(value.detach()) for name, value in parts.items()}, average.module)
    return {name: value.detach().clone() for name, value in average.module.state_dict().items()}


def _rate(step: int, settings: OptimizerSettings) -> float:
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / max(1, settings.num_steps)))
