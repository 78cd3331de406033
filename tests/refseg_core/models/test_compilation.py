"""Compiled functions give what they give as they are, and a machine that cannot compile goes on without."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.batching import is_out_of_memory
from refseg_core.models.compilation import compiled
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.tables import Prototypes
from tests.support.models import TINY_ENCODER, random_tensor, tiny_encoder, tiny_segmenter

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch's own compiler


def _softmax(values: Tensor) -> Tensor:
    return (values * 2).softmax(dim=-1)


def test_what_is_not_wanted_stays_as_it_is() -> None:
    assert compiled(_softmax, wanted=False) is _softmax


@pytest.mark.slow
def test_a_machine_without_a_compiler_says_so_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from torch._inductor import config  # which takes seconds to import

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    quick = compiled(_softmax, wanted=True)
    no_compiler = config.patch({"cpp.cxx": (None, "/no/compiler")})
    with no_compiler, caplog.at_level(logging.WARNING, "refseg_core"):
        for seed in range(3):
            values = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(quick(values), _softmax(values))
    (message,) = caplog.messages
    assert message.startswith("batches.compiled: this machine cannot compile (")


@pytest.mark.slow
def test_errors_of_the_function_itself_are_its_own() -> None:
    def full(values: Tensor) -> Tensor:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room") as caught:
        compiled(full, wanted=True)(torch.ones(2))
    assert is_out_of_memory(caught.value)


@pytest.mark.slow
def test_what_is_compiled_computes_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For this machine, and small: a product, a norm, an activation and a softmax. The compiler itself is torch's."""

    def small(values: Tensor) -> Tensor:
        mixed = torch.nn.functional.layer_norm(values @ values.mT, (len(values),))
        return torch.nn.functional.gelu(mixed).softmax(dim=-1)

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    values = random_tensor(7, 5)
    torch.testing.assert_close(compiled(small, wanted=True)(values), small(values))


@pytest.mark.slow
def test_a_path_that_is_compiled_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both encoders and the previews are traced, each as one graph, and run without code being made of them."""
    graphs: list[str] = []

    def trace(function: Callable[..., object]) -> Callable[..., object]:
        graphs.append(getattr(function, "__name__", type(function).__name__))
        return compile_with(function, backend="eager", fullgraph=True)

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", trace)
    settings = LabelingSettings(path="fast", points_per_side=6, pred_iou_thresh=0, box_nms_thresh=1.0)
    prototypes = np.random.default_rng(0).normal(size=(2, TINY_ENCODER.embed_dim))
    table = Prototypes(
        category_id=np.array([5, 2]),
        num_references=np.ones(2),
        prototype=prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True),
    )
    image = np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    plain, quick = (
        BatchLabeler(tiny_segmenter(), tiny_encoder(), table, settings, BatchSettings(compiled=is_compiled))
        .label(image, image_id="harbour.jpg")
        .detections
        for is_compiled in (False, True)
    )
    assert graphs == ["DINOv2", "embed", "_preview_plainly"]
    assert len(plain) > 3
    np.testing.assert_array_equal(quick.category_id, plain.category_id)
    np.testing.assert_array_equal(quick.box_xyxy, plain.box_xyxy)
    np.testing.assert_allclose(quick.score, plain.score, atol=1e-5)
