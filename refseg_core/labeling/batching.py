"""Batch sizes that keep within a memory limit, and that are halved where memory runs out nevertheless.

Bytes are of float32 and were measured with SAM2 tiny and large at 1024 pixels (`refseg bench` shows the peak).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError, counted
from refseg_core.models.protocols import Encoder, Segmenter
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.settings.labeling_methods import SMALL_GRID

UPSAMPLED_AT_ONCE = 64_000_000  # pixels

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_ON_A_CPU, _ON_A_GPU = 1, 8  # images in a batch: a CPU is busy with one
_CROPS = {"cpu": 8, "cuda": 64}  # in a batch: one has a fifth of the patches of an image
_RUNTIME = {"cpu": 1_150_000_000, "cuda": 600_000_000}  # of Python, Prefect, libraries and torch itself
_PER_FRAME_PIXEL = 500  # of an image in the segmenter's trunk, its widest place
_ROWS_OF_A_PROMPT = 900  # numbers for each cell of the embedding while a prompt is decoded on a GPU
_PER_LOGIT = 2 * 4 + 1  # two copies where batches of them are joined, and the mask
_PER_LOGITS_OF_ALL_MASKS = 3 * (2 * 2 + 1)  # of the three of a point, in half precision
_ROWS_OF_A_CROP = 18  # numbers for each channel of a patch in the encoder's blocks
_PER_UPSAMPLED_PIXEL = 10
_LEAST_UPSAMPLED = 4_000_000  # pixels


class BatchSize:
    """A batch size, which is halved whenever memory runs out."""

    def __init__(self, now: int) -> None:
        self.now = now
        self._has_warned = False

    def halve(self, error: BaseException) -> None:
        """Halves the size after memory ran out. Raises the error where a single item is too much."""
        if self.now == 1:
            raise error
        self.now //= 2
        if not self._has_warned:
            log.warning("Memory ran out: batches are halved until they fit. Setting batches.max_memory avoids this.")
        self._has_warned = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_batches(items_N: Tensor, size: BatchSize, work: Callable[[Tensor], Result]) -> list[Result]:
    """Returns the results of `work` for each batch, in order; with no items, for one empty batch."""
    results: list[Result] = []
    start = 0
    while start < len(items_N) or not results:
        batch = items_N[start : start + size.now]
        try:
            results.append(work(batch))
            start += len(batch) or 1
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size.halve(error)
    return results


def filled(items_N: Tensor, number: int) -> Tensor:
    """Returns items, at least one, the last of them repeated until there are so many.

    What a model makes of an item depends on how many go through it together, in the last bits of its numbers.
    """
    return torch.cat((items_N, items_N[-1:].expand(number - len(items_N), *items_N.shape[1:])))


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that memory ran out; on a CPU only torch's message says so."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


@dataclass(frozen=True)
class Batches:
    """Batch sizes: images in both encoders, points in the decoder, crops of a second look in the encoder, pixels of
    masks in the original frame."""

    images: BatchSize
    points: BatchSize
    crops: BatchSize
    pixels: int = UPSAMPLED_AT_ONCE

    @classmethod
    def fit(
        cls,
        settings: BatchSettings,
        labeling: LabelingSettings,
        device: torch.device,
        segmenter: Segmenter,
        encoder: Encoder,
    ) -> "Batches":
        """Returns the configured sizes, smaller ones for a memory limit. Raises ConfigurationError where none fit.

        `device`: where the models are going to be.
        """
        images = settings.images_per_batch or (_ON_A_CPU if device.type == "cpu" else _ON_A_GPU)
        points, crops, pixels = settings.points_per_batch, _CROPS[device.type], UPSAMPLED_AT_ONCE
        limit = settings.max_memory_bytes
        if limit is None:
            return cls(BatchSize(images), BatchSize(points), BatchSize(crops), pixels)
        sizes, num_points = segmenter.architecture, labeling.points_per_side**2
        fixed = _RUNTIME[device.type] + _bytes_of(segmenter) + _bytes_of(encoder)
        per_image = sizes.image_size**2 * _PER_FRAME_PIXEL
        per_logit = _PER_LOGITS_OF_ALL_MASKS if labeling.parts.all_masks else _PER_LOGIT
        logits = num_points * sizes.logits_size**2 * per_logit
        per_point = sizes.embedding_size**2 * 4 * _ROWS_OF_A_PROMPT if device.type != "cpu" else 0
        per_crop = SMALL_GRID**2 * encoder.architecture.embed_dim * 4 * _ROWS_OF_A_CROP
        least_after = max(per_point, per_crop, _LEAST_UPSAMPLED * _PER_UPSAMPLED_PIXEL)
        least = fixed + max(per_image, logits + least_after)
        if limit < least:
            raise ConfigurationError(
                f"batches.max_memory: {settings.max_memory} is too little for these models and "
                f"{counted(num_points, 'point')} on {device.type}: {math.ceil(least / 1e8) / 10:.1f} GB are needed. "
                "Raise it, or set fewer points or smaller models."
            )
        left, left_after = limit - fixed, limit - fixed - logits
        images = max(1, min(images, left // per_image))
        points = max(1, min(points, left_after // per_point)) if per_point else points
        crops = max(1, min(crops, left_after // per_crop))
        pixels = min(pixels, left_after // _PER_UPSAMPLED_PIXEL)
        return cls(BatchSize(images), BatchSize(points), BatchSize(crops), pixels)


def _bytes_of(model: Segmenter | Encoder) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
