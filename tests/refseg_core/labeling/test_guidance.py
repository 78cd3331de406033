"""Points are prompted where the image resembles a prototype, and nowhere else."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.guidance import Guidance
from refseg_core.labeling.proposals import point_grid
from refseg_core.models.protocols import ImageEmbedding, Prepared
from refseg_core.settings import LabelingSettings
from refseg_core.tables import Detections, Prototypes
from tests.support.closeness import assert_close
from tests.support.models import TINY_ENCODER, random_tensor, tiny_encoder, tiny_segmenter

_SIDE, _CHANNELS, _SIZE = 5, 6, 100
_CPU = torch.device("cpu")
EVERYWHERE = LabelingSettings(
    path="guided", guidance_thresh=None, points_per_side=6, pred_iou_thresh=0, box_nms_thresh=1.0
)


def _features(seed: int) -> Tensor:
    return random_tensor(_SIDE**2, _CHANNELS, seed=seed) - 0.5


def _prototypes(seed: int, number: int = 3) -> Tensor:
    return F.normalize(random_tensor(number, _CHANNELS, seed=seed) - 0.5, dim=1)


def _guidance(thresh: float | None, prototypes: Tensor, points_per_side: int = 7) -> Guidance:
    return Guidance(point_grid(points_per_side, _SIZE, _CPU), _SIZE, prototypes, thresh=thresh)


def _similarity_at(features: Tensor, prototypes: Tensor, point: tuple[float, float]) -> float:
    """Read bilinearly between the centers of patches, in plain Python."""
    cosines = (F.normalize(features, dim=1) @ prototypes.T).amax(dim=1).view(_SIDE, _SIDE).tolist()
    column, row = (min(max(value / _SIZE * _SIDE - 0.5, 0), _SIDE - 1) for value in point)
    left, top = min(int(column), _SIDE - 2), min(int(row), _SIDE - 2)
    right, down = column - left, row - top
    upper = cosines[top][left] * (1 - right) + cosines[top][left + 1] * right
    lower = cosines[top + 1][left] * (1 - right) + cosines[top + 1][left + 1] * right
    return float(upper * (1 - down) + lower * down)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("thresh", [-0.2, 0.2, 0.5])
def test_points_above_the_threshold_are_chosen_and_no_others(seed: int, thresh: float) -> None:
    features, prototypes = _features(seed), _prototypes(seed + 9)
    chosen = set(_guidance(thresh, prototypes)(features).row_n.tolist())
    for row, (x, y) in enumerate(point_grid(7, _SIZE, _CPU).tolist()):
        similarity = _similarity_at(features, prototypes, (x, y))
        assert abs(similarity - thresh) < 1e-5 or (row in chosen) == (similarity > thresh)


def test_a_lower_threshold_only_adds_points() -> None:
    features, prototypes = _features(1), _prototypes(2)
    rows = [set(_guidance(thresh, prototypes)(features).row_n.tolist()) for thresh in (0.5, 0.2, 0.0, None)]
    assert all(fewer < more for fewer, more in pairwise(rows))
    assert rows[-1] == set(range(49))


def test_another_category_only_adds_points() -> None:
    features, prototypes = _features(3), _prototypes(4, number=5)
    few, many = (set(_guidance(0.3, some)(features).row_n.tolist()) for some in (prototypes[:2], prototypes))
    assert few < many


def test_each_category_has_the_largest_cosine_of_any_patch() -> None:
    features, prototypes = _features(5), _prototypes(6)
    expected = [max(float(F.cosine_similarity(patch, one, dim=0)) for patch in features) for one in prototypes]
    assert_close(_guidance(0.9, prototypes)(features).similarity_K, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("thresh", [0.3, 0.5, None])
def test_the_categories_above_the_threshold_are_named(thresh: float | None) -> None:
    guide = _guidance(thresh, _prototypes(8, number=6))(_features(7))
    above = [] if thresh is None else torch.nonzero(guide.similarity_K > thresh)[:, 0].tolist()
    assert guide.class_index_k.tolist() == (list(range(6)) if thresh is None else above)
    assert len(guide.class_index_k) > 0


# --- a labeler with guidance -----------------------------------------------------------------------------------------


def _table(seed: int = 0) -> Prototypes:
    vectors = np.random.default_rng(seed).normal(size=(2, TINY_ENCODER.embed_dim))
    return Prototypes(
        category_id=np.array([5, 2]),
        num_references=np.ones(2),
        prototype=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )


_IMAGE = np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def _labeler(settings: LabelingSettings, prototypes: Prototypes | None = None) -> BatchLabeler:
    return BatchLabeler(tiny_segmenter(), tiny_encoder(), prototypes or _table(), settings)


def _equal(one: Detections, other: Detections) -> bool:
    return one.mask_rle.tolist() == other.mask_rle.tolist() and np.array_equal(one.score, other.score)


def test_where_every_point_passes_labels_are_those_of_the_exact_path() -> None:
    exact = _labeler(EVERYWHERE.model_copy(update={"path": "exact"})).label(_IMAGE, image_id="a")
    assert len(exact.detections) > 3
    for thresh in (None, -1.0):
        guided = _labeler(EVERYWHERE.model_copy(update={"guidance_thresh": thresh})).label(_IMAGE, image_id="a")
        assert _equal(guided.detections, exact.detections)
        assert guided.num_prompts == exact.num_prompts == 36


class _Counted:
    """Counts what reaches the segmenter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, labeler: BatchLabeler) -> None:
        self.images = 0
        self.prompts: list[Tensor] = []
        embed, decode = labeler._prompting.embed, labeler._prompting.source._decoder.decode_points  # type: ignore[attr-defined]

        def counted_embed(frames: Tensor) -> ImageEmbedding:
            self.images += len(frames)
            return embed(frames)

        def counted_decode(image: Prepared, prompts: Tensor, **settings: float) -> tuple[Tensor, Tensor]:
            self.prompts.append(prompts)
            return decode(image, prompts, **settings)  # type: ignore[no-any-return]

        monkeypatch.setattr(labeler._prompting, "embed", counted_embed)
        monkeypatch.setattr(labeler._prompting.source._decoder, "decode_points", counted_decode)  # type: ignore[attr-defined]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[BatchLabeler], _Counted]:
    return lambda labeler: _Counted(monkeypatch, labeler)


def test_no_point_below_the_threshold_is_prompted(counted: Callable[[BatchLabeler], _Counted]) -> None:
    labeler = _labeler(EVERYWHERE.model_copy(update={"guidance_thresh": 0.1}))
    calls = counted(labeler)
    (found,) = labeler.find([labeler.to_frame(_IMAGE)])
    features = tiny_encoder()(torch.from_numpy(labeler.to_frame(_IMAGE).pixels_SS3).permute(2, 0, 1)[None] / 255)[0]
    expected = labeler._guidance(features).row_n
    assert 0 < len(expected) < 36
    assert found.prompts.points == len(expected)
    assert torch.equal(torch.cat(calls.prompts), labeler._prompting.source._prompts[expected])  # type: ignore[attr-defined]


def test_an_image_without_likeness_costs_no_call_of_the_segmenter(
    counted: Callable[[BatchLabeler], _Counted],
) -> None:
    labeler = _labeler(EVERYWHERE.model_copy(update={"guidance_thresh": 0.99}))
    calls = counted(labeler)
    labels = [found.labels("a") for found in labeler.find([labeler.to_frame(_IMAGE)] * 3)]
    assert (calls.images, calls.prompts) == (0, [])
    for each in labels:
        assert (len(each.detections), each.num_proposals, each.num_prompts) == (0, 0, 0)
        assert -1 <= each.max_similarity < 0.99


def test_of_several_images_only_those_with_likeness_are_segmented(
    monkeypatch: pytest.MonkeyPatch, counted: Callable[[BatchLabeler], _Counted]
) -> None:
    labeler = _labeler(EVERYWHERE.model_copy(update={"guidance_thresh": 0.1}))
    alone = labeler.label(_IMAGE, image_id="a").detections
    guide = labeler._guidance
    seen: list[Tensor] = []

    def every_other(features: Tensor) -> object:
        seen.append(features)
        chosen = guide(features)
        return chosen if len(seen) % 2 else chosen._replace(row_n=chosen.row_n[:0])

    monkeypatch.setattr(labeler, "_guidance", every_other)
    calls = counted(labeler)
    labels = [found.labels("a").detections for found in labeler.find([labeler.to_frame(_IMAGE)] * 4)]
    assert calls.images == 2
    assert [len(each) > 0 for each in labels] == [True, False, True, False]
    assert _equal(labels[0], alone)
    assert _equal(labels[2], alone)


def test_guided_labels_are_the_same_each_time() -> None:
    settings = EVERYWHERE.model_copy(update={"guidance_thresh": 0.1})
    first, second = (_labeler(settings).label(_IMAGE, image_id="a").detections for _ in range(2))
    assert _equal(first, second)


def test_other_paths_prompt_all_points_whatever_the_threshold() -> None:
    settings = replace_path(EVERYWHERE, "exact", guidance_thresh=0.99)
    assert _labeler(settings).label(_IMAGE, image_id="a").num_prompts == 36


def replace_path(settings: LabelingSettings, path: str, **changes: object) -> LabelingSettings:
    return settings.model_copy(update={"path": path, **changes})
