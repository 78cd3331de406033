"""A labeled image: everything after the decoder against the slow oracle, and what holds for any image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling.batch_labeler import BatchLabeler, match_and_merge
from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.image_labels import PromptCounts
from refseg_core.labeling.merging import Merged
from refseg_core.labeling.proposal_source import Proposals, Proposed
from refseg_core.labeling.proposals import point_grid, propose
from refseg_core.masks.rle import boxes_of_masks, decode_masks, mask_ious
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import ImageEmbedding
from refseg_core.models.sam2 import SAM2
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.tables import Detections, Prototypes
from tests.support.closeness import assert_close
from tests.support.models import TINY_ENCODER, tiny_encoder, tiny_segmenter
from tests.support.oracles import original

_SIDE, _GRID, _CHANNELS = 14, 4, 5
_CERTAIN = 1e-5  # scores and thresholds this close are not distinguished in float32
EVERYTHING = LabelingSettings(points_per_side=4, pred_iou_thresh=0)
MANY = EVERYTHING.model_copy(update={"box_nms_thresh": 1.0})


def _proposals(seed: int, num_masks: int) -> Proposals:
    """Smooth blobs, with an empty mask, a single pixel, a full one, a duplicate, and few distinct predicted IoUs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num_masks, 1, 6, 6, generator=generator) - 0.5
    logits = F.interpolate(coarse, size=_SIDE, mode="bicubic")[:, 0]
    predicted_iou = torch.randint(3, 8, (num_masks,), generator=generator) / 8
    if num_masks > 4:
        logits[0] = -logits[0].abs() - 0.1
        logits[1] = -logits[1].abs() - 0.1
        logits[1, seed % _SIDE, 3] = 2.0
        logits[2] = logits[2].abs() + 0.1
        logits[4] = logits[3]
    return Proposals(logits, predicted_iou)


def _features(seed: int, num_classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    features = torch.randn(_GRID**2, _CHANNELS, generator=generator)
    return features, F.normalize(torch.randn(num_classes, _CHANNELS, generator=generator), dim=1)


def _assert_agree(merged: Merged, class_index: Tensor, expected: list[original.Instance], max_detections: int) -> None:
    """Rows, classes and masks equal; scores by their squares, since a nearly full overlap is lost in rounding."""
    by_row = {instance.row: instance for instance in expected}
    rows = merged.row_n.tolist()
    assert len(rows) == len(set(rows)) <= max_detections
    for row, index, score, mask in zip(rows, class_index, merged.score_n, merged.masks.unpack(), strict=True):
        assert int(index) == by_row[row].class_index
        assert float(score) ** 2 == pytest.approx(by_row[row].score ** 2, abs=3e-6)
        np.testing.assert_array_equal(mask.numpy(), by_row[row].mask)
    scores = merged.score_n.tolist()
    assert scores == sorted(scores, reverse=True)
    worst = scores[-1] if len(scores) == max_detections else 0.0
    left_out = [instance.score**2 for instance in expected if instance.row not in rows]
    assert max(left_out, default=0.0) <= worst**2 + 3e-6


def _label(
    proposals: Proposals, features: Tensor, prototypes: Tensor, size: tuple[int, int], settings: LabelingSettings
) -> tuple[Merged, Tensor, original.Labels]:
    merged, class_index = match_and_merge(proposals, features, prototypes, size=size, settings=settings)
    expected = original.label(
        proposals.logits_NGG.double().numpy(),
        proposals.predicted_iou_N.double().numpy(),
        features.double().numpy(),
        prototypes.double().numpy(),
        size=size,
        box_nms_thresh=settings.box_nms_thresh,
        num_candidates=settings.candidates_per_detection * settings.max_detections,
    )
    return merged, class_index, expected


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 3),
    num_masks=st.integers(1, 16),
    num_classes=st.sampled_from((1, 2, 3, 50)),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    thresholds=st.builds(
        LabelingSettings,
        box_nms_thresh=st.sampled_from((0.25, 0.5, 1.0)),
        max_detections=st.sampled_from((1, 2, 100)),
    ),
)
def test_labels_agree_with_the_oracle(
    seed: int,
    num_masks: int,
    num_classes: int,
    size: tuple[int, int],
    thresholds: LabelingSettings,
) -> None:
    proposals = _proposals(seed, num_masks)
    features, prototypes = _features(seed, num_classes)
    merged, class_index, expected = _label(proposals, features, prototypes, size, thresholds)
    assume(expected.margin > _CERTAIN / 10)
    _assert_agree(merged, class_index, expected.instances, thresholds.max_detections)


@pytest.mark.parametrize("size", [(20, 31), (9, 33), (5, 6)])
def test_more_masks_than_candidates(size: tuple[int, int]) -> None:
    proposals, (features, prototypes) = _proposals(11, 60), _features(11, 3)
    few = LabelingSettings(max_detections=3, candidates_per_detection=4, box_nms_thresh=1.0)
    merged, class_index, expected = _label(proposals, features, prototypes, size, few)
    assert expected.margin > _CERTAIN / 10
    assert len(merged.row_n) == 3
    _assert_agree(merged, class_index, expected.instances, 3)
    most = few.model_copy(update={"candidates_per_detection": 100})
    assert match_and_merge(proposals, features, prototypes, size=size, settings=most)[0].row_n.tolist() != (
        merged.row_n.tolist()
    )


def test_the_order_is_the_oracles_where_scores_differ() -> None:
    proposals, (features, prototypes) = _proposals(5, 30), _features(5, 4)
    merged, _, expected = _label(proposals, features, prototypes, (17, 23), LabelingSettings(box_nms_thresh=1.0))
    scores = np.array([instance.score for instance in expected.instances])
    certain = int(np.argmax(np.append(-np.diff(scores), 0) < _CERTAIN))
    assert certain > 10
    assert merged.row_n[:certain].tolist() == [instance.row for instance in expected.instances[:certain]]
    np.testing.assert_allclose(merged.score_n[:certain].numpy(), scores[:certain], atol=1e-6, rtol=0)


def test_images_that_resemble_no_reference_get_no_instances() -> None:
    features, prototypes = torch.ones(16, 2), torch.tensor([[-1.0, 0.0]])
    merged, class_index = match_and_merge(
        Proposals(torch.ones(3, 8, 8), torch.tensor([0.5, 0.6, 0.7])),
        features,
        prototypes,
        size=(5, 6),
        settings=LabelingSettings(),
    )
    assert len(merged.row_n) == len(class_index) == 0
    assert merged.masks.unpack().shape == (0, 5, 6)


def test_permuting_the_classes_only_renames_them() -> None:
    proposals, (features, prototypes) = _proposals(40, 30), _features(40, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    options = LabelingSettings(box_nms_thresh=1.0)
    before, classes = match_and_merge(proposals, features, prototypes, size=(20, 20), settings=options)
    after, renamed = match_and_merge(proposals, features, prototypes[order], size=(20, 20), settings=options)
    assert before.row_n.tolist() == after.row_n.tolist()
    assert classes.tolist() == order[renamed].tolist()
    assert len(set(classes.tolist())) == 5
    assert_close(before.score_n, after.score_n, atol=1e-6, rtol=0)


def test_a_class_that_nothing_resembles_changes_nothing() -> None:
    proposals, (features, prototypes) = _proposals(8, 30), _features(8, 2)
    features, prototypes = features.abs(), prototypes.abs()
    unlike = torch.cat((prototypes, -torch.ones(1, _CHANNELS) / _CHANNELS**0.5))
    options = LabelingSettings(box_nms_thresh=1.0)
    before, classes = match_and_merge(proposals, features, prototypes, size=(20, 20), settings=options)
    after, same = match_and_merge(proposals, features, unlike, size=(20, 20), settings=options)
    assert len(before.row_n) > 3
    assert before.row_n.tolist() == after.row_n.tolist()
    assert classes.tolist() == same.tolist()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 3), num_classes=st.integers(1, 4))
def test_scores_never_exceed_the_similarity_and_the_first_of_a_class_keeps_it(seed: int, num_classes: int) -> None:
    proposals, (features, prototypes) = _proposals(seed, 12), _features(seed, num_classes)
    options = LabelingSettings(box_nms_thresh=1.0)
    merged, classes = match_and_merge(proposals, features, prototypes, size=(16, 16), settings=options)
    assume(len(merged.row_n) > 0)
    descriptors = original.describe((proposals.logits_NGG > 0).numpy(), features.double().numpy())
    similarity = (descriptors @ prototypes.double().numpy().T).max(axis=1)
    assert (merged.score_n.numpy() <= similarity[merged.row_n] + 1e-6).all()
    assert (merged.score_n > 0).all()
    for index in set(classes.tolist()):
        rows = merged.row_n[classes == index]
        # Of equal predicted IoUs the one proposed first comes first.
        first = max(rows.tolist(), key=lambda row: (float(proposals.predicted_iou_N[row]), -row))
        score = merged.score_n[merged.row_n == first]
        np.testing.assert_allclose(score.numpy(), similarity[first], atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def segmenter() -> SAM2:
    return tiny_segmenter()


@pytest.fixture(scope="module")
def encoder() -> DINOv2:
    return tiny_encoder()


@pytest.fixture(scope="module")
def prototypes() -> Prototypes:
    features = np.random.default_rng(0).standard_normal((3, TINY_ENCODER.embed_dim))
    return Prototypes(
        category_id=np.array([4, 17, 90]),
        num_references=np.ones(3),
        prototype=features / np.linalg.norm(features, axis=1, keepdims=True),
    )


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _detect(
    segmenter: SAM2,
    encoder: DINOv2,
    prototypes: Prototypes,
    image: np.ndarray,
    *,
    points_per_batch: int = 64,
    settings: LabelingSettings = EVERYTHING,
) -> Detections:
    labeler = BatchLabeler(segmenter, encoder, prototypes, settings, BatchSettings(points_per_batch=points_per_batch))
    return labeler.label(image, image_id="harbour.jpg").detections


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 500), (2000, 10), (64, 64), (240, 180)])
def test_images_of_any_size_are_labeled_in_their_own_frame(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, size: tuple[int, int]
) -> None:
    detections = _detect(segmenter, encoder, prototypes, _image(*size))
    assert len(detections) > 0
    assert {rle.size for rle in detections.mask_rle} == {size}
    assert set(detections.category_id.tolist()) <= {4, 17, 90}
    assert set(detections.image_id) == {"harbour.jpg"}
    assert ((detections.score > 0) & (detections.score <= 1)).all()
    assert (np.diff(detections.score) <= 0).all()
    expected = boxes_of_masks(decode_masks(detections.mask_rle.tolist())) + np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(detections.box_xyxy, expected)


def test_labels_are_the_same_every_time(segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes) -> None:
    image = _image(90, 120)
    first = _detect(segmenter, encoder, prototypes, image)
    torch.rand(7)  # whatever others draw from the global generator does not matter
    assert _detect(segmenter, encoder, prototypes, image).equals(first)


@pytest.mark.parametrize("points_per_batch", [1, 5, 1000])
def test_the_batch_size_changes_no_label(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, points_per_batch: int
) -> None:
    image = _image(90, 120)
    expected = _detect(segmenter, encoder, prototypes, image)
    detections = _detect(segmenter, encoder, prototypes, image, points_per_batch=points_per_batch)
    assert detections.category_id.tolist() == expected.category_id.tolist()
    np.testing.assert_allclose(detections.score, expected.score, atol=1e-4)
    np.testing.assert_allclose(detections.predicted_iou, expected.predicted_iou, atol=1e-5)


def test_a_labelers_answer_is_its_steps_put_together(segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes) -> None:
    image = _image(90, 120)
    detections = _detect(segmenter, encoder, prototypes, image, settings=MANY)
    frame = to_unit_range(resize_to_square(image, 64))[None]
    grid = point_grid(4, segmenter.architecture.image_size, segmenter.device)
    proposals = propose(segmenter, segmenter.embed(frame), grid, batch=BatchSize(64), pred_iou_thresh=0)
    merged, class_index = match_and_merge(
        proposals, encoder(frame)[0], torch.tensor(prototypes.prototype), size=(90, 120), settings=MANY
    )
    assert len(detections) > 5
    assert detections.category_id.tolist() == prototypes.category_id[class_index].tolist()
    np.testing.assert_allclose(detections.score, merged.score_n, atol=1e-4)
    np.testing.assert_allclose(detections.predicted_iou, proposals.predicted_iou_N[merged.row_n], atol=1e-5)
    masks = decode_masks(detections.mask_rle.tolist())
    assert (masks != merged.masks.unpack().numpy()).mean() < 1e-3


class _LeftHalf:
    """Proposes the left half of every image."""

    def propose(self, embedding: ImageEmbedding, features_PC: Tensor, row_n: Tensor) -> Proposed:
        logits = torch.full((1, 16, 16), -1.0)
        logits[..., :8] = 1
        return Proposed(Proposals(logits, torch.tensor([0.9])), 1, PromptCounts(0, 0, 0, 0))


def test_another_source_of_proposals_takes_the_place_of_the_grid(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes
) -> None:
    labeler = BatchLabeler(segmenter, encoder, prototypes, source=_LeftHalf())
    labels = labeler.label(_image(48, 64), image_id="7")
    assert labels.num_proposals == 1
    assert labels.detections.box_xyxy.tolist() == [[0, 0, 32, 48]]
    assert labels.detections.predicted_iou.tolist() == pytest.approx([0.9])


def test_an_image_without_proposals_has_no_instances(segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes) -> None:
    labeler = BatchLabeler(segmenter, encoder, prototypes, LabelingSettings(points_per_side=2, pred_iou_thresh=1))
    labels = labeler.label(_image(30, 40), image_id="7")
    assert labels.num_proposals == 0
    assert labels.detections.equals(Detections.empty())


def test_proposals_are_counted_before_duplicates_go(segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes) -> None:
    labels = BatchLabeler(segmenter, encoder, prototypes, EVERYTHING).label(_image(30, 40), image_id="7")
    assert labels.num_proposals == 16 > len(labels.detections)


def test_an_image_may_be_a_view_or_read_only(segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes) -> None:
    image = _image(50, 60)
    frozen = image.copy()
    frozen.flags.writeable = False
    expected = _detect(segmenter, encoder, prototypes, image)
    assert _detect(segmenter, encoder, prototypes, frozen).equals(expected)
    assert _detect(segmenter, encoder, prototypes, image[:, ::-1, ::-1][:, ::-1, ::-1]).equals(expected)


def test_prototypes_of_another_encoder_are_refused(segmenter: SAM2, encoder: DINOv2) -> None:
    foreign = Prototypes(category_id=np.array([1]), num_references=np.array([1]), prototype=np.array([[1.0, 0.0]]))
    with pytest.raises(ConfigurationError, match=r"32 channels, got 1 of 2"):
        BatchLabeler(segmenter, encoder, foreign)
    with pytest.raises(ConfigurationError, match="at least one prototype"):
        BatchLabeler(segmenter, encoder, Prototypes.empty())


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_other_paths_find_what_the_exact_one_does(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, path: str
) -> None:
    """Of a model whose masks hardly differ; what real ones lose is measured by `refseg bench`."""
    image = _image(90, 120)
    exact = _detect(segmenter, encoder, prototypes, image, settings=EVERYTHING)
    other = _detect(segmenter, encoder, prototypes, image, settings=EVERYTHING.model_copy(update={"path": path}))
    tolerance = 1e-5 if path == "plain" else 0.02  # half precision
    assert len(exact) > 0
    best = mask_ious(list(exact.mask_rle), list(other.mask_rle)).max(axis=1)
    assert best.min() > 1 - 10 * tolerance
    assert other.category_id.tolist() == exact.category_id.tolist()
    np.testing.assert_allclose(other.score, exact.score, atol=tolerance)


@pytest.mark.parametrize("path", ["exact", "fast"])
def test_points_are_encoded_once_for_all_images(
    segmenter: SAM2,
    encoder: DINOv2,
    prototypes: Prototypes,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labeler = BatchLabeler(segmenter, encoder, prototypes, EVERYTHING.model_copy(update={"path": path}))

    def refuse(**_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(segmenter.sam_prompt_encoder, "forward", refuse)
    assert len(labeler.label(_image(90, 120), image_id="7").detections) > 0


def test_images_found_together_are_those_found_alone(segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes) -> None:
    labeler = BatchLabeler(segmenter, encoder, prototypes, EVERYTHING)
    frames = [labeler.to_frame(_image(height, width)) for height, width in ((30, 40), (90, 120), (41, 17))]
    assert labeler.find([]) == []
    together = [found.labels("7").detections for found in labeler.find(frames)]
    alone = [found.labels("7").detections for image in frames for found in labeler.find([image])]
    for ours, theirs in zip(together, alone, strict=True):
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours.score, theirs.score, atol=1e-5)
        np.testing.assert_array_equal(ours.box_xyxy, theirs.box_xyxy)
