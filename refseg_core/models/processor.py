"""The vector instructions and precisions of this processor, as torch and oneDNN use them.

Both libraries can be held below what the processor has (ATEN_CPU_CAPABILITY, DNNL_MAX_CPU_ISA), and what counts is what
they use. Whatever depends on the processor reads it here: which library multiplies large matrices, which precision is
worth measuring, what may be compiled. Not here: how anything is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

_ARM = ("aarch64", "arm64")
_PLAIN_KERNELS = "DEFAULT"  # torch's word for kernels without vector instructions on x86, and with NEON on ARM
_BFLOAT16_UNITS = {"avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16"}
_FLOAT16_UNITS = {"avx512_fp16", "amx_fp16", "avx10_2", "fp16_arith"}


@dataclass(frozen=True)
class Processor:
    """What a processor computes with.

    `name`: as the processor calls itself. `vectors`: torch's widest vector instructions here: AVX2, AVX512, SVE256,
    NEON, or none. `has_amx`: tiles for matrix products (Intel). `has_bfloat16`, `has_float16`: products in that
    precision have instructions of their own; where they have none they are emulated, up to two hundred times slower
    than in float32. `has_onednn_products`: large float32 products are quicker by oneDNN than by torch's own BLAS.
    """

    name: str
    vectors: str
    has_amx: bool
    has_bfloat16: bool
    has_float16: bool
    has_onednn_products: bool

    @property
    def can_compile(self) -> bool:
        """Whether compiled functions are vectorized; without vectors they are slower than torch's own kernels."""
        return self.vectors != "none"

    def has_products_of(self, dtype: torch.dtype) -> bool:
        """Whether products in this precision are computed, and not emulated."""
        return {torch.bfloat16: self.has_bfloat16, torch.float16: self.has_float16}.get(dtype, True)

    @classmethod
    def of(
        cls, capabilities: Mapping[str, Any], kernels: str, *, onednn: bool, bfloat16: bool, float16: bool
    ) -> "Processor":
        """Returns the processor of these capabilities.

        `capabilities`: the processor's own, by torch's names. `kernels`: the instructions that torch's
        kernels use. `onednn`: it is there; `bfloat16`, `float16`: it would compute in these with what it may use.
        """
        has = {name for name, value in capabilities.items() if value is True}
        architecture = str(capabilities.get("architecture", ""))
        plain = "NEON" if architecture in _ARM else "none"
        vectors = plain if kernels == _PLAIN_KERNELS else kernels
        return cls(
            name=str(capabilities.get("cpu_name") or architecture or "processor"),
            vectors=vectors,
            has_amx="amx_tile" in has,
            has_bfloat16=onednn and bfloat16 and bool(has & _BFLOAT16_UNITS),
            has_float16=onednn and float16 and bool(has & _FLOAT16_UNITS),
            # On x86 the BLAS is MKL, which keeps to AVX2 on processors that are not Intel's.
            has_onednn_products=onednn and vectors.startswith("AVX"),
        )


@cache
def this_processor() -> Processor:
    """Returns this machine's processor, looked up once per process."""
    onednn = torch.backends.mkldnn.is_available()
    return Processor.of(
        getattr(torch.cpu, "get_capabilities", dict)(),  # missing in older releases of torch
        torch.backends.cpu.get_cpu_capability(),
        onednn=onednn,
        bfloat16=onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        float16=onednn and torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    )
