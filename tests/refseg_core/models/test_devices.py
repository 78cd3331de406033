"""Everything that the models compute lies where they do. Played on torch's device "meta", whose fake tensors refuse
operands of two devices as a GPU refuses them; they hold no numbers, so what depends on numbers is not covered.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from refseg_core.labeling.matching import Matches, match, match_plainly
from refseg_core.labeling.proposals import point_grid
from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.boxes import mask_boxes
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.point_decoder import PointDecoder
from refseg_core.models.sam2 import SAM2
from tests.support.models import tiny_encoder, tiny_segmenter

_ELSEWHERE = torch.device("meta")
_SIZE = 64  # of the tiny models' frames


@pytest.fixture(autouse=True)
def fake() -> Iterator[FakeTensorMode]:
    """Tensors are fake, but for those of models when they are built."""
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


@pytest.fixture
def segmenter(fake: FakeTensorMode) -> SAM2:
    with unset_fake_temporarily():
        built = tiny_segmenter()
    return built.to_empty(device=_ELSEWHERE)


@pytest.fixture
def encoder(fake: FakeTensorMode) -> DINOv2:
    with unset_fake_temporarily():
        built = tiny_encoder()
    return built.to_empty(device=_ELSEWHERE)


def _frames() -> Tensor:
    return torch.empty(2, 3, _SIZE, _SIZE, device=_ELSEWHERE)


def test_operands_of_two_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.add(torch.empty(3, device=_ELSEWHERE), torch.empty(3))


def test_embeddings_and_features_lie_where_the_models_do(segmenter: SAM2, encoder: DINOv2) -> None:
    embedding = segmenter.embed(_frames())
    for features in (embedding.stride16_BWhw, embedding.stride8_Bchw, embedding.stride4_Bchw, encoder(_frames())):
        assert features.device == _ELSEWHERE
        assert len(features) == 2


def test_boxes_become_masks_there(segmenter: SAM2) -> None:
    logits, predicted_iou = segmenter.decode_boxes(segmenter.embed(_frames())[0], torch.empty(3, 4, device=_ELSEWHERE))
    assert logits.device == predicted_iou.device == _ELSEWHERE
    assert logits.shape == (3, _SIZE // 4, _SIZE // 4)


def test_points_become_previews_and_masks_there(segmenter: SAM2) -> None:
    decoder = PointDecoder(segmenter)
    image = decoder.prepare(segmenter.embed(_frames())[0])
    prompts = decoder.prompts(point_grid(4, _SIZE, segmenter.device))
    decode_points = partial(decoder.decode_points, pred_iou_thresh=None)
    for decode, side in ((decoder.preview_points, _SIZE // 16), (decode_points, _SIZE // 4)):
        logits, predicted_iou = decode(image, prompts)
        assert logits.device == predicted_iou.device == _ELSEWHERE
        assert logits.shape == (16, side, side)


@pytest.mark.parametrize("matching", [match, match_plainly])
def test_masks_are_matched_there(encoder: DINOv2, matching: Callable[[Tensor, Tensor, Tensor], Matches]) -> None:
    features = encoder(_frames())[0]
    masks = torch.empty(5, 16, 16, dtype=torch.bool, device=_ELSEWHERE)
    matches = matching(masks, features, torch.empty(3, features.shape[-1], device=_ELSEWHERE))
    for found in (matches.class_index_N, matches.similarity_N, matches.descriptor_NC, mask_boxes(masks)):
        assert found.device == _ELSEWHERE
        assert len(found) == 5


def test_masks_are_packed_and_compared_there() -> None:
    packed = PackedMasks.of(torch.empty(5, 30, 41, dtype=torch.bool, device=_ELSEWHERE))
    assert packed.areas().device == packed.shared_areas().device == _ELSEWHERE
    assert packed.shared_areas().shape == (5, 5)
