"""What resembles a negative most is no instance of any category, and nothing else changes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.composing.choosing import match_and_merge
from refseg_core.labeling.matching import describe
from refseg_core.labeling.merging import Merged
from refseg_core.labeling.proposal_source import Proposals
from refseg_core.settings import LabelingSettings
from refseg_core.tables import Prototypes
from tests.refseg_core.labeling.test_batch_labeler import MANY, _features, _proposals
from tests.support.models import TINY_ENCODER, random_tensor, tiny_encoder, tiny_segmenter

_IMAGE = np.random.default_rng(0).integers(0, 256, (90, 123, 3), dtype=np.uint8)


def _merge(proposals: Proposals, features: Tensor, prototypes: Tensor, num_negatives: int) -> tuple[Merged, Tensor]:
    return match_and_merge(proposals, features, prototypes, size=(20, 31), settings=MANY, num_negatives=num_negatives)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 3), num_masks=st.integers(5, 16))
def test_a_negative_equal_to_what_a_proposal_shows_removes_it(seed: int, num_masks: int) -> None:
    proposals, (features, prototypes) = _proposals(seed, num_masks), _features(seed, 3)
    descriptors = describe(proposals.logits_NGG > 0, features)
    before, _ = _merge(proposals, features, prototypes, 0)
    for row in before.row_n.tolist():
        after, classes = _merge(proposals, features, torch.cat((prototypes, descriptors[row : row + 1])), 1)
        assert row not in after.row_n.tolist()
        assert set(classes.tolist()) <= {0, 1, 2}


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 3), num_masks=st.integers(1, 16), order=st.permutations(range(3)))
def test_the_order_of_negatives_does_not_matter(seed: int, num_masks: int, order: list[int]) -> None:
    proposals, (features, prototypes) = _proposals(seed, num_masks), _features(seed, 6)
    ours, classes = _merge(proposals, features, prototypes, 3)
    theirs, same = _merge(proposals, features, torch.cat((prototypes[:3], prototypes[3:][order])), 3)
    assert ours.row_n.tolist() == theirs.row_n.tolist()
    assert torch.equal(classes, same)
    assert torch.allclose(ours.score_n, theirs.score_n, atol=1e-6)


def test_a_negative_unlike_everything_changes_nothing() -> None:
    proposals, (features, prototypes) = _proposals(3, 12), _features(3, 3)
    before, classes = _merge(proposals, features, prototypes, 0)
    descriptors = describe(proposals.logits_NGG > 0, features)
    unlike = -descriptors.mean(dim=0, keepdim=True) * 1e-3
    after, same = _merge(proposals, features, torch.cat((prototypes, unlike)), 1)
    assert before.row_n.tolist() == after.row_n.tolist()
    assert torch.equal(classes, same)


def test_negatives_take_no_second_look_from_what_may_be_an_instance() -> None:
    proposals, (features, prototypes) = _proposals(5, 14), _features(5, 3)
    descriptors = describe(proposals.logits_NGG > 0, features)
    looked: list[Tensor] = []

    def look(masks_nGG: Tensor, similarity_nK: Tensor) -> Tensor:
        looked.append(masks_nGG)
        return similarity_nK

    looking = MANY.model_copy(update={"max_second_looks": 3})
    for negatives in (prototypes[:0], descriptors[:6]):
        compared = torch.cat((prototypes, negatives))
        number = len(negatives)
        match_and_merge(
            proposals, features, compared, size=(20, 31), settings=looking, num_negatives=number, second_look=look
        )
    assert torch.equal(*looked)


def _prototypes(vectors: Tensor, first_id: int) -> Prototypes:
    ids = np.arange(first_id, first_id + len(vectors))
    return Prototypes(category_id=ids, num_references=np.ones(len(ids), np.int32), prototype=vectors.numpy())


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("parts", [{"method": "published", "path": "exact"}, {"method": "accurate", "path": "guided"}])
def test_negatives_are_no_labels_and_prompt_nothing(keeps: bool, parts: dict[str, str]) -> None:
    vectors = torch.nn.functional.normalize(random_tensor(6, TINY_ENCODER.embed_dim, seed=1) - 0.5, dim=1)
    options = LabelingSettings.model_validate(
        {"points_per_side": 4, "pred_iou_thresh": 0, "box_nms_thresh": 1, "keep_proposals": keeps, **parts}
    )
    categories, negatives = _prototypes(vectors[:3], 0), _prototypes(vectors[3:], 7)

    def found(negative: Prototypes | None) -> tuple[list[int], int, list[int]]:
        labeler = BatchLabeler(tiny_segmenter(), tiny_encoder(), categories, options, negatives=negative)
        frame = labeler.to_frame(_IMAGE)
        (instances,) = [labeler.find_kept(None, lambda: frame)[0]] if keeps else labeler.find([frame])
        labels = instances.labels("a")
        return labels.detections.category_id.tolist(), labels.num_prompts, labels.similarities.category_id.tolist()

    without, with_them = found(None), found(negatives)
    assert set(with_them[0]) <= {0, 1, 2}
    assert len(with_them[0]) < len(without[0])
    assert with_them[1:] == without[1:]
