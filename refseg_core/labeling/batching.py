"""How much is worked on at once: sizes that keep a limit of memory, and that halve where it runs out all the same.

Bytes are of float32 and were measured with SAM2 tiny and large at 1024 pixels (`refseg bench` shows the peak).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.models.protocols import Encoder, Segmenter, SegmenterSizes
from refseg_core.settings import BatchSettings

UPSAMPLED_AT_ONCE = 64_000_000  # pixels

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_ON_A_CPU, _ON_A_GPU = 1, 8  # images in a batch: a CPU is busy with one
_RUNTIME = {"cpu": 1_150_000_000, "cuda": 600_000_000}  # of Python, Prefect, libraries and torch itself
_PER_FRAME_PIXEL = 500  # of an image in the segmenter's trunk, its widest place
_ROWS_OF_A_PROMPT = 900  # numbers for each cell of the embedding while a prompt is decoded on a GPU
_COPIES_OF_LOGITS = 2  # where batches of them are joined
_PER_UPSAMPLED_PIXEL = 10
_LEAST_UPSAMPLED = 4_000_000  # pixels


class BatchSize:
    """A number of things that are worked on at once; less, once that took more memory than there was."""

    def __init__(self, now: int) -> None:
        self.now = now
        self._is_told = False

    def halve(self, error: BaseException) -> None:
        """After memory ran out. Raises the error where one thing alone is too much."""
        if self.now == 1:
            raise error
        self.now //= 2
        if not self._is_told:
            log.warning("Memory ran out: batches are halved until they fit. Setting batches.max_memory avoids this.")
        self._is_told = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_batches(items_N: Tensor, size: BatchSize, work: Callable[[Tensor], Result]) -> list[Result]:
    """What `work` makes of the items, a batch at a time, in order; of none, too."""
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


def is_out_of_memory(error: BaseException) -> bool:
    """On a CPU, torch says it in words only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


@dataclass(frozen=True)
class Batches:
    """Images in both encoders, points in the decoder, and pixels of masks brought to the original frame, at once."""

    images: BatchSize
    points: BatchSize
    pixels: int = UPSAMPLED_AT_ONCE

    @classmethod
    def fit(
        cls,
        settings: BatchSettings,
        sizes: SegmenterSizes,
        device: torch.device,
        models: Sequence[Segmenter | Encoder],
        num_points: int,
    ) -> "Batches":
        """As asked for, or smaller where a limit of memory is set. Raises ConfigurationError where nothing fits."""
        images = settings.images_per_batch or (_ON_A_CPU if device.type == "cpu" else _ON_A_GPU)
        points, pixels = settings.points_per_batch, UPSAMPLED_AT_ONCE
        limit = settings.max_memory_bytes
        if limit is None:
            return cls(BatchSize(images), BatchSize(points), pixels)
        fixed = _RUNTIME[device.type] + sum(_bytes_of(model) for model in models)
        per_image = sizes.image_size**2 * _PER_FRAME_PIXEL
        logits = num_points * sizes.logits_size**2 * (4 * _COPIES_OF_LOGITS + 1)
        per_point = sizes.embedding_size**2 * 4 * _ROWS_OF_A_PROMPT if device.type != "cpu" else 0
        least = fixed + max(per_image, logits + max(per_point, _LEAST_UPSAMPLED * _PER_UPSAMPLED_PIXEL))
        if limit < least:
            raise ConfigurationError(
                f"batches.max_memory: {settings.max_memory} is too little for these models and {num_points} points on "
                f"{device.type}: {least / 1e9:.1f} GB are needed. Raise it, or ask fewer points or take smaller models."
            )
        left = limit - fixed
        images = max(1, min(images, left // per_image))
        points = max(1, min(points, (left - logits) // per_point)) if per_point else points
        pixels = min(pixels, (left - logits) // _PER_UPSAMPLED_PIXEL)
        return cls(BatchSize(images), BatchSize(points), pixels)


def _bytes_of(model: Segmenter | Encoder) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
