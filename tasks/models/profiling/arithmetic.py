"""Counts the operations of models; a multiply-add counts two. Nothing here takes time, nor much of it.

Both encoders are counted on fake tensors, which have shapes and no numbers, and the decoder on a single prompt: every
prompt costs it the same. What an image took is told by how many prompts it had, which its labels say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from refseg_core.labeling.proposal_source import PromptCounts
from refseg_core.models.protocols import Encoder, ImageEmbedding, Segmenter

_Result = TypeVar("_Result")

_NONE_PASSES = 2.0  # a predicted IoU that no mask has


@dataclass(frozen=True)
class Arithmetic:
    """Operations of an image (both encoders, and the decoder before its first prompt), and of a prompt.

    `plain`: of a prompt as the segmenter itself decodes it. Otherwise `transformed`: up to its predicted IoU, then
    `previewed` or `upscaled`, as far as it went.
    """

    segmenter: int
    encoder: int
    prepared: int
    transformed: int
    previewed: int
    upscaled: int
    plain: int

    def per_image(self, prompts: Sequence[PromptCounts], *, is_plain: bool) -> dict[str, int]:
        """Of each stage, the mean over images that had so many prompts; one image at least."""
        _, transformed, previewed, upscaled = (sum(counts) for counts in zip(*prompts, strict=True))
        if is_plain:
            of_prompts, before = transformed * self.plain, 0
        else:
            of_prompts = transformed * self.transformed + previewed * self.previewed + upscaled * self.upscaled
            before = self.prepared
        return {
            "segmenter": self.segmenter,
            "encoder": self.encoder,
            "decoder": before + of_prompts // len(prompts),
        }


@torch.no_grad()
def count_arithmetic(segmenter: Segmenter, encoder: Encoder) -> Arithmetic:
    """Counts what these models do with an image and with a prompt."""
    size, device = segmenter.architecture.image_size, segmenter.device
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(1, 3, size, size, device=device)
        of_segmenter, embedding = _counted(lambda: segmenter.embed(image))
        of_encoder, _ = _counted(lambda: encoder(image))
    embedding = _zeros_like(embedding, device)
    decoder = segmenter.point_decoder()
    point = torch.zeros(1, 2, device=device)
    prompt = decoder.prompts(point)
    prepared, image_parts = _counted(lambda: decoder.prepare(embedding))
    transformed, _ = _counted(lambda: decoder.decode_points(image_parts, prompt, pred_iou_thresh=_NONE_PASSES))
    previewed, _ = _counted(lambda: decoder.preview_points(image_parts, prompt))
    upscaled, _ = _counted(lambda: decoder.decode_points(image_parts, prompt, pred_iou_thresh=None))
    plain, _ = _counted(lambda: segmenter.decode_points(embedding, point, pred_iou_thresh=_NONE_PASSES))
    return Arithmetic(
        of_segmenter, of_encoder, prepared, transformed, previewed - transformed, upscaled - transformed, plain
    )


def _counted(work: Callable[[], _Result]) -> tuple[int, _Result]:
    """Operations of the work, as far as this thread does it, and its result."""
    with FlopCounterMode(display=False, custom_mapping=CPU_OPERATIONS) as counter:
        result = work()
    return counter.get_total_flops(), result


def _zeros_like(embedding: ImageEmbedding, device: torch.device) -> ImageEmbedding:
    parts = (embedding.stride16_BWhw, embedding.stride8_Bchw, embedding.stride4_Bchw)
    return ImageEmbedding(*(torch.zeros(part.shape, device=device) for part in parts))


def _linear_flops(left: Any, right: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of left [.., K] times right [C, K] transposed; shapes."""
    rows = 1
    for length in left[:-1]:
        rows *= length
    return 2 * rows * int(right[0]) * int(right[1])


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of scaled dot products, which torch counts on GPUs only; shapes [B, H, T, D]."""
    return int(sdpa_flop_count(query, key, value))


CPU_OPERATIONS: dict[Any, Callable[..., int]] = {  # which torch does not count by itself
    torch.ops.mkldnn._linear_pointwise: _linear_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
