"""What the machine does at most: matrix products and copies, measured now, where the models run.

Each measurement begins small and ends when a larger one is no quicker, or when its time is up.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from refseg_core.models.processor import this_processor
from tasks.models.profiling.stopwatch import finish
from tasks.runtime.progress import ProgressStep, report

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
_SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
_BYTES = {"cpu": (64 << 20, 256 << 20), "cuda": (1 << 30, 4 << 30)}
_GOES = 5  # of each size; the best counts
_SECONDS = 10.0  # for each ceiling
_STEADY = 1.03  # a larger size that gains less than this is the last one


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at most.

    `product_flops`: operations a second of large products, by precision (a multiply-add counts two). `emulated`:
    precisions that the processor has no instructions for, which are left out. `copied_bytes`: bytes a second copied,
    read and write.
    """

    machine: str
    product_flops: dict[str, float]
    emulated: tuple[str, ...]
    copied_bytes: float

    @property
    def float32_flops(self) -> float:
        """The measure of all paths."""
        return self.product_flops["float32"]


def measure_ceilings(device: torch.device, *, seconds: float = _SECONDS) -> Ceilings:
    """Measures each for so many seconds at most, and tells which."""
    computed = [dtype for dtype in _PRECISIONS if _has_products_of(device, dtype)]
    report(ProgressStep.CEILINGS, total=len(computed) + 1)
    products = {_name(dtype): _largest(_products(device, dtype), device, seconds) for dtype in computed}
    return Ceilings(
        machine=describe_machine(device),
        product_flops=products,
        emulated=tuple(_name(dtype) for dtype in _PRECISIONS if dtype not in computed),
        copied_bytes=_largest(_copies(device), device, seconds),
    )


def _has_products_of(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda":
        return this_processor().has_products_of(dtype)
    return dtype is not torch.bfloat16 or bool(torch.cuda.is_bf16_supported(including_emulation=False))


_Sized = tuple[str, int, Callable[[], object]]
"""What it is, how much it comes to, and the work itself."""


def _products(device: torch.device, dtype: torch.dtype) -> Iterator[_Sized]:
    for side in _of(_SIDES, device):
        left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
        yield f"{_name(dtype)} products of {side} rows", 2 * side**3, partial(torch.matmul, left, right)


def _copies(device: torch.device) -> Iterator[_Sized]:
    for size in _of(_BYTES, device):
        source = torch.ones(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        yield f"copies of {size >> 20} MiB", 2 * size, partial(target.copy_, source)


def _of(sizes: Mapping[str, Sequence[int]], device: torch.device) -> Sequence[int]:
    return sizes.get(device.type, sizes["cpu"])


def _largest(sizes: Iterator[_Sized], device: torch.device, seconds: float) -> float:
    """The most a second, over sizes that grow until nothing is gained or a go of the next would not end in time."""
    ends_at = time.perf_counter() + seconds
    most, amount_before, took = 0.0, 0, 0.0
    for doing, amount, work in sizes:
        if amount_before and time.perf_counter() + 2 * took * amount / amount_before > ends_at:  # it warms up, too
            break
        report(ProgressStep.CEILINGS, doing=doing)
        took = _best(work, device, ends_at)
        gained = amount / took / most if most else float("inf")
        most, amount_before = max(most, amount / took), amount
        if gained < _STEADY:
            break
    report(ProgressStep.CEILINGS, advanced=1)
    return most


def _best(work: Callable[[], object], device: torch.device, ends_at: float) -> float:
    """Seconds of the quickest go; one, at least."""
    work()
    seconds: list[float] = []
    while not seconds or (len(seconds) < _GOES and time.perf_counter() < ends_at):
        finish(device)
        started = time.perf_counter()
        work()
        finish(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def describe_machine(device: torch.device) -> str:
    """Returns what the models run on: processor or GPU, threads, and the release of torch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    processor = this_processor()
    return (
        f"{processor.name}, {os.cpu_count()} processors, {torch.get_num_threads()} threads, "
        f"{processor.vectors}{' and AMX' if processor.has_amx else ''}, torch {torch.__version__}"
    )
