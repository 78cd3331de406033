"""Where numbers of half the precision pay: on GPUs, and on CPUs that multiply bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_PAYS_FROM = 10_000_000  # parameters, on a CPU: smaller models spend more on converting than they save


@contextmanager
def half_where_it_pays(model: nn.Module, device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Inside, the model's matrix products and convolutions are bfloat16; norms and softmax stay float32."""
    if wanted and (device.type != "cpu" or _pays_on_cpu(model)):
        with torch.autocast(device.type, torch.bfloat16):
            yield
    else:
        yield


def _pays_on_cpu(model: nn.Module) -> bool:
    return bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and sum(parameter.numel() for parameter in model.parameters()) >= _PAYS_FROM
    )


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
