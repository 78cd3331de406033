"""What makes models quick on a device, whatever they compute.

On CPUs: matrix products by the faster library, and chunks of work on parallel threads. On GPUs: lower precision, which
their fast units are made for; on CPUs it gains little and costs agreement.

Shapes: N matrices, M x K times K x C.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.models.processor import this_processor

_Result = TypeVar("_Result")

_ONEDNN_PAYS = 4_000_000  # multiplications in one product; below, the calls cost more than they save


def pick_device(wanted: str) -> torch.device:
    """Returns a device; 'auto' is a GPU where there is one. Raises ConfigurationError for a device that is missing."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"device: {wanted!r} cannot be used here ({str(error).splitlines()[0]}). Use 'auto', 'cpu' or 'cuda:0'."
        ) from error


def products(left_NMK: Tensor, right_NKC: Tensor, plus: Tensor | None = None) -> Tensor:
    """Returns left @ right + plus, [N, M, C]; `plus` is broadcast.

    Where the processor has vectors that oneDNN knows, large products are oneDNN's, one by one: 200 to 240 GFLOP/s per
    core of an AMD EPYC (Zen 5) with AVX-512 and 110 with AVX2, where torch.bmm, which uses MKL, reaches 95. oneDNN sums
    in one chain, so K should be some hundreds at most.
    """
    multiplications = left_NMK.shape[1] * left_NMK.shape[2] * right_NKC.shape[2]
    is_large = left_NMK.device.type == "cpu" and multiplications >= _ONEDNN_PAYS and len(left_NMK) > 0
    if not (is_large and this_processor().has_onednn_products):
        return torch.bmm(left_NMK, right_NKC) if plus is None else torch.baddbmm(plus, left_NMK, right_NKC)
    multiply = torch.ops.mkldnn._linear_pointwise
    each = [multiply(left, right.T, None, "none", [], "") for left, right in zip(left_NMK, right_NKC, strict=True)]
    product_NMC = each[0][None] if len(each) == 1 else torch.stack(each)
    # Added afterwards: oneDNN's fused addition halves the speed of the whole product.
    return product_NMC if plus is None else product_NMC.add_(plus)


def map_on_threads(function: Callable[[Tensor], _Result], chunks: Sequence[Tensor]) -> list[_Result]:
    """Returns the function of every chunk, in order; on CPUs it uses torch's number of threads, each for one chunk.

    For functions of many small operations, which torch's own threads slow down where they must wait for each other
    after every one: on two busy cores by a factor of 70.
    """
    num_threads = torch.get_num_threads()
    if len(chunks) <= 1 or num_threads == 1 or chunks[0].device.type != "cpu":
        return [function(chunk) for chunk in chunks]
    inference = torch.is_inference_mode_enabled()

    def on_one_thread(chunk: Tensor) -> _Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(False):
            return function(chunk)

    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            return list(threads.map(on_one_thread, chunks))
    finally:
        torch.set_num_threads(num_threads)  # set per thread, but also remembered for threads yet to come


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
