"""Takes the time of stages, and the memory that they need at most."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_FORGET_THE_PEAK = "5"


class Stopwatch:
    """Seconds of each of these stages, by name, one entry an image.

    A stage that is gone through several times adds up; one that an image does not go through takes 0.
    """

    def __init__(self, device: torch.device, stages: Sequence[str]) -> None:
        self._device = device
        self.seconds: dict[str, list[float]] = {stage: [] for stage in stages}
        self._current = dict.fromkeys(stages, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """A stage."""
        finish(self._device)
        started = time.perf_counter()
        yield
        finish(self._device)
        self._current[stage] += time.perf_counter() - started

    def next_images(self, number: int) -> None:
        """What was measured since the last call was so many images, which share it evenly."""
        for stage, seconds in self._current.items():
            self.seconds[stage] += [seconds / number] * number
            self._current[stage] = 0.0


def finish(device: torch.device) -> None:
    """Returns when the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Memory needed so far does not count, where the system can forget it (Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_FORGET_THE_PEAK, encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """Memory needed at most since then: the device's, or the process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, StopIteration, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) << 10
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
