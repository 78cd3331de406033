"""Builds each model once per process, on the configured device."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from threading import Lock
from typing import Any, cast

import torch

from refseg_core.errors import WeightsError
from refseg_core.labeling.batching import Batches
from refseg_core.models.acceleration import pick_device
from refseg_core.models.protocols import Encoder, Segmenter
from refseg_core.models.registry import build_encoder, build_segmenter, model_spec
from refseg_core.settings import BatchSettings, LabelingSettings
from tasks.models.weights import load_weights, weights_sha256
from tasks.specs import Models, ModelSettings

_building = Lock()


@lru_cache(maxsize=1)  # a benchmark checks many runs of the same models
def check_memory(models: Models, labeling: LabelingSettings, batches: BatchSettings) -> None:
    """Raises ConfigurationError where a limit of memory cannot be kept with these models. Reads no weights."""
    if batches.max_memory is None:
        return
    empty = build_segmenter(models.segmenter.model, None), build_encoder(models.encoder.model, None)
    Batches.fit(batches, labeling, pick_device(models.device), *empty)


def num_gpus() -> int:
    """Returns the number of GPUs that this process sees."""
    return torch.cuda.device_count()


def load_segmenter(settings: ModelSettings, device: str) -> Segmenter:
    """Returns the segmenter, built at the first call with these settings. Raises WeightsError."""
    with _building:
        return _segmenter(settings, device)


def load_encoder(settings: ModelSettings, device: str) -> Encoder:
    """Returns the encoder, built at the first call with these settings. Raises WeightsError."""
    with _building:
        return _encoder(settings, device)


def models_when_needed(models: Models) -> tuple[Segmenter, Encoder]:
    """Returns both models, each of which is built when more than its sizes and its place are needed."""
    device = pick_device(models.device)
    segmenter = _Later(models.segmenter, device, lambda: load_segmenter(models.segmenter, models.device))
    encoder = _Later(models.encoder, device, lambda: load_encoder(models.encoder, models.device))
    return cast(Segmenter, segmenter), cast(Encoder, encoder)


class _Later:
    """A model that is built at its first use."""

    def __init__(self, settings: ModelSettings, device: torch.device, load: Callable[[], Any]) -> None:
        self.architecture, self.device, self._load = model_spec(settings.model).architecture, device, load

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)


def load_models(models: Models) -> None:
    """Builds both models early, to find out whether that works. Raises WeightsError."""
    load_segmenter(models.segmenter, models.device)
    load_encoder(models.encoder, models.device)


@lru_cache(maxsize=2)
def _segmenter(settings: ModelSettings, device: str) -> Segmenter:
    return build_segmenter(settings.model, _state(settings)).to(pick_device(device))


@lru_cache(maxsize=2)
def _encoder(settings: ModelSettings, device: str) -> Encoder:
    return build_encoder(settings.model, _state(settings)).to(pick_device(device))


def _state(settings: ModelSettings) -> Mapping[str, torch.Tensor]:
    weights = load_weights(settings.model, settings.weights)
    if weights.sha256 != weights_sha256(settings.model, settings.weights):
        raise WeightsError(f"{weights.source} was changed since this run looked at it. Start again.")
    return weights.state
