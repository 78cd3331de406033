"""The method gives the original implementation's numbers, step by step, at the tolerances it states."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset
from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.composing.choosing import match_and_merge
from refseg_core.labeling.proposal_source import Proposals
from refseg_core.labeling.proposals import point_grid, propose
from refseg_core.masks.boxes import mask_boxes
from refseg_core.masks.rle import decode_mask
from refseg_core.models.architectures import EncoderArchitecture, SegmenterArchitecture
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.dinov2 import build as build_encoder
from refseg_core.models.point_decoder import PointDecoder
from refseg_core.models.sam2 import SAM2
from refseg_core.models.sam2 import build as build_segmenter
from refseg_core.references.memory_bank import Crop, crop_reference, encode_references, patch_weights
from refseg_core.references.prototypes import postprocess_memory_bank
from refseg_core.references.sampling import sample_references
from refseg_core.settings import LabelingSettings, SamplingSettings
from refseg_core.tables import MemoryBank

SEGMENTER = SegmenterArchitecture(16, 1, (1, 2, 3, 1), (4,), window_sizes=(8, 4, 8, 4), width=64, image_size=256)
ENCODER = EncoderArchitecture(32, 3, 2, image_size=70)
POINTS_PER_SIDE, POINTS_PER_BATCH, DETECTIONS_KEPT = 16, 64, 20

Golden = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def golden(golden_folder: Path) -> Golden:
    with np.load(golden_folder / "golden.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def segmenter(golden: Golden) -> SAM2:
    return build_segmenter(SEGMENTER, _state(golden, "sam2/"), model="golden")


@pytest.fixture(scope="module", params=[pytest.param("plain", marks=pytest.mark.slow), "exact"])
def decoder(request: pytest.FixtureRequest, segmenter: SAM2) -> SAM2 | PointDecoder:
    """Both paths owe the original's numbers; that they agree is also tested in refseg_core/models/."""
    return segmenter if request.param == "plain" else PointDecoder(segmenter)


@pytest.fixture(scope="module")
def encoder(golden: Golden) -> DINOv2:
    return build_encoder(ENCODER, _state(golden, "dinov2/"), model="golden")


@pytest.fixture(scope="module")
def target(golden: Golden) -> Tensor:
    return torch.from_numpy(golden["target/image_u8"])[None].float() / 255


@pytest.fixture(scope="module")
def sampled(golden_folder: Path) -> Dataset:
    return parse_coco((golden_folder / "sampling_annotations.json").read_bytes(), source="golden")


def _state(golden: Golden, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): torch.from_numpy(golden[name]) for name in golden if name.startswith(prefix)}


def _tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(golden[name])


def _unpacked(golden: Golden, prefix: str) -> np.ndarray:
    count, height, width = golden[f"{prefix}/size"]
    bits = np.unpackbits(golden[f"{prefix}/masks_packed"], axis=-1)
    return bits[:count, :height, :width].astype(bool)


def _assert_result(golden: Golden, prefix: str, proposals: Proposals, features: Tensor, detections: int) -> None:
    """On the reference path and on the exact one."""
    paths: tuple[str, ...] = ("plain", "exact")
    for path in paths:
        settings = LabelingSettings(path=path, max_detections=detections)
        _assert_result_of(settings, golden, prefix, proposals, features)


def _assert_result_of(
    settings: LabelingSettings, golden: Golden, prefix: str, proposals: Proposals, features: Tensor
) -> None:
    _, height, width = golden[f"{prefix}/size"].tolist()
    prototypes = _tensor(golden, "bank/prototype")
    merged, class_index = match_and_merge(proposals, features, prototypes, size=(height, width), settings=settings)
    np.testing.assert_array_equal(class_index.numpy(), golden[f"{prefix}/class_index"])
    np.testing.assert_allclose(merged.score_n.numpy(), golden[f"{prefix}/scores"], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(merged.masks.unpack().numpy(), _unpacked(golden, prefix))
    np.testing.assert_array_equal(mask_boxes(merged.masks.unpack()).numpy(), golden[f"{prefix}/box_xyxy_inclusive"])


def test_sampling_gives_the_original_reference_sets(golden_folder: Path, sampled: Dataset) -> None:
    expected = json.loads((golden_folder / "sampling_expected.json").read_text())
    assert expected
    for run, sets in expected.items():
        split, shots, seed = run.split("/")
        settings = SamplingSettings(split=split, num_shots=int(shots), seed=int(seed), on_shortage="fewer")
        references = sample_references(sampled.images, sampled.annotations, sampled.categories, settings)
        flat = [(category, str(image), str(ann)) for category, pairs in sets for image, ann in pairs]
        ours = zip(references.category_id.tolist(), references.image_id, references.annotation_id, strict=True)
        assert list(ours) == flat, run


def test_crops_equal_the_originals(golden: Golden, golden_folder: Path, sampled: Dataset) -> None:
    image = np.asarray(Image.open(golden_folder / "image.png").convert("RGB"))
    numbers = sorted({name.split("/")[1] for name in golden if name.startswith("crop/")})
    assert numbers
    for number in numbers:
        wanted = str(golden[f"crop/{number}/annotation_id"])
        row = sampled.annotations.annotation_id.tolist().index(wanted)
        x, y, width, height = sampled.annotations.box_xywh[row]
        crop = crop_reference(
            image,
            decode_mask(sampled.annotations.mask_rle[row]),
            np.array([x, y, x + width, y + height]),
            context_ratio=0.2,
            size=70,
        )
        np.testing.assert_array_equal(crop.image_3EE.numpy(), golden[f"crop/{number}/image_70"])
        np.testing.assert_array_equal(crop.mask_EE.numpy(), golden[f"crop/{number}/mask_70"])


def test_patch_features_and_weights_of_references(golden: Golden, encoder: DINOv2) -> None:
    features = encoder(_tensor(golden, "reference/image_70"))
    weights = patch_weights(_tensor(golden, "reference/mask_70"), ENCODER.grid_size)
    for row, (class_index, shot) in enumerate(_fill_order(golden)):
        expected = golden["bank/patch_features"][class_index, shot]
        np.testing.assert_allclose(features[row].numpy(), expected, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(weights[row].numpy(), golden["bank/patch_weights"][class_index, shot])


def test_reference_means_and_prototypes(golden: Golden, encoder: DINOv2) -> None:
    images, masks = _tensor(golden, "reference/image_70"), _tensor(golden, "reference/mask_70")
    encoded = encode_references(encoder, [Crop(image, mask) for image, mask in zip(images, masks, strict=True)])
    order = _fill_order(golden)
    for (class_index, shot), reference in zip(order, encoded, strict=True):
        expected = golden["bank/reference_mean"][class_index, shot]
        np.testing.assert_allclose(reference.feature_C, expected, atol=1e-6, rtol=0)
    prototypes = postprocess_memory_bank(
        MemoryBank(
            category_id=np.array([class_index for class_index, _ in order]),
            shot=np.array([shot for _, shot in order]),
            foreground_weight=np.array([reference.foreground_weight for reference in encoded]),
            feature=np.stack([reference.feature_C for reference in encoded]),
        )
    )
    np.testing.assert_allclose(prototypes.prototype, golden["bank/prototype"], atol=1e-6, rtol=0)


def _fill_order(golden: Golden) -> list[tuple[int, int]]:
    shots: dict[int, int] = {}
    order = []
    for class_index in golden["reference/class_index"].tolist():
        order.append((class_index, shots.get(class_index, 0)))
        shots[class_index] = order[-1][1] + 1
    return order


def test_target_features_and_embedding(golden: Golden, target: Tensor, encoder: DINOv2, segmenter: SAM2) -> None:
    np.testing.assert_allclose(encoder(target)[0].numpy(), golden["target/patch_features"], atol=1e-5, rtol=0)
    embedding = segmenter.embed(target)
    np.testing.assert_allclose(embedding.stride16_BWhw[0].numpy(), golden["target/embedding"], atol=1e-5, rtol=0)


def test_predicted_iou_of_every_point(
    golden: Golden, target: Tensor, segmenter: SAM2, decoder: SAM2 | PointDecoder
) -> None:
    proposals = propose(
        decoder,
        decoder.prepare(segmenter.embed(target)),
        decoder.prompts(point_grid(POINTS_PER_SIDE, SEGMENTER.image_size, torch.device("cpu"))),
        batch=BatchSize(POINTS_PER_BATCH),
        pred_iou_thresh=0,
    )
    expected = golden["target/predicted_iou_all_points"]
    np.testing.assert_allclose(proposals.predicted_iou_N.numpy(), expected, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def target_proposals(golden: Golden, target: Tensor, segmenter: SAM2, decoder: SAM2 | PointDecoder) -> Proposals:
    return propose(
        decoder,
        decoder.prepare(segmenter.embed(target)),
        decoder.prompts(point_grid(POINTS_PER_SIDE, SEGMENTER.image_size, torch.device("cpu"))),
        batch=BatchSize(POINTS_PER_BATCH),
        pred_iou_thresh=float(golden["target/iou_thr"]),
    )


def test_kept_points_and_logits(golden: Golden, target_proposals: Proposals) -> None:
    np.testing.assert_allclose(target_proposals.predicted_iou_N.numpy(), golden["target/kept_predicted_iou"], atol=1e-6)
    expected = golden["target/kept_logits_64_first32"]
    ours = target_proposals.logits_NGG[: len(expected)].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(ours > 0, expected > 0)
    grid = point_grid(POINTS_PER_SIDE, SEGMENTER.image_size, torch.device("cpu")).numpy()
    above = golden["target/predicted_iou_all_points"] > golden["target/iou_thr"]
    np.testing.assert_array_equal(grid[above], golden["target/kept_points_xy"])


@pytest.mark.parametrize("size", ["180x240", "48x240", "300x40"])
def test_everything_after_the_decoder(golden: Golden, size: str) -> None:
    proposals = Proposals(_tensor(golden, "synthetic/logits_64"), _tensor(golden, "synthetic/predicted_iou"))
    features = _tensor(golden, "target/patch_features")
    _assert_result(golden, f"synthetic_{size}", proposals, features, DETECTIONS_KEPT)


def test_a_whole_image(golden: Golden, target: Tensor, target_proposals: Proposals, encoder: DINOv2) -> None:
    _assert_result(golden, "end_to_end_180x240", target_proposals, encoder(target)[0], DETECTIONS_KEPT)
