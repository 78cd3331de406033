"""Batches keep a limit of memory, and halve where memory runs out all the same."""

import logging
import re
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE, Batches, BatchSize, in_batches
from refseg_core.models.protocols import Encoder, Segmenter
from refseg_core.models.registry import REGISTRY
from refseg_core.settings import BatchSettings, LabelingSettings

_CPU, _GPU = torch.device("cpu"), torch.device("cuda")


class _Model:
    """The sizes of a registered model, with a million parameters."""

    def __init__(self, name: str) -> None:
        self.architecture: Any = REGISTRY[name].architecture

    def parameters(self) -> list[Tensor]:
        return [torch.zeros(1000, 1000)]


_SEGMENTER, _ENCODER = cast(Segmenter, _Model("sam2_hiera_large")), cast(Encoder, _Model("dinov2_vitl14"))


def _fit(device: torch.device, labeling: LabelingSettings | None = None, **settings: object) -> Batches:
    batches = BatchSettings.model_validate(settings)
    return Batches.fit(batches, labeling or LabelingSettings(method="published"), device, _SEGMENTER, _ENCODER)


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
    with pytest.raises(ConfigurationError, match="4,096 points"):
        _fit(_CPU, LabelingSettings(method="published", points_per_side=64), max_memory="2GB")


def _needed(device: torch.device, **settings: object) -> float:
    """GB, as the refusal of a limit says."""
    with pytest.raises(ConfigurationError) as caught:
        _fit(device, LabelingSettings.model_validate(settings), max_memory="1MB")
    (needed,) = re.findall(r"(\d+\.\d) GB are needed", str(caught.value))
    return float(needed)


@pytest.mark.parametrize("device", [_CPU, _GPU])
def test_all_masks_need_memory_for_three_of_each_point(device: torch.device) -> None:
    """Of 128 x 128 points 65536 * 16384 logits: 9 bytes each of the best mask, 5 of each of three."""
    best, all_three = (_needed(device, points_per_side=128, all_masks=every) for every in (False, True))
    assert all_three - best == pytest.approx(65536 * 16384 * (3 * 5 - 9) / 1e9, abs=0.11)
    assert _needed(device, points_per_side=128, method="accurate") == all_three


def test_crops_become_fewer_where_logits_leave_no_room() -> None:
    accurate = LabelingSettings(method="accurate")
    assert [_fit(device, accurate).crops.now for device in (_CPU, _GPU)] == [8, 64]
    crops = [_fit(_GPU, accurate, max_memory=limit).crops.now for limit in ("1.8GB", "2GB", "3GB", "9GB")]
    assert crops == sorted(crops)
    assert 1 <= crops[0] < crops[1] < crops[2] == crops[3] == 64


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
