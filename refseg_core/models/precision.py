"""Numbers of less precision, on GPUs, whose fast units are for these. On CPUs they gain little and cost agreement."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def half(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Inside, matrix products and convolutions on a GPU are bfloat16; norms and softmax stay float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=wanted and device.type != "cpu"):
        yield


@contextmanager
def tensor_cores(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Inside, float32 products on a GPU are of numbers with ten bits of mantissa (TF32), and summed in float32."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = before or (wanted and device.type == "cuda")
    try:
        yield
    finally:
        matmul.allow_tf32 = before
