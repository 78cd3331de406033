"""SAM2 as the method calls it: which mask of a prompt is taken, which embedding it sees, which weights it fits."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hydra import compose
from hydra.utils import instantiate
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.overrides import TorchFunctionMode

from refseg_core.models.protocols import ImageEmbedding
from refseg_core.models.registry import REGISTRY
from refseg_core.models.sam2 import SAM2
from refseg_core.models.sam2 import build as build_segmenter
from tests.support.closeness import assert_close
from tests.support.models import TINY_SEGMENTER, random_tensor, tiny_segmenter

_POINTS = torch.tensor([[3.0, 5.0], [60.0, 10.0], [32.0, 32.0], [0.5, 63.5]])
_BOXES = torch.tensor([[3.0, 5.0, 30.0, 40.0], [10.0, 20.0, 60.0, 63.0]])


@pytest.fixture
def segmenter() -> SAM2:
    return tiny_segmenter()


@pytest.fixture
def embedding(segmenter: SAM2) -> ImageEmbedding:
    return segmenter.embed(random_tensor(1, 3, 64, 64))


def _answer(segmenter: SAM2, monkeypatch: pytest.MonkeyPatch, predicted_iou_N4: Tensor) -> Tensor:
    """Makes the decoder answer with these predicted IoUs, and logits that tell the masks apart."""
    logits = torch.arange(predicted_iou_N4.numel(), dtype=torch.float32).view(*predicted_iou_N4.shape, 1, 1)
    answer = (logits.expand(-1, -1, 16, 16), predicted_iou_N4, None, None)
    monkeypatch.setattr(segmenter.sam_mask_decoder, "predict_masks", lambda **_: answer)
    return logits[..., 0, 0]


def test_an_image_is_embedded_at_three_strides(segmenter: SAM2) -> None:
    embedding = segmenter.embed(random_tensor(2, 3, 64, 64))
    assert embedding.stride16_BWhw.shape == (2, 32, 4, 4)
    assert embedding.stride8_Bchw.shape == (2, 8, 8, 8)
    assert embedding.stride4_Bchw.shape == (2, 4, 16, 16)


def test_images_of_a_batch_do_not_touch_each_other(segmenter: SAM2) -> None:
    images = random_tensor(3, 3, 64, 64)
    together = segmenter.embed(images)
    for index in range(3):
        alone, taken = segmenter.embed(images[index][None]), together[index]
        for field in dataclasses.fields(ImageEmbedding):
            expected = getattr(alone, field.name)
            assert_close(getattr(taken, field.name), expected, atol=1e-4, rtol=1e-4)


def test_pixels_are_normalized_inside(segmenter: SAM2, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    encode = segmenter.image_encoder.forward

    def watch(images: Tensor) -> Any:
        seen.append(images)
        return encode(images)

    monkeypatch.setattr(segmenter.image_encoder, "forward", watch)
    segmenter.embed(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 64, 64))
    assert seen[0].abs().max() < 1e-6


def test_a_point_takes_the_best_of_its_three_masks_never_the_first(
    segmenter: SAM2, embedding: ImageEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted_iou = torch.tensor(
        [[0.99, 0.5, 0.6, 0.7], [0.0, 0.8, 0.6, 0.7], [0.9, 0.1, 0.9, 0.3], [0.9, 0.45, 0.45, 0.45]]
    )
    logits = _answer(segmenter, monkeypatch, predicted_iou)
    masks, iou = segmenter.decode_points(embedding, _POINTS, pred_iou_thresh=0)
    assert masks[:, 0, 0].tolist() == [logits[0, 3], logits[1, 1], logits[2, 2], logits[3, 1]]
    assert_close(iou, torch.tensor([0.7, 0.8, 0.9, 0.45]))


def test_points_are_kept_in_order_where_the_predicted_iou_exceeds_the_threshold(
    segmenter: SAM2, embedding: ImageEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted_iou = torch.tensor([[0.9, 0.5, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.5001, 0.1], [0, 0, 0, 0.6]])
    logits = _answer(segmenter, monkeypatch, predicted_iou)
    masks, iou = segmenter.decode_points(embedding, _POINTS, pred_iou_thresh=0.5)
    assert masks[:, 0, 0].tolist() == [logits[2, 2], logits[3, 3]]
    assert_close(iou, torch.tensor([0.5001, 0.6]))


def test_no_point_may_be_good_enough(segmenter: SAM2, embedding: ImageEmbedding) -> None:
    masks, iou = segmenter.decode_points(embedding, _POINTS, pred_iou_thresh=1)
    assert masks.shape == (0, 16, 16)
    assert iou.shape == (0,)


def test_a_box_takes_the_first_mask_whatever_the_others_promise(
    segmenter: SAM2, embedding: ImageEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = _answer(segmenter, monkeypatch, torch.tensor([[0.1, 0.9, 0.9, 0.9], [0.6, 0.1, 0.1, 0.1]]))
    masks, iou = segmenter.decode_boxes(embedding, _BOXES)
    assert masks[:, 0, 0].tolist() == logits[:, 0].tolist()
    assert_close(iou, torch.tensor([0.1, 0.6]))


def _both(segmenter: SAM2, embedding: ImageEmbedding) -> tuple[Tensor, Tensor]:
    points, _ = segmenter.decode_points(embedding, _POINTS, pred_iou_thresh=0)
    return points, segmenter.decode_boxes(embedding, _BOXES)[0]


def test_boxes_see_no_mem_embed_and_points_do_not(segmenter: SAM2, embedding: ImageEmbedding) -> None:
    points, boxes = _both(segmenter, embedding)
    shift = segmenter.no_mem_embed.clone()
    assert shift.any()
    with torch.no_grad():
        segmenter.no_mem_embed.zero_()
    points_without, boxes_without = _both(segmenter, embedding)
    assert torch.equal(points, points_without)
    assert (boxes - boxes_without).abs().max() > 1e-3
    shifted = dataclasses.replace(embedding, stride16_BWhw=embedding.stride16_BWhw + shift.view(1, -1, 1, 1))
    assert_close(_both(segmenter, shifted)[1], boxes, atol=1e-5, rtol=1e-5)


def test_prompts_do_not_touch_each_other(segmenter: SAM2, embedding: ImageEmbedding) -> None:
    points, boxes = _both(segmenter, embedding)
    assert (points[0] - points[1]).abs().max() > 1e-3
    for index in range(len(points)):
        alone, _ = segmenter.decode_points(embedding, _POINTS[index : index + 1], pred_iou_thresh=0)
        assert_close(alone[0], points[index], atol=1e-4, rtol=1e-4)
    for index in range(len(boxes)):
        alone, _ = segmenter.decode_boxes(embedding, _BOXES[index : index + 1])
        assert_close(alone[0], boxes[index], atol=1e-4, rtol=1e-4)


class _ShapesOnly(TorchFunctionMode):
    """Builds modules without memory for their parameters, so that even the large models take no time."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        place = {"device": "meta"} if func in (torch.empty, torch.zeros, torch.ones, torch.randn) else {}
        return func(*args, **{**(kwargs or {}), **place})


def _official(config: str) -> SAM2Base:
    return instantiate(compose(config_name=f"configs/{config}.yaml").model, _recursive_=True)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
@pytest.mark.parametrize(("size", "letters"), [("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l")])
def test_official_models_fit(version: str, size: str, letters: str) -> None:
    """The published configurations, built by the module `sam2` itself, name and shape the same parameters."""
    architecture = REGISTRY[f"{version}_hiera_{size}"].architecture
    with _ShapesOnly():
        official = _official(f"{version}/{version}_hiera_{letters}")
        ours = build_segmenter(architecture, official.state_dict(), model=size)
    assert architecture.image_size == official.image_size
    theirs = official.image_encoder
    for own, expected in zip(ours.image_encoder.trunk.blocks, theirs.trunk.blocks, strict=True):
        assert own.window_size == expected.window_size
        assert own.q_stride == expected.q_stride
        assert own.attn.num_heads == expected.attn.num_heads
    assert ours.image_encoder.neck.fpn_top_down_levels == list(theirs.neck.fpn_top_down_levels)
    assert ours.image_encoder.neck.fpn_interp_model == theirs.neck.fpn_interp_model
    assert ours.image_encoder.scalp == theirs.scalp
    assert ours.sam_prompt_encoder.image_embedding_size == official.sam_prompt_encoder.image_embedding_size
    assert ours.sam_prompt_encoder.input_image_size == official.sam_prompt_encoder.input_image_size
    assert ours.sam_mask_decoder.iou_prediction_head.sigmoid_output
    assert ours.sam_mask_decoder.transformer.num_heads == official.sam_mask_decoder.transformer.num_heads


def test_the_tiny_architecture_is_consistent() -> None:
    assert (TINY_SEGMENTER.embedding_size, TINY_SEGMENTER.logits_size) == (4, 16)
    assert TINY_SEGMENTER.stage_widths == (8, 16, 32, 64)
