"""Where numbers of half the precision pay: on GPUs, and on CPUs that multiply bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def half_where_it_pays(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Inside, matrix products and convolutions are bfloat16, and what must not be (norms, softmax) float32."""
    if wanted and (device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        with torch.autocast(device.type, torch.bfloat16):
            yield
    else:
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
