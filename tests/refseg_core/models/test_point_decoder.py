"""The exact path answers as the reference path does, whatever the model's dimensions and however prompts are cut."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from refseg_core.labeling.proposals import point_grid
from refseg_core.models.architectures import SegmenterArchitecture
from refseg_core.models.point_decoder import PointDecoder
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import ImageEmbedding
from refseg_core.models.registry import REGISTRY
from refseg_core.models.sam2 import SAM2
from refseg_core.models.sam2 import build as build_segmenter
from tests.support.closeness import assert_close
from tests.support.models import TINY_SEGMENTER, random_tensor, tiny_segmenter

_WIDE = SegmenterArchitecture(8, 1, (1, 1, 2, 1), (3,), window_sizes=(4, 4, 4, 2), width=96, image_size=128)
_LARGE = SegmenterArchitecture(8, 1, (1, 1, 2, 1), (3,), window_sizes=(4, 4, 4, 2), width=64, image_size=256)
_ARCHITECTURES = [
    pytest.param(TINY_SEGMENTER, id="width 32, 4 x 4 cells"),
    pytest.param(_WIDE, id="width 96, 8 x 8 cells"),
    pytest.param(_LARGE, id="width 64, 16 x 16 cells"),
]
_CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other after every tiny operation take minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _segmenter(architecture: SegmenterArchitecture, seed: int = 0) -> SAM2:
    """Random biases and norms too, so that none of them may be forgotten."""
    segmenter = tiny_segmenter(architecture, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in segmenter.sam_mask_decoder.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return segmenter


def _embedding(architecture: SegmenterArchitecture, seed: int = 0) -> ImageEmbedding:
    """Noise of unit deviation: cells differ more than a tiny random encoder would let them."""
    generator = torch.Generator().manual_seed(seed)
    width, cells = architecture.width, architecture.embedding_size
    shapes = ((width, cells), (width // 4, 2 * cells), (width // 8, 4 * cells))
    return ImageEmbedding(*(torch.randn(1, wide, side, side, generator=generator) for wide, side in shapes))


def _points(architecture: SegmenterArchitecture, per_side: int = 5) -> Tensor:
    return point_grid(per_side, architecture.image_size, _CPU)


def _decode(
    decoder: PointDecoder, embedding: ImageEmbedding, points: Tensor, thresh: float = 0.0
) -> tuple[Tensor, Tensor]:
    return decoder.decode_points(decoder.prepare(embedding), decoder.prompts(points), pred_iou_thresh=thresh)


def _assert_same(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Predicted IoUs within 1e-6; logits within 1e-5 of each mask's scale, and only those near 0 change their sign."""
    (logits, predicted_iou), (expected_logits, expected_iou) = ours, theirs
    assert logits.shape == expected_logits.shape
    assert logits.dtype == predicted_iou.dtype == torch.float32
    assert_close(predicted_iou, expected_iou, atol=1e-6, rtol=0)
    scale = expected_logits.abs().amax(dim=(1, 2), keepdim=True)
    assert ((logits - expected_logits).abs() <= 1e-5 * scale).all()
    flipped = (logits > 0) != (expected_logits > 0)
    assert (expected_logits.abs() * flipped <= 1e-5 * scale).all()


@pytest.mark.parametrize("architecture", _ARCHITECTURES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masks_and_predicted_ious_equal_the_references(architecture: SegmenterArchitecture, seed: int) -> None:
    segmenter, embedding = _segmenter(architecture, seed), _embedding(architecture, seed)
    points = _points(architecture)
    expected = segmenter.decode_points(embedding, points, pred_iou_thresh=0)
    assert len(expected[0]) == 25
    assert expected[0].std(dim=0).max() > 0.01, "prompts should give different masks, or this shows little"
    _assert_same(_decode(PointDecoder(segmenter), embedding, points), expected)


def test_an_embedding_that_the_segmenter_made_is_decoded_alike() -> None:
    segmenter = tiny_segmenter()
    embedding = segmenter.embed(random_tensor(1, 3, 64, 64))
    points = _points(TINY_SEGMENTER)
    expected = segmenter.decode_points(embedding, points, pred_iou_thresh=0)
    _assert_same(_decode(PointDecoder(segmenter), embedding, points), expected)


@pytest.mark.parametrize("num_heads", [1, 2, 4, 16])
def test_the_number_of_heads_is_the_models(num_heads: int) -> None:
    segmenter, embedding = _segmenter(TINY_SEGMENTER), _embedding(TINY_SEGMENTER)
    transformer = segmenter.sam_mask_decoder.transformer
    transformer.num_heads = num_heads
    for module in transformer.modules():
        if hasattr(module, "num_heads"):
            module.num_heads = num_heads
    points = _points(TINY_SEGMENTER)
    expected = segmenter.decode_points(embedding, points, pred_iou_thresh=0)
    _assert_same(_decode(PointDecoder(segmenter), embedding, points), expected)


@pytest.mark.slow
@settings(max_examples=25)
@given(quantile=st.floats(0, 1), num_points=st.integers(1, 30), seed=st.integers(0, 3))
def test_the_same_prompts_pass_any_threshold(quantile: float, num_points: int, seed: int) -> None:
    """Thresholds lie between two predicted IoUs, since equal ones are not distinguished in float32."""
    segmenter, embedding = _segmenter(TINY_SEGMENTER, seed), _embedding(TINY_SEGMENTER, seed)
    points = _points(TINY_SEGMENTER, per_side=6)[:num_points]
    _, every_iou = segmenter.decode_points(embedding, points, pred_iou_thresh=-1)
    ordered = every_iou.double().sort().values
    edges = torch.cat((ordered[:1] - 0.1, (ordered[1:] + ordered[:-1]) / 2, ordered[-1:] + 0.1))
    thresh = float(edges[round(quantile * num_points)])
    assume((every_iou - thresh).abs().min() > 2e-6)
    expected = segmenter.decode_points(embedding, points, pred_iou_thresh=thresh)
    _assert_same(_decode(PointDecoder(segmenter), embedding, points, thresh), expected)


@pytest.mark.slow
@pytest.mark.parametrize("prompts_per_chunk", [1, 3, 1000])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_chunks_and_threads_change_nothing(
    prompts_per_chunk: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter, embedding = _segmenter(TINY_SEGMENTER), _embedding(TINY_SEGMENTER)
    decoder, points = PointDecoder(segmenter), _points(TINY_SEGMENTER)
    expected = segmenter.decode_points(embedding, points, pred_iou_thresh=0)
    cells = prompts_per_chunk * TINY_SEGMENTER.embedding_size**2
    monkeypatch.setattr("refseg_core.models.point_decoder.decoder._CELLS_PER_CHUNK", cells)
    torch.set_num_threads(num_threads)
    _assert_same(_decode(decoder, embedding, points), expected)
    with torch.inference_mode():
        _assert_same(_decode(decoder, embedding, points), expected)


def test_without_a_threshold_all_prompts_are_decoded() -> None:
    decoder = PointDecoder(_segmenter(TINY_SEGMENTER))
    image, prompts = decoder.prepare(_embedding(TINY_SEGMENTER)), decoder.prompts(_points(TINY_SEGMENTER))
    expected = decoder.decode_points(image, prompts, pred_iou_thresh=-1)
    assert len(expected[0]) == len(prompts)
    assert all(map(torch.equal, decoder.decode_points(image, prompts, pred_iou_thresh=None), expected))


class _Waits(TorchDispatchMode):
    """Notes the operations for which a GPU would be waited for: those whose result decides a shape or a number."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        by_mask = name == "aten::index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if by_mask or name in ("aten::nonzero", "aten::_local_scalar_dense", "aten::masked_select"):
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_previews_and_masks_of_chosen_points_wait_for_no_gpu() -> None:
    decoder = PointDecoder(_segmenter(TINY_SEGMENTER))
    image, prompts = decoder.prepare(_embedding(TINY_SEGMENTER)), decoder.prompts(_points(TINY_SEGMENTER))
    with torch.no_grad(), _Waits() as waits:
        decoder.preview_points(image, prompts)
        decoder.decode_points(image, prompts, pred_iou_thresh=None)
    assert waits.seen == set()
    with torch.no_grad(), _Waits() as waits:
        decoder.decode_points(image, prompts, pred_iou_thresh=0.5)
    assert waits.seen == {"aten::nonzero"}, "or this shows nothing"


def test_no_point_may_be_good_enough() -> None:
    logits, predicted_iou = _decode(
        PointDecoder(_segmenter(TINY_SEGMENTER)), _embedding(TINY_SEGMENTER), _points(TINY_SEGMENTER), thresh=1
    )
    assert logits.shape == (0, 16, 16)
    assert predicted_iou.shape == (0,)


def test_a_prepared_image_serves_any_number_of_calls() -> None:
    segmenter, embedding = _segmenter(TINY_SEGMENTER), _embedding(TINY_SEGMENTER)
    decoder, points = PointDecoder(segmenter), _points(TINY_SEGMENTER)
    prepared = decoder.prepare(embedding)
    before = [field.clone() for field in (prepared.projected_RC, prepared.stride8_SUC, prepared.stride4_SXC)]
    prompts = decoder.prompts(points)
    logits, predicted_iou = decoder.decode_points(prepared, prompts, pred_iou_thresh=0)
    parts = [decoder.decode_points(prepared, part, pred_iou_thresh=0) for part in prompts.split(4)]
    _assert_same(
        (torch.cat([part for part, _ in parts]), torch.cat([iou for _, iou in parts])), (logits, predicted_iou)
    )
    after = (prepared.projected_RC, prepared.stride8_SUC, prepared.stride4_SXC)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_images_do_not_get_mixed_up() -> None:
    segmenter = _segmenter(TINY_SEGMENTER)
    decoder, points = PointDecoder(segmenter), _points(TINY_SEGMENTER)
    embeddings = [_embedding(TINY_SEGMENTER, seed) for seed in (0, 1)]
    prepared = [decoder.prepare(embedding) for embedding in embeddings]
    for embedding, image in zip(embeddings, prepared, strict=True):
        expected = segmenter.decode_points(embedding, points, pred_iou_thresh=0)
        _assert_same(decoder.decode_points(image, decoder.prompts(points), pred_iou_thresh=0), expected)


def test_keys_that_the_layers_almost_cancel_still_agree() -> None:
    """Where a cell's key nearly vanishes before the norm, the length is a small difference of large numbers."""
    segmenter, embedding = _segmenter(TINY_SEGMENTER), _embedding(TINY_SEGMENTER)
    faint = dataclasses.replace(embedding, stride16_BWhw=embedding.stride16_BWhw * 1e-3)
    strong = dataclasses.replace(embedding, stride16_BWhw=embedding.stride16_BWhw * 1e2)
    decoder, points = PointDecoder(segmenter), _points(TINY_SEGMENTER)
    for image in (faint, strong):
        expected_logits, expected_iou = segmenter.decode_points(image, points, pred_iou_thresh=0)
        logits, predicted_iou = _decode(decoder, image, points)
        assert_close(predicted_iou, expected_iou, atol=1e-5, rtol=0)
        assert (logits - expected_logits).abs().max() <= 1e-4 * expected_logits.abs().max()


@pytest.mark.real
@pytest.mark.slow
def test_real_weights_on_a_real_image(shared: Path) -> None:
    """Predicted IoUs are compared loosely: on this image either path is up to 7e-6 away from float64."""
    state = torch.load(shared / "weights" / "sam2_hiera_tiny.pt", weights_only=True)["model"]
    segmenter = build_segmenter(REGISTRY["sam2_hiera_tiny"].architecture, state, model="sam2_hiera_tiny")
    path = sorted((shared / "data" / "coco_tiny" / "val2017").glob("*.jpg"))[0]
    with Image.open(path) as image:
        frame = to_unit_range(resize_to_square(np.array(image.convert("RGB")), 1024))[None]
    with torch.inference_mode():
        embedding = segmenter.embed(frame)
        points = point_grid(8, 1024, _CPU)
        expected = [segmenter.decode_points(embedding, part, pred_iou_thresh=0.4) for part in points.split(2)]
        expected_logits, expected_iou = (torch.cat(parts) for parts in zip(*expected, strict=True))
        logits, predicted_iou = _decode(PointDecoder(segmenter), embedding, points, 0.4)
    assert 16 < len(expected_iou) == len(predicted_iou)
    assert_close(predicted_iou, expected_iou, atol=3e-5, rtol=0)
    scale = expected_logits.abs().amax(dim=(1, 2), keepdim=True)
    assert ((logits - expected_logits).abs() <= 1e-5 * scale).all()
    flipped = (logits > 0) != (expected_logits > 0)
    assert (expected_logits.abs() * flipped <= 1e-5 * scale).all()


@pytest.mark.parametrize("architecture", _ARCHITECTURES)
def test_previews_are_every_fourth_pixel_of_the_masks(architecture: SegmenterArchitecture) -> None:
    segmenter = _segmenter(architecture)
    decoder = PointDecoder(segmenter)
    image, prompts = decoder.prepare(_embedding(architecture)), decoder.prompts(_points(architecture))
    logits, predicted_iou = decoder.decode_points(image, prompts, pred_iou_thresh=-1)
    small, same_iou = decoder.preview_points(image, prompts)
    assert_close(same_iou, predicted_iou)
    assert_close(small, logits[:, 1::4, 1::4], atol=1e-5 * float(logits.abs().max()))


@pytest.mark.parametrize("architecture", _ARCHITECTURES)
def test_no_points_have_no_masks_and_no_previews(architecture: SegmenterArchitecture) -> None:
    decoder = PointDecoder(_segmenter(architecture))
    image, nothing = decoder.prepare(_embedding(architecture)), decoder.prompts(torch.zeros(0, 2))
    logits, predicted_iou = decoder.decode_points(image, nothing, pred_iou_thresh=0)
    assert logits.shape == (0, architecture.logits_size, architecture.logits_size)
    assert decoder.decode_points(image, nothing, pred_iou_thresh=None)[0].shape == logits.shape
    small, same = decoder.preview_points(image, nothing)
    assert small.shape == (0, architecture.embedding_size, architecture.embedding_size)
    assert len(predicted_iou) == len(same) == 0
    every, ious = decoder.decode_all_masks(image, nothing, pred_iou_thresh=0)
    boxed, of_boxes = decoder.decode_boxes(_embedding(architecture), torch.zeros(0, 4))
    assert every.shape == boxed.shape == logits.shape
    assert len(ious) == len(of_boxes) == 0


def _every_mask(segmenter: SAM2, embedding: ImageEmbedding, points: Tensor) -> tuple[Tensor, Tensor]:
    """SAM2's own three masks of each point: logits [N, 3, G, G] and predicted IoU [N, 3]."""
    logits, predicted_iou = segmenter._decode(embedding, points[:, None], torch.ones(len(points), 1))
    return logits[:, 1:], predicted_iou[:, 1:]


def _between(values: Tensor, rank: int) -> float:
    """A threshold that this many of the values do not exceed, well between two that differ."""
    ordered = values.double().flatten().sort().values
    gaps = ordered[1:] - ordered[:-1]
    rank += int(gaps[rank - 1 :].gt(4e-6).nonzero()[0, 0])
    return float((ordered[rank - 1] + ordered[rank]) / 2)


@pytest.mark.parametrize("architecture", _ARCHITECTURES)
@pytest.mark.parametrize("seed", [0, 1])
def test_all_masks_are_the_three_of_each_point_above_the_threshold(
    architecture: SegmenterArchitecture, seed: int
) -> None:
    segmenter, embedding = _segmenter(architecture, seed), _embedding(architecture, seed)
    decoder, points = PointDecoder(segmenter), _points(architecture)
    every_logits, every_iou = _every_mask(segmenter, embedding, points)
    image, prompts = decoder.prepare(embedding), decoder.prompts(points)
    everything = decoder.decode_all_masks(image, prompts, pred_iou_thresh=-1)
    _assert_same(everything, (every_logits.flatten(0, 1), every_iou.flatten()))
    thresh = _between(every_iou, 40)
    is_good = every_iou > thresh
    per_point = is_good.sum(dim=1)
    assert len(set(per_point.tolist())) > 1, "points should keep different numbers of masks, or this shows little"
    chosen = decoder.decode_all_masks(image, prompts, pred_iou_thresh=thresh)
    _assert_same(chosen, (every_logits[is_good], every_iou[is_good]))
    assert len(decoder.decode_all_masks(image, prompts, pred_iou_thresh=1)[0]) == 0


@pytest.mark.parametrize("prompts_per_chunk", [1, 3])
def test_chunks_leave_all_masks_and_boxes_in_order(prompts_per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, embedding = _segmenter(TINY_SEGMENTER), _embedding(TINY_SEGMENTER)
    decoder, points = PointDecoder(segmenter), _points(TINY_SEGMENTER, per_side=3)
    every_logits, every_iou = _every_mask(segmenter, embedding, points)
    cells = prompts_per_chunk * TINY_SEGMENTER.embedding_size**2
    monkeypatch.setattr("refseg_core.models.point_decoder.decoder._CELLS_PER_CHUNK", cells)
    image, prompts = decoder.prepare(embedding), decoder.prompts(points)
    everything = decoder.decode_all_masks(image, prompts, pred_iou_thresh=-1)
    _assert_same(everything, (every_logits.flatten(0, 1), every_iou.flatten()))
    boxes = _boxes(TINY_SEGMENTER, seed=1)
    _assert_same(decoder.decode_boxes(embedding, boxes), segmenter.decode_boxes(embedding, boxes))


def _boxes(architecture: SegmenterArchitecture, seed: int, number: int = 7) -> Tensor:
    """Of all sizes, the last the whole frame."""
    corners = random_tensor(number, 2, 2, seed=seed).sort(dim=1).values.flatten(1)
    return torch.cat((corners, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))) * architecture.image_size


@pytest.mark.parametrize("architecture", _ARCHITECTURES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masks_of_boxes_equal_the_segmenters(architecture: SegmenterArchitecture, seed: int) -> None:
    segmenter, embedding = _segmenter(architecture, seed), _embedding(architecture, seed)
    boxes = _boxes(architecture, seed)
    expected = segmenter.decode_boxes(embedding, boxes)
    assert expected[0].std(dim=0).max() > 0.01, "boxes should give different masks, or this shows little"
    _assert_same(PointDecoder(segmenter).decode_boxes(embedding, boxes), expected)
