"""What is concluded of a processor, for processors of many kinds, and what this one's libraries may use."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from refseg_core.models.compilation import can_compile
from refseg_core.models.processor import Processor, this_processor

_X86 = {"architecture": "x86_64", "cpu_name": "A processor", "avx2": True, "fma3": True}
_AVX512 = {**_X86, "avx512_f": True}
_ARM = {"architecture": "aarch64", "neon": True, "fp16_arith": True}


def _of(capabilities: dict[str, Any], kernels: str, *, halves: bool, onednn: bool = True) -> Processor:
    return Processor.of(capabilities, kernels, onednn=onednn, bfloat16=halves, float16=halves)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        pytest.param(_of(_X86, "AVX2", halves=False), ("AVX2", False, False, False, True), id="Haswell, Zen 2"),
        pytest.param(_of(_AVX512, "AVX512", halves=True), ("AVX512", False, False, False, True), id="Skylake-X"),
        pytest.param(
            _of({**_AVX512, "avx512_bf16": True}, "AVX512", halves=True),
            ("AVX512", False, True, False, True),
            id="Cooper Lake, Zen 4",
        ),
        pytest.param(
            _of({**_AVX512, "amx_tile": True, "amx_bf16": True, "avx512_fp16": True}, "AVX512", halves=True),
            ("AVX512", True, True, True, True),
            id="Sapphire Rapids",
        ),
        pytest.param(
            _of({**_AVX512, "avx512_bf16": True}, "AVX2", halves=False),
            ("AVX2", False, False, False, True),
            id="Zen 4 held to AVX2",
        ),
        pytest.param(
            _of({**_AVX512, "avx512_bf16": True}, "AVX512", halves=True, onednn=False),
            ("AVX512", False, False, False, False),
            id="Zen 4 without oneDNN",
        ),
        pytest.param(
            _of({}, "AVX2", halves=False), ("AVX2", False, False, False, True), id="a torch that tells little"
        ),
        pytest.param(
            _of({"architecture": "x86_64", "avx2": False}, "DEFAULT", halves=False),
            ("none", False, False, False, False),
            id="before AVX2",
        ),
        pytest.param(_of(_ARM, "DEFAULT", halves=False), ("NEON", False, False, False, False), id="Graviton 2"),
        pytest.param(
            _of({**_ARM, "bf16": True, "sve": True, "sve_max_length": 32}, "SVE256", halves=True),
            ("SVE256", False, True, True, False),
            id="Graviton 3",
        ),
    ],
)
def test_conclusions(processor: Processor, expected: tuple[str, bool, bool, bool, bool]) -> None:
    vectors, *concluded = expected
    assert processor.vectors == vectors
    assert concluded == [
        processor.has_amx, processor.has_bfloat16, processor.has_float16, processor.has_onednn_products
    ]  # fmt: skip
    assert processor.has_products_of(torch.float32)
    assert processor.has_products_of(torch.bfloat16) == processor.has_bfloat16
    assert processor.has_products_of(torch.float16) == processor.has_float16
    assert processor.can_compile == (vectors != "none")


def _asked_under(**variables: str) -> str:
    """What a process of its own answers."""
    free = {
        name: value for name, value in os.environ.items() if name not in ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA")
    }
    asking = "from refseg_core.models.processor import this_processor as p; import sys; sys.stdout.write(repr(p()))"
    command = [sys.executable, "-c", asking]
    return subprocess.run(command, env={**free, **variables}, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_what_the_libraries_are_held_to_counts() -> None:
    free = _asked_under()
    if "vectors='AVX512'" not in free:
        pytest.skip(f"this processor has no AVX-512 to hold its libraries below: {free}")
    held = _asked_under(ATEN_CPU_CAPABILITY="avx2", DNNL_MAX_CPU_ISA="AVX2")
    assert "vectors='AVX2'" in held
    assert "has_bfloat16=False" in held
    assert "has_onednn_products=True" in held
    none = _asked_under(ATEN_CPU_CAPABILITY="default", DNNL_MAX_CPU_ISA="SSE41")
    assert "vectors='none'" in none
    assert "has_onednn_products=False" in none


def test_a_processor_without_vectors_does_not_compile_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without = _of({"architecture": "x86_64"}, "DEFAULT", halves=False)
    monkeypatch.setattr("refseg_core.models.compilation.this_processor", lambda: without)
    assert not can_compile(torch.device("cpu"))
    assert "no vector instructions to compile for" in caplog.text
    assert can_compile(torch.device("meta"))


def test_the_processor_is_asked_once() -> None:
    assert this_processor() is this_processor()
