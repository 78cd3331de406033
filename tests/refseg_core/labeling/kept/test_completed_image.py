"""What is found by what is kept of an image is what models find, to the last bit, and they are asked only the rest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.composing.answering import Answering
from refseg_core.labeling.image_labels import FoundInstances, ImageFrame
from refseg_core.labeling.kept.kept_image import KeptImage
from refseg_core.labeling.kept.kept_table import from_row, to_row
from refseg_core.settings import LabelingSettings
from refseg_core.tables import Prototypes
from tests.support.models import TINY_ENCODER, random_tensor, tiny_encoder, tiny_segmenter

_IMAGE = np.random.default_rng(0).integers(0, 256, (90, 123, 3), dtype=np.uint8)
_GRID = {"points_per_side": 6, "pred_iou_thresh": 0.0, "box_nms_thresh": 0.9, "keep_proposals": True}
_SETTINGS = {
    "published": LabelingSettings(method="published", path="exact", **_GRID),
    "guided": LabelingSettings(method="published", path="guided", guidance_thresh=0.1, **_GRID),
    "accurate": LabelingSettings(method="accurate", path="guided", guidance_thresh=0.1, **_GRID),
    "few looks": LabelingSettings(
        path="guided", guidance_thresh=0.05, max_second_looks=3, max_refined_masks=2, **_GRID
    ),
}
_REFERENCES = ((3, 1), (2, 5), (6, 9))  # numbers of categories, and seeds of their prototypes


def _prototypes(number: int, seed: int) -> Prototypes:
    vectors = torch.nn.functional.normalize(random_tensor(number, TINY_ENCODER.embed_dim, seed=seed) - 0.5, dim=1)
    return Prototypes(
        category_id=np.arange(number), num_references=np.ones(number, np.int32), prototype=vectors.numpy()
    )


def _labeler(settings: LabelingSettings, references: tuple[int, int]) -> BatchLabeler:
    return BatchLabeler(tiny_segmenter(), tiny_encoder(), _prototypes(*references), settings)


def _open(labeler: BatchLabeler) -> Callable[[], ImageFrame]:
    return lambda: labeler.to_frame(_IMAGE)


def _refuse() -> ImageFrame:
    raise AssertionError("the image was opened")


def _assert_equal(one: FoundInstances, other: FoundInstances) -> None:
    assert torch.equal(one.masks.columns_NWB, other.masks.columns_NWB)
    for ours, theirs in zip(one.labels("a")[:-1], other.labels("a")[:-1], strict=True):
        assert ours.equals(theirs) if hasattr(ours, "equals") else ours == theirs
    assert one.prompts == other.prompts


def _stored(kept: KeptImage) -> KeptImage:
    return from_row(to_row(kept))


@pytest.mark.parametrize("settings", _SETTINGS.values(), ids=_SETTINGS)
@pytest.mark.slow
def test_other_references_find_by_what_is_kept_what_they_find_from_nothing(settings: LabelingSettings) -> None:
    kept: KeptImage | None = None
    for references in _REFERENCES:
        labeler = _labeler(settings, references)
        expected, all_of_it = labeler.find_kept(None, _open(labeler))
        assert all_of_it is not None
        found, added = labeler.find_kept(kept, _open(labeler))
        assert len(found.score_n) > 0
        _assert_equal(found, expected)
        if added is not None:
            kept = _stored(added) if kept is None else kept.plus(_stored(added))
        found, added = labeler.find_kept(kept, _refuse)
        assert added is None
        _assert_equal(found, expected)


@pytest.mark.parametrize("settings", _SETTINGS.values(), ids=_SETTINGS)
def test_keeping_changes_no_label(settings: LabelingSettings) -> None:
    """But for the last bits of scores, which depend on how many masks are described together."""
    kept, plain = (_labeler(settings.model_copy(update={"keep_proposals": keeps}), (3, 1)) for keeps in (True, False))
    found, _ = kept.find_kept(None, _open(kept))
    (expected,) = plain.find([plain.to_frame(_IMAGE)])
    ours, theirs = found.labels("a"), expected.labels("a")
    assert ours.detections.mask_rle.tolist() == theirs.detections.mask_rle.tolist()
    assert ours.detections.category_id.tolist() == theirs.detections.category_id.tolist()
    np.testing.assert_allclose(ours.detections.score, theirs.detections.score, atol=1e-6)
    assert (ours.num_proposals, ours.num_prompts) == (theirs.num_proposals, theirs.num_prompts)


def test_only_points_that_were_not_asked_yet_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _SETTINGS["accurate"]
    first = _labeler(settings, (1, 1))
    _, kept = first.find_kept(None, _open(first))
    second = _labeler(settings, (1, 5))
    asked: list[int] = []

    def note(answering: Answering, prepared: Any, point_n: Tensor) -> Any:
        asked.extend(point_n.tolist())
        return decode(answering, prepared, point_n)

    decode = Answering._decode_all
    monkeypatch.setattr(Answering, "_decode_all", note)
    _, added = second.find_kept(kept, _open(second))
    assert kept is not None
    assert added is not None
    assert len(kept.asked_n) > 0
    assert not set(asked) & set(kept.asked_n.tolist())
    assert set(asked) == set(added.asked_n.tolist()) > set()
    assert len(added.features_PC) == 0


def test_the_same_references_need_neither_image_nor_models(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _SETTINGS["accurate"]
    labeler = _labeler(settings, (3, 1))
    expected, kept = labeler.find_kept(None, _open(labeler))

    class _Untouched:
        def __init__(self, model: Any) -> None:
            self.architecture, self.device = model.architecture, model.device

    without: Any = [_Untouched(model) for model in (tiny_segmenter(), tiny_encoder())]
    found, added = BatchLabeler(*without, _prototypes(3, 1), settings).find_kept(kept, _refuse)
    assert added is None
    _assert_equal(found, expected)


@pytest.mark.slow
def test_what_two_runs_kept_of_one_image_goes_together() -> None:
    settings = _SETTINGS["accurate"]
    parts = []
    for references in _REFERENCES:
        labeler = _labeler(settings, references)
        parts.append(labeler.find_kept(None, _open(labeler))[1])
    one, other, third = parts
    assert one is not None
    assert other is not None
    assert third is not None
    together = one.plus(other).plus(third)
    for keys in (together.asked_n, together.masks.key_N, together.looks.key_n, together.refined.key_n):
        assert len(keys.unique()) == len(keys) > 0
    for references in _REFERENCES:
        labeler = _labeler(settings, references)
        found, added = labeler.find_kept(together, _refuse)
        assert added is None
        _assert_equal(found, labeler.find_kept(None, _open(labeler))[0])
