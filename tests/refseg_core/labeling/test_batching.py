"""Batches keep a limit of memory, and halve where memory runs out all the same."""

import logging

import pytest
import torch
from torch import Tensor, nn

from refseg_core.errors import ConfigurationError
from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE, Batches, BatchSize, in_batches
from refseg_core.models.registry import REGISTRY
from refseg_core.settings import BatchSettings

_LARGE = REGISTRY["sam2_hiera_large"].architecture
_CPU, _GPU = torch.device("cpu"), torch.device("cuda")


def _fit(device: torch.device, num_points: int = 1024, **settings: object) -> Batches:
    return Batches.fit(BatchSettings.model_validate(settings), _LARGE, device, (nn.Linear(1000, 1000),), num_points)


def _sizes(batches: Batches) -> tuple[int, int, int]:
    return batches.images.now, batches.points.now, batches.pixels


def test_without_a_limit_batches_are_as_asked_for() -> None:
    assert _sizes(_fit(_CPU)) == (1, 64, UPSAMPLED_AT_ONCE)
    assert _sizes(_fit(_GPU)) == (8, 64, UPSAMPLED_AT_ONCE)
    assert _sizes(_fit(_GPU, images_per_batch=3, points_per_batch=5)) == (3, 5, UPSAMPLED_AT_ONCE)


@pytest.mark.parametrize("device", [_CPU, _GPU])
def test_a_limit_makes_batches_smaller_the_lower_it_is(device: torch.device) -> None:
    sizes = [_sizes(_fit(device, max_memory=limit, images_per_batch=64)) for limit in ("2GB", "4 GB", "9000MB", "90GB")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1]
    assert sizes[0][0] >= 1
    assert sizes[-1] == (64, 64, UPSAMPLED_AT_ONCE)


def test_a_limit_that_nothing_fits_into_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"max_memory: 900MB is too little .* 1\.\d GB are needed"):
        _fit(_CPU, max_memory="900MB")
    with pytest.raises(ConfigurationError, match="4096 points"):
        _fit(_CPU, max_memory="2GB", num_points=4096)


class _Device:
    """Has room for so many things at once."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room = room
        self.error = error
        self.asked: list[int] = []

    def __call__(self, items: Tensor) -> list[int]:
        self.asked.append(len(items))
        if len(items) > self.room:
            raise self.error
        return items.tolist()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
    ],
)
def test_batches_halve_until_they_fit_and_stay_so(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    size, device = BatchSize(8), _Device(3, error)
    with caplog.at_level(logging.WARNING):
        results = in_batches(torch.arange(10), size, device)
    assert [item for batch in results for item in batch] == list(range(10))
    assert device.asked == [8, 4, 2, 2, 2, 2, 2]
    assert len(caplog.records) == 1
    assert in_batches(torch.arange(2), size, device) == [[0, 1]]


def test_one_thing_that_does_not_fit_and_other_errors_are_raised() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        in_batches(torch.arange(4), BatchSize(4), _Device(0, torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(RuntimeError, match="shape"):
        in_batches(torch.arange(4), BatchSize(4), _Device(0, RuntimeError("shape")))


def test_no_items_are_one_empty_batch() -> None:
    assert in_batches(torch.arange(0), BatchSize(4), _Device(1, RuntimeError())) == [[]]
