"""A labeled image: everything after the decoder against the slow oracle, and what holds for any image."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.errors import ConfigurationError
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.composing.choosing import match_and_merge
from refseg_core.labeling.merging import Merged
from refseg_core.labeling.proposal_source import PromptCounts, Proposals, Proposed
from refseg_core.labeling.proposals import point_grid, propose
from refseg_core.masks.rle import boxes_of_masks, decode_masks, mask_ious
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import ImageEmbedding
from refseg_core.models.sam2 import SAM2
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.settings.labeling_methods import PUBLISHED
from refseg_core.tables import Detections, Prototypes
from tests.support.closeness import assert_close
from tests.support.models import TINY_ENCODER, tiny_encoder, tiny_segmenter
from tests.support.oracles import original

_SIDE, _GRID, _CHANNELS = 14, 4, 5
_CERTAIN = 1e-5  # scores and thresholds this close are not distinguished in float32
EVERYTHING = LabelingSettings(method="published", points_per_side=4, pred_iou_thresh=0)
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


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 3),
    num_masks=st.integers(1, 16),
    num_classes=st.sampled_from((1, 2, 3, 50)),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    thresholds=st.builds(
        LabelingSettings,
        method=st.just("published"),
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
    few = LabelingSettings(method="published", max_detections=3, candidates_per_detection=4, box_nms_thresh=1.0)
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
    merged, _, expected = _label(
        proposals, features, prototypes, (17, 23), LabelingSettings(method="published", box_nms_thresh=1.0)
    )
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
        settings=LabelingSettings(method="published"),
    )
    assert len(merged.row_n) == len(class_index) == 0
    assert merged.masks.unpack().shape == (0, 5, 6)


def test_permuting_the_classes_only_renames_them() -> None:
    proposals, (features, prototypes) = _proposals(40, 30), _features(40, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    options = LabelingSettings(method="published", box_nms_thresh=1.0)
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
    options = LabelingSettings(method="published", box_nms_thresh=1.0)
    before, classes = match_and_merge(proposals, features, prototypes, size=(20, 20), settings=options)
    after, same = match_and_merge(proposals, features, unlike, size=(20, 20), settings=options)
    assert len(before.row_n) > 3
    assert before.row_n.tolist() == after.row_n.tolist()
    assert classes.tolist() == same.tolist()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 3), num_classes=st.integers(1, 4))
def test_scores_never_exceed_the_similarity_and_the_first_of_a_class_keeps_it(seed: int, num_classes: int) -> None:
    proposals, (features, prototypes) = _proposals(seed, 12), _features(seed, num_classes)
    options = LabelingSettings(method="published", box_nms_thresh=1.0)
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
    labeler = BatchLabeler(
        segmenter, encoder, prototypes, LabelingSettings(method="published", points_per_side=2, pred_iou_thresh=1)
    )
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


# --- methods other than the published --------------------------------------------------------------------------------

OFF = {"method": "accurate", **asdict(PUBLISHED)}


def _refuse(*_: object) -> Tensor:
    raise AssertionError("called although the settings say not to")


class _Look:
    """Takes off what it is told from the similarities of each mask, by the first row of the mask."""

    def __init__(self, loss_of_stripe: list[float]) -> None:
        self.loss_of_stripe = torch.tensor(loss_of_stripe)
        self.stripes: list[int] = []

    def __call__(self, masks_nGG: Tensor, similarity_nK: Tensor) -> Tensor:
        stripes = [int(mask.any(dim=1).nonzero()[0, 0]) // 2 for mask in masks_nGG]
        self.stripes += stripes
        return (similarity_nK - self.loss_of_stripe[stripes, None]).clamp_min(0)


def _stripes(similarities: list[float], predicted_ious: list[float]) -> tuple[Proposals, Tensor, Tensor]:
    """A proposal for each two rows of the image, whose features have these similarities to the only prototype."""
    side = 2 * len(similarities)
    logits = torch.full((len(similarities), side, side), -1.0)
    for row, mask in enumerate(logits):
        mask[2 * row : 2 * row + 2] = 1.0
    cosines = torch.tensor(similarities).repeat_interleave(2)
    features = torch.stack((cosines, (1 - cosines**2).sqrt()), dim=1).repeat_interleave(side, dim=0)
    return Proposals(logits, torch.tensor(predicted_ious)), features, torch.tensor([[1.0, 0.0]])


def _scores(given: tuple[Proposals, Tensor, Tensor], look: _Look | None = None, **parts: object) -> dict[int, float]:
    """The score of each proposal that is left, by falling score."""
    proposals, features, prototypes = given
    merged, _ = match_and_merge(
        proposals,
        features,
        prototypes,
        size=proposals.logits_NGG.shape[1:],
        settings=LabelingSettings.model_validate({"path": "exact", **parts}),
        second_look=look or _refuse,
    )
    return dict(zip(merged.row_n.tolist(), merged.score_n.tolist(), strict=True))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 3), num_masks=st.integers(1, 16), path=st.sampled_from(("exact", "guided")))
def test_without_its_parts_the_accurate_method_is_the_published(seed: int, num_masks: int, path: str) -> None:
    proposals, (features, prototypes) = _proposals(seed, num_masks), _features(seed, 3)
    (merged, classes), (same, same_classes) = (
        match_and_merge(
            proposals,
            features,
            prototypes,
            size=(20, 17),
            settings=LabelingSettings.model_validate({"path": path, **method}),
            second_look=_refuse,
            refine=_refuse,
        )
        for method in ({}, OFF)
    )
    assert torch.equal(merged.row_n, same.row_n)
    assert torch.equal(merged.score_n, same.score_n)
    assert torch.equal(merged.masks.columns_NWB, same.masks.columns_NWB)
    assert torch.equal(classes, same_classes)


def test_the_quality_of_masks_may_be_part_of_the_score() -> None:
    given = _stripes([0.9, 0.8, 0.5], [0.5, 1.0, 0.6])
    assert _scores(given) == pytest.approx({0: 0.9, 1: 0.8, 2: 0.5})
    with_quality = _scores(given, quality_in_score=True)
    assert with_quality == pytest.approx({1: 0.8**0.5, 0: 0.45**0.5, 2: 0.3**0.5})
    assert list(with_quality) == [1, 0, 2]


def test_of_duplicates_the_one_that_resembles_more_may_stay() -> None:
    """Both lie in one box, of one category: one mask is all of it, the other without its middle."""
    _, features, prototypes = _stripes([0.9, 0.2, 0.9], [0, 0, 0])
    logits = torch.ones(2, 6, 6)
    logits[1, 2:4, 1:] = -1
    given = Proposals(logits, torch.tensor([0.8, 0.7])), features, prototypes
    assert list(_scores(given)) == [0]
    assert list(_scores(given, similarity_exponent=0.01)) == [0]
    assert list(_scores(given, similarity_exponent=1)) == [1]


def test_the_best_are_looked_at_again_and_the_others_lose_what_those_lost_on_average() -> None:
    given = _stripes([0.9, 0.8, 0.7, 0.6, 0.05], [0.5, 0.9, 0.9, 0.6, 0.9])  # products: .45, .72, .63, .36, .045
    look = _Look([0.9, 0.5, 0.1, 0.9, 0.9])
    scores = _scores(given, look, max_second_looks=2)
    assert look.stripes == [1, 2]
    assert scores == pytest.approx({0: 0.6, 2: 0.6, 1: 0.3, 3: 0.3})  # 0.3 off on average, and the last has none left


def test_where_the_looked_at_gain_the_others_gain_and_none_exceeds_1() -> None:
    look = _Look([0.0, -0.1, -0.3, 0.0])
    scores = _scores(_stripes([0.9, 0.8, 0.7, 0.6], [0.5, 0.9, 0.9, 0.6]), look, max_second_looks=2)
    assert scores == pytest.approx({0: 1.0, 2: 1.0, 1: 0.9, 3: 0.8})


@pytest.mark.parametrize("max_second_looks", [3, 100])
def test_with_looks_for_all_each_has_its_own(max_second_looks: int) -> None:
    look = _Look([0.5, 0.0, 0.3])
    scores = _scores(_stripes([0.9, 0.8, 0.7], [0.5, 0.9, 0.9]), look, max_second_looks=max_second_looks)
    assert sorted(look.stripes) == [0, 1, 2]
    assert scores == pytest.approx({1: 0.8, 0: 0.4, 2: 0.4})


def test_a_second_look_may_find_another_category() -> None:
    proposals, features, _ = _stripes([0.9, 0.8], [0.9, 0.9])
    merged, classes = match_and_merge(
        proposals,
        features,
        torch.eye(2),
        size=(4, 4),
        settings=LabelingSettings(path="exact", max_second_looks=1),
        second_look=lambda _, similarity_nK: similarity_nK.flip(1),
    )
    by_row = dict(zip(merged.row_n.tolist(), classes.tolist(), strict=True))
    assert by_row == {0: 1, 1: 0}


def test_no_candidate_is_no_look() -> None:
    given = _stripes([0.0, 0.0], [0.9, 0.9])
    assert _scores(given, max_second_looks=2) == {}


def test_the_best_masks_are_decoded_again_and_only_those() -> None:
    proposals, features, prototypes = _stripes([0.7, 0.9, 0.8], [0.9, 0.9, 0.9])
    asked: list[Tensor] = []

    def refine(logits_nGG: Tensor) -> Tensor:
        asked.append(logits_nGG)
        return logits_nGG.roll(3, dims=2) + torch.linspace(-0.9, 0.9, 6)

    before, after = (
        match_and_merge(
            proposals,
            features,
            prototypes,
            size=(6, 6),
            settings=LabelingSettings(path="exact", max_refined_masks=number),
            refine=refine,
        )[0]
        for number in (0, 2)
    )
    (logits,) = asked
    assert before.row_n.tolist() == after.row_n.tolist() == [1, 2, 0]
    assert torch.equal(logits, proposals.logits_NGG[[1, 2]])
    assert torch.equal(before.score_n, after.score_n)
    masks = before.masks.unpack()
    assert torch.equal(after.masks.unpack(), torch.cat(((refine(logits) > 0), masks[2:])))


class _Counts:
    """Crops that are encoded and boxes that are decoded."""

    def __init__(self, labeler: BatchLabeler, monkeypatch: pytest.MonkeyPatch) -> None:
        self.crops = self.boxes = 0
        encode, decode_boxes = labeler.encoder, labeler._prompting.decoder.decode_boxes

        def counted_encode(images_B3EE: Tensor, *, grid_size: int) -> Tensor:
            self.crops += len(images_B3EE)
            return encode(images_B3EE, grid_size=grid_size)

        def counted_boxes(embedding: ImageEmbedding, boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
            self.boxes += len(boxes_N4)
            return decode_boxes(embedding, boxes_N4)

        counted_encode.architecture = encode.architecture  # type: ignore[attr-defined]
        monkeypatch.setattr(labeler._second_look, "_encoder", counted_encode)
        monkeypatch.setattr(labeler._prompting.decoder, "decode_boxes", counted_boxes)


ACCURATE = MANY.model_copy(update={"method": "accurate", "max_second_looks": 6, "max_refined_masks": 4})


@pytest.mark.parametrize(("looks", "refined"), [(0, 0), (1, 2), (5, 1), (1000, 1000)])
def test_an_image_costs_no_more_crops_and_boxes_than_allowed(
    prototypes: Prototypes, looks: int, refined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = {"max_second_looks": looks, "max_refined_masks": refined, "points_per_side": 2}
    labeler = BatchLabeler(tiny_segmenter(), tiny_encoder(), prototypes, ACCURATE.model_copy(update=allowed))
    counts = _Counts(labeler, monkeypatch)
    images = [labeler.to_frame(_image(90, 120)), labeler.to_frame(_image(41, 17))]
    found = labeler.find(images)
    labels = [each.labels("7") for each in found]
    assert min(len(each.detections) for each in labels) > 5
    assert counts.crops == sum(min(looks, each.num_proposals) for each in labels)
    assert counts.boxes == sum(min(refined, len(each.score_n)) for each in found)


def test_an_image_without_a_prompt_costs_no_crop_and_no_box(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = ACCURATE.model_copy(update={"path": "guided", "guidance_thresh": 0.99})
    labeler = BatchLabeler(segmenter, encoder, prototypes, nowhere)
    counts = _Counts(labeler, monkeypatch)
    labels = labeler.label(_image(90, 120), image_id="7")
    assert (labels.num_prompts, labels.num_proposals, len(labels.detections)) == (0, 0, 0)
    assert labels.detections.equals(Detections.empty())
    assert (counts.crops, counts.boxes) == (0, 0)


@pytest.mark.parametrize("path", ["exact", "guided"])
def test_accurate_labels_are_the_same_every_time_and_others_than_published(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, path: str
) -> None:
    image, accurate = _image(90, 120), ACCURATE.model_copy(update={"path": path, "guidance_thresh": -1.0})
    first, second = (_detect(segmenter, encoder, prototypes, image, settings=accurate) for _ in range(2))
    assert first.equals(second)
    published = _detect(segmenter, encoder, prototypes, image, settings=accurate.published_on(path))
    assert not first.equals(published)
    off = LabelingSettings.model_validate(accurate.model_dump() | OFF)
    assert _detect(segmenter, encoder, prototypes, image, settings=off).equals(published)


@pytest.mark.parametrize("points_per_batch", [1, 5])
def test_batches_change_no_accurate_label(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, points_per_batch: int
) -> None:
    image = _image(90, 120)
    expected = _detect(segmenter, encoder, prototypes, image, settings=ACCURATE)
    detections = _detect(segmenter, encoder, prototypes, image, settings=ACCURATE, points_per_batch=points_per_batch)
    assert len(detections) == len(expected) > 5
    np.testing.assert_allclose(detections.score, expected.score, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 500), (2000, 10), (240, 180)])
def test_accurate_labels_of_images_of_any_size_are_in_their_own_frame(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, size: tuple[int, int]
) -> None:
    detections = _detect(segmenter, encoder, prototypes, _image(*size), settings=ACCURATE)
    assert len(detections) > 0
    assert {rle.size for rle in detections.mask_rle} == {size}
    assert ((detections.score > 0) & (detections.score <= 1)).all()
    assert (np.diff(detections.score) <= 0).all()
    expected = boxes_of_masks(decode_masks(detections.mask_rle.tolist())) + np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(detections.box_xyxy, expected)


def test_with_all_masks_labels_are_those_of_the_segmenters_three(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes
) -> None:
    image, all_masks = _image(90, 120), MANY.model_copy(update={"all_masks": True})
    detections = _detect(segmenter, encoder, prototypes, image, settings=all_masks)
    frame = to_unit_range(resize_to_square(image, 64))[None]
    points = point_grid(4, 64, segmenter.device)
    logits, predicted_iou = segmenter._decode(segmenter.embed(frame), points[:, None], torch.ones(16, 1))
    proposals = Proposals(logits[:, 1:].flatten(0, 1), predicted_iou[:, 1:].flatten())
    merged, class_index = match_and_merge(
        proposals, encoder(frame)[0], torch.tensor(prototypes.prototype), size=(90, 120), settings=MANY
    )
    assert len(detections) > 16
    assert detections.category_id.tolist() == prototypes.category_id[class_index].tolist()
    np.testing.assert_allclose(detections.score, merged.score_n, atol=1e-3)
    masks = decode_masks(detections.mask_rle.tolist())
    assert (masks != merged.masks.unpack().numpy()).mean() < 1e-3


@pytest.mark.parametrize(("looks", "is_kept"), [(0, False), (1, True)])
def test_an_image_waits_with_its_pixels_only_where_it_is_looked_at_again(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, looks: int, is_kept: bool
) -> None:
    labeling = LabelingSettings(path="exact", max_second_looks=looks)
    frame = BatchLabeler(segmenter, encoder, prototypes, labeling).to_frame(_image(30, 40))
    assert frame.size == (30, 40)
    assert (frame.image_HW3 is not None) == is_kept


def test_the_plain_path_builds_no_quick_decoder(
    segmenter: SAM2, encoder: DINOv2, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr(type(segmenter), "point_decoder", refuse)
    BatchLabeler(segmenter, encoder, prototypes, LabelingSettings(path="plain"))
    with pytest.raises(AssertionError, match="built"):
        BatchLabeler(segmenter, encoder, prototypes, LabelingSettings(path="exact"))
