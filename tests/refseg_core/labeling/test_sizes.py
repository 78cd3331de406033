"""Nothing outside the limits of its category is a label, small islands and holes are gone, and off changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling import image_labels
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.composing.choosing import match_and_merge
from refseg_core.labeling.guidance import Guide
from refseg_core.labeling.image_labels import Finish, FoundInstances, ImageLabels
from refseg_core.labeling.merging import Merged
from refseg_core.labeling.proposal_source import PromptCounts
from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.masks.cleanup import clean_masks
from refseg_core.masks.rle import mask_areas, rle_boxes
from refseg_core.settings import LabelingSettings
from refseg_core.settings.areas import AreaLimits
from refseg_core.tables import Prototypes
from tests.refseg_core.labeling.test_batch_labeler import MANY, _features, _proposals
from tests.support.models import TINY_ENCODER, random_tensor, tiny_encoder, tiny_segmenter

_SIZE = (90, 123)
_PIXELS = _SIZE[0] * _SIZE[1]
_IMAGE = np.random.default_rng(0).integers(0, 256, (*_SIZE, 3), dtype=np.uint8)
_METHODS = [{"method": "published", "path": "exact"}, {"method": "accurate", "path": "guided"}]


def _merge(seed: int, limits: AreaLimits | None, **changes: Any) -> tuple[Merged, Tensor, Tensor]:
    proposals, (features, prototypes) = _proposals(seed, 16), _features(seed, 3)
    chosen = MANY.model_copy(update=changes)
    merged, classes = match_and_merge(proposals, features, prototypes, size=(20, 31), settings=chosen, limits=limits)
    return merged, classes, (proposals.logits_NGG > 0).flatten(1).double().mean(dim=1)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 3), low=st.floats(0, 0.5), high=st.floats(0.2, 1))
def test_masks_of_a_wrong_size_are_left_out(seed: int, low: float, high: float) -> None:
    least, most = f"{100 * low:.6f}%", f"1={100 * high:.6f}%"
    merged, classes, shares = _merge(seed, AreaLimits.of(least, most, ["0", "1", "2"]))
    share_n = shares[merged.row_n]
    assert (share_n >= low - 1e-6).all()
    assert (share_n[classes == 1] <= high + 1e-6).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 3))
def test_limits_that_leave_nothing_out_change_nothing(seed: int) -> None:
    (ours, classes, _), (theirs, same, _) = _merge(seed, None), _merge(seed, AreaLimits.of("0", "100%", list("012")))
    assert torch.equal(ours.row_n, theirs.row_n)
    assert torch.equal(ours.score_n, theirs.score_n)
    assert torch.equal(classes, same)


def _labeled(**changes: Any) -> ImageLabels:
    vectors = torch.nn.functional.normalize(random_tensor(3, TINY_ENCODER.embed_dim, seed=1) - 0.5, dim=1)
    prototypes = Prototypes(
        category_id=np.array([4, 9, 2]), num_references=np.ones(3, np.int32), prototype=vectors.numpy()
    )
    options = {"points_per_side": 4, "pred_iou_thresh": 0, "box_nms_thresh": 1} | changes
    labeler = BatchLabeler(tiny_segmenter(), tiny_encoder(), prototypes, LabelingSettings.model_validate(options))
    if not options.get("keep_proposals"):
        return labeler.label(_IMAGE, image_id="a")
    return labeler.find_kept(None, lambda: labeler.to_frame(_IMAGE))[0].labels("a")


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("parts", _METHODS)
def test_labels_are_within_the_limits_of_their_categories(parts: dict[str, str], keeps: bool) -> None:
    options = {"keep_proposals": keeps, "min_island": 9, "min_hole": 5, **parts}
    everything = _labeled(**options).detections
    areas = np.sort(mask_areas(everything.mask_rle.tolist()))
    low, high = int(areas[len(areas) // 4]), int(areas[-len(areas) // 4])
    found = _labeled(area={"min": low, "max": f"9={100 * high / _PIXELS}%"}, **options).detections
    area_n = mask_areas(found.mask_rle.tolist())
    assert 0 < len(found) < len(everything)
    assert (area_n >= low).all()
    assert (area_n[found.category_id == 9] <= high).all()


@pytest.mark.parametrize("parts", _METHODS)
def test_small_islands_and_holes_go_and_boxes_follow(parts: dict[str, str]) -> None:
    before, after = _labeled(**parts).detections, _labeled(min_island=30, min_hole=20, **parts).detections
    cleaned = clean_masks(before.mask_rle.tolist(), min_island=30, min_hole=20)
    assert after.mask_rle.tolist() == cleaned
    assert after.mask_rle.tolist() != before.mask_rle.tolist()
    assert np.array_equal(after.box_xyxy, rle_boxes(cleaned))
    assert after.score.tolist() == before.score.tolist()


@pytest.mark.parametrize("parts", _METHODS)
def test_off_changes_nothing(parts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = _labeled(**parts)
    for name in ("clean_masks", "mask_areas"):
        monkeypatch.setattr(image_labels, name, lambda *_, **__: pytest.fail("it is off"))
    off = _labeled(area={"margin": 9}, min_island=1, min_hole=0, **parts)
    assert off.detections.equals(usual.detections)
    assert not Finish(1, 1).is_cleaning


def test_undecided_limits_are_refused_before_models_work() -> None:
    with pytest.raises(ConfigurationError, match="'auto' needs references"):
        _labeled(area={"min": "auto"})
    with pytest.raises(ConfigurationError, match="'boat': no such category"):
        _labeled(area={"min": "boat=3"})


@pytest.mark.parametrize(("finish", "rows"), [(Finish(), [0, 1, 2, 3]), (Finish(is_refined=True), [0, 1, 3])])
def test_masks_that_became_the_same_are_one_label_of_a_category(finish: Finish, rows: list[int]) -> None:
    masks = torch.zeros((4, 8, 9), dtype=torch.bool)
    masks[:3, 2:5, 3:6] = True
    masks[3, :2] = True
    found = FoundInstances(
        PackedMasks.of(masks),
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        np.array([4, 9, 4, 4]),
        torch.tensor([0.9, 0.9, 0.8, 0.8]),
        num_proposals=4,
        prompts=PromptCounts(4, 4, 0, 4),
        guide=Guide(torch.arange(4), torch.zeros(2), torch.arange(0)),
        known_id_K=np.array([4, 9]),
        finish=finish,
    )
    assert found.labels("a").detections.score.tolist() == pytest.approx([[0.9, 0.8, 0.7, 0.6][row] for row in rows])
