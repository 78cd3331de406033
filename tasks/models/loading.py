"""Builds each model once per process, on the configured device."""

from collections.abc import Mapping
from functools import lru_cache
from threading import Lock

import torch

from refseg_core.errors import ConfigurationError, WeightsError
from refseg_core.labeling.batching import Batches
from refseg_core.models.architectures import ENCODER_ARCHITECTURES, SEGMENTER_ARCHITECTURES
from refseg_core.models.encoder import Encoder, build_encoder
from refseg_core.models.segmenter import Segmenter, build_segmenter
from refseg_core.settings import BatchSettings, LabelingSettings
from tasks.models.weights import load_weights, weights_sha256
from tasks.specs import Models, ModelSettings

_building = Lock()


def pick_device(wanted: str) -> torch.device:
    """'auto' takes a GPU where there is one. Raises ConfigurationError for a device this machine lacks."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"device: {wanted!r} cannot be used here ({str(error).splitlines()[0]}). Use 'auto', 'cpu' or 'cuda:0'."
        ) from error


@lru_cache(maxsize=1)  # a benchmark checks many runs of the same models
def check_memory(models: Models, labeling: LabelingSettings, batches: BatchSettings) -> None:
    """Raises ConfigurationError where a limit of memory cannot be kept with these models. Reads no weights."""
    if batches.max_memory is None:
        return
    architecture = SEGMENTER_ARCHITECTURES[models.segmenter.model]
    empty = (Segmenter(architecture), Encoder(ENCODER_ARCHITECTURES[models.encoder.model]))
    Batches.fit(batches, architecture, pick_device(models.device), empty, labeling.points_per_side**2)


def num_gpus() -> int:
    """How many GPUs this process sees."""
    return torch.cuda.device_count()


def load_segmenter(settings: ModelSettings, device: str) -> Segmenter:
    """The segmenter, built at the first call with these settings. Raises WeightsError."""
    with _building:
        return _segmenter(settings, device)


def load_encoder(settings: ModelSettings, device: str) -> Encoder:
    """The encoder, built at the first call with these settings. Raises WeightsError."""
    with _building:
        return _encoder(settings, device)


def load_models(models: Models) -> None:
    """Builds both models, for whoever wants to know early whether that can be done. Raises WeightsError."""
    load_segmenter(models.segmenter, models.device)
    load_encoder(models.encoder, models.device)


@lru_cache(maxsize=2)
def _segmenter(settings: ModelSettings, device: str) -> Segmenter:
    segmenter = build_segmenter(SEGMENTER_ARCHITECTURES[settings.model], _state(settings), model=settings.model)
    return segmenter.to(pick_device(device))


@lru_cache(maxsize=2)
def _encoder(settings: ModelSettings, device: str) -> Encoder:
    encoder = build_encoder(ENCODER_ARCHITECTURES[settings.model], _state(settings), model=settings.model)
    return encoder.to(pick_device(device))


def _state(settings: ModelSettings) -> Mapping[str, torch.Tensor]:
    weights = load_weights(settings.model, settings.weights)
    if weights.sha256 != weights_sha256(settings.model, settings.weights):
        raise WeightsError(f"{weights.source} was changed since this run looked at it. Start again.")
    return weights.state
