"""Builds each model once per process, on the device it shall run on, and what labels with them."""

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Generic, TypeVar

import torch

from refseg_core.architectures import ENCODER_ARCHITECTURES, SEGMENTER_ARCHITECTURES
from refseg_core.encoder import Encoder, build_encoder
from refseg_core.errors import ConfigurationError
from refseg_core.labeling import Labeler
from refseg_core.segmenter import Segmenter, build_segmenter
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.tables import Prototypes
from tasks.artifacts import Artifact, Store
from tasks.sources import ModelSettings
from tasks.weights import load_weights

Model = TypeVar("Model")
_building = Lock()


@dataclass(frozen=True)
class LoadedModel(Generic[Model]):
    """A model in memory and the sha256 of the file its weights came from."""

    model: Model
    sha256: str


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


def load_segmenter(settings: ModelSettings, device: str) -> LoadedModel[Segmenter]:
    """The segmenter, built at the first call with these settings. Raises WeightsError."""
    with _building:
        return _segmenter(settings, device)


def load_encoder(settings: ModelSettings, device: str) -> LoadedModel[Encoder]:
    """The encoder, built at the first call with these settings. Raises WeightsError."""
    with _building:
        return _encoder(settings, device)


def load_labeler(
    store_uri: str,
    prototypes: Artifact,
    *,
    labeling: LabelingSettings,
    batches: BatchSettings,
    segmenter: ModelSettings,
    encoder: ModelSettings,
    device: str,
) -> Labeler:
    """What labels images with these prototypes and settings, built at the first call. Raises WeightsError."""
    models = load_segmenter(segmenter, device).model, load_encoder(encoder, device).model
    with _building:
        return _labeler(store_uri, prototypes.name, models, (labeling, batches))


@lru_cache(maxsize=1)
def _labeler(
    store_uri: str,
    prototypes: str,
    models: tuple[Segmenter, Encoder],
    settings: tuple[LabelingSettings, BatchSettings],
) -> Labeler:
    store, (folder, _, key) = Store(store_uri), prototypes.partition("/")
    return Labeler(*models, store.load(store.artifact(folder, key), Prototypes), *settings)


@lru_cache(maxsize=2)
def _segmenter(settings: ModelSettings, device: str) -> LoadedModel[Segmenter]:
    weights = load_weights(settings.model, settings.weights)
    segmenter = build_segmenter(SEGMENTER_ARCHITECTURES[settings.model], weights.state, model=settings.model)
    return LoadedModel(segmenter.to(pick_device(device)), weights.sha256)


@lru_cache(maxsize=2)
def _encoder(settings: ModelSettings, device: str) -> LoadedModel[Encoder]:
    weights = load_weights(settings.model, settings.weights)
    encoder = build_encoder(ENCODER_ARCHITECTURES[settings.model], weights.state, model=settings.model)
    return LoadedModel(encoder.to(pick_device(device)), weights.sha256)
