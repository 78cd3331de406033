"""What the machine does at most: matrix products and copies, measured now, where the models run."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tasks.models.profiling.stopwatch import finish

_SIDE = {"cpu": 2048, "cuda": 8192}
_BYTES = {"cpu": 256 << 20, "cuda": 4 << 30}
_REPEATS = 5


@dataclass(frozen=True)
class Ceilings:
    """Operations a second of large products (a multiply-add counts two), and bytes a second copied, read and write."""

    machine: str
    float32_flops: float
    bfloat16_flops: float
    copied_bytes: float


def measure_ceilings(device: torch.device) -> Ceilings:
    """The best of a few goes each."""
    return Ceilings(
        machine=_describe(device),
        float32_flops=_product(device, torch.float32),
        bfloat16_flops=_product(device, torch.bfloat16),
        copied_bytes=_copy(device),
    )


def _product(device: torch.device, dtype: torch.dtype) -> float:
    side = _SIDE.get(device.type, _SIDE["cpu"])
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    return float(2 * side**3 / _best(lambda: left @ right, device))


def _copy(device: torch.device) -> float:
    source = torch.ones(_BYTES.get(device.type, _BYTES["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / _best(lambda: target.copy_(source), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    work()
    seconds = []
    for _ in range(_REPEATS):
        finish(device)
        started = time.perf_counter()
        work()
        finish(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return (
        f"{_processor()}, {os.cpu_count()} processors, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    )


def _processor() -> str:
    return platform.processor() or platform.machine()
