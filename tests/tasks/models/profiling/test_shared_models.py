"""Models that several labelers share for an image: their labels are those of the models themselves, for less work."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.sam2 import SAM2
from refseg_core.settings import LabelingSettings
from refseg_core.tables import Prototypes
from tasks.models.profiling.inputs import random_prototypes
from tasks.models.profiling.shared_models import SharedModels
from tests.support.closeness import assert_close
from tests.support.models import TINY_ENCODER, TINY_SEGMENTER, tiny_encoder, tiny_segmenter
from tests.support.projects.project import scene

_VARIANTS = {
    "exact": LabelingSettings(method="published", points_per_side=5, pred_iou_thresh=0.48),
    "guided": LabelingSettings(path="guided", points_per_side=5, pred_iou_thresh=0.48, guidance_thresh=0.9),
    "unguided": LabelingSettings(path="guided", points_per_side=5, pred_iou_thresh=0.48, guidance_thresh=None),
    "finer": LabelingSettings(method="published", points_per_side=7, pred_iou_thresh=0.45),
    "fast": LabelingSettings(path="fast", points_per_side=5, pred_iou_thresh=0.48),
    "plain": LabelingSettings(path="plain", points_per_side=4, pred_iou_thresh=0.48),
    "nothing passes": LabelingSettings(method="published", points_per_side=5, pred_iou_thresh=1.0),
}


def _prototypes(first_patch: int) -> Prototypes:
    """Three patches of an image."""
    frame = to_unit_range(resize_to_square(scene(0), TINY_SEGMENTER.image_size))
    features_PC = F.normalize(tiny_encoder()(frame[None])[0], dim=1)
    vectors = features_PC[[first_patch, first_patch + 8, first_patch + 16]].numpy()
    return random_prototypes(3, TINY_ENCODER.embed_dim).replace(prototype=vectors)


class _Counted:
    """Counts the images that models embed and encode, and the prompts that they decode."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, segmenter: SAM2, encoder: DINOv2) -> None:
        self.of = Counter[str]()
        decoder = segmenter.point_decoder()
        for model, name in ((segmenter, "embed"), (encoder, "forward"), (decoder, "decode_points")):
            monkeypatch.setattr(model, name, self._counting(name, getattr(model, name)))
        monkeypatch.setattr(segmenter, "point_decoder", lambda **_: decoder)

    def _counting(self, name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.of[name] += len(arguments[-1])
            return function(*arguments, **options)

        return call


@pytest.mark.slow
def test_labels_are_those_of_the_models_themselves_for_every_variant_and_prototype() -> None:
    segmenter, encoder = tiny_segmenter(), tiny_encoder()
    models = SharedModels(segmenter, encoder)
    setups = [(settings, _prototypes(seed)) for settings in _VARIANTS.values() for seed in (1, 2)]
    alone = [BatchLabeler(segmenter, encoder, prototypes, settings) for settings, prototypes in setups]
    shared = [BatchLabeler(models.segmenter, models.encoder, prototypes, settings) for settings, prototypes in setups]
    num_found, prompts = 0, set[int]()
    for seed in range(2):
        image = scene(seed)
        models.next_image()
        for own, others in zip(alone, shared, strict=True):
            expected, found = own.label(image, image_id="1"), others.label(image, image_id="1")
            num_masks = sum(map(len, models.take_masks()))
            assert num_masks == found.num_proposals or (own.settings.path == "fast" and num_masks < found.num_proposals)
            num_found += len(expected.detections)
            for name in ("num_proposals", "num_prompts", "max_similarity"):
                assert getattr(found, name) == getattr(expected, name)
            prompts.add(found.num_prompts)
            for column in ("category_id", "box_xyxy", "mask_rle"):
                values = (getattr(labels.detections, column) for labels in (found, expected))
                np.testing.assert_array_equal(*values)
            for column in ("score", "predicted_iou"):
                values = (getattr(labels.detections, column) for labels in (found, expected))
                np.testing.assert_allclose(*values, atol=1e-6)
    assert num_found > 20
    assert {16, 25, 49} < prompts  # and those of guided images


def test_an_image_is_embedded_and_encoded_once_and_its_prompts_are_decoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter, encoder = tiny_segmenter(), tiny_encoder()
    counted = _Counted(monkeypatch, segmenter, encoder)
    models = SharedModels(segmenter, encoder)
    labelers = [
        BatchLabeler(models.segmenter, models.encoder, _prototypes(seed), _VARIANTS[name])
        for name in ("guided", "exact", "unguided")
        for seed in (1, 2)
    ]
    for number, seed in enumerate((5, 6), start=1):
        models.next_image()
        for labeler in labelers:
            labeler.label(scene(seed), image_id="1")
        assert counted.of == {"embed": number, "forward": number, "decode_points": 25 * number}


def test_crops_are_encoded_once_each_too(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, encoder = tiny_segmenter(), tiny_encoder()
    counted = _Counted(monkeypatch, segmenter, encoder)
    models = SharedModels(segmenter, encoder)
    image, *crops = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    small = crops[0][:, :32, :32]
    for number in (1, 2):
        with torch.inference_mode():
            models.encoder(image[None])
            models.encoder(torch.stack(crops[:3]))
            found = models.encoder(torch.stack([crops[4], crops[1], image]))
            of_small = models.encoder(small[None])
            assert_close(found, encoder(torch.stack([crops[4], crops[1], image])))
            assert_close(of_small, encoder(small[None]))
        assert counted.of["forward"] == (6 + 4) * number
        models.next_image()


def test_another_image_before_the_next_one_is_embedded_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, encoder = tiny_segmenter(), tiny_encoder()
    counted = _Counted(monkeypatch, segmenter, encoder)
    models = SharedModels(segmenter, encoder)
    image, other = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    with torch.inference_mode():
        first, of_other, again, _ = (models.segmenter.embed(one) for one in (image, other, image, other))
    assert again is first
    assert counted.of["embed"] == 3
    assert not torch.equal(first.stride16_BWhw, of_other.stride16_BWhw)


def test_options_of_decoding_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder whose prompts have several masks each, if asked so."""
    segmenter = tiny_segmenter()
    plain = segmenter.point_decoder()

    class Several:
        def decode_points(
            self, image: Any, prompts: Tensor, *, pred_iou_thresh: float | None, num: int = 1
        ) -> tuple[Tensor, Tensor]:
            logits, iou = plain.decode_points(image, prompts, pred_iou_thresh=pred_iou_thresh)
            return logits.repeat_interleave(num, dim=0), iou.repeat_interleave(num, dim=0)

        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

    monkeypatch.setattr(segmenter, "point_decoder", lambda **_: Several())
    decoder: Any = SharedModels(segmenter, tiny_encoder()).segmenter.point_decoder()
    numbers = decoder.prompts(torch.tensor([[10.0, 20.0], [30.0, 40.0], [50.0, 5.0]]))
    with torch.inference_mode():
        image = decoder.prepare(segmenter.embed(torch.zeros(1, 3, 64, 64)))
        one, _ = decoder.decode_points(image, numbers, pred_iou_thresh=None)
        two, iou = decoder.decode_points(image, numbers[[2, 0]], pred_iou_thresh=None, num=2)
    assert (len(one), len(two), len(iou)) == (3, 4, 4)
    for row, of in enumerate((2, 2, 0, 0)):
        assert_close(two[row], one[of])


def test_the_path_plain_shares_too(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, encoder = tiny_segmenter(), tiny_encoder()
    num_decoded = 0
    decode = segmenter.decode_points

    def counting(embedding: Any, points: Tensor, **options: Any) -> Any:
        nonlocal num_decoded
        num_decoded += len(points)
        return decode(embedding, points, **options)

    monkeypatch.setattr(segmenter, "decode_points", counting)
    models = SharedModels(segmenter, encoder)
    for seed in (1, 2):
        labeler = BatchLabeler(models.segmenter, models.encoder, _prototypes(seed), _VARIANTS["plain"])
        labeler.label(scene(1), image_id="1")
    assert num_decoded == 16
