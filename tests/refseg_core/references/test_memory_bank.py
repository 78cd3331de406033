"""References are cut out as published, and kept as the mean feature under their mask."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from refseg_core.errors import UnusableReferenceError
from refseg_core.models.dinov2 import DINOv2
from refseg_core.references.memory_bank import (
    Crop,
    crop_reference,
    encode_image,
    encode_references,
    encode_views,
    patch_weights,
    pool,
    similarities,
)
from refseg_core.tables import MemoryBank
from tasks.store.parquet import table_to_parquet
from tests.support.models import random_tensor, tiny_encoder
from tests.support.oracles import original

_HEIGHT, _WIDTH = 60, 90

Bounds = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def encoder() -> DINOv2:
    return tiny_encoder()


def _scene() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    image = generator.integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
    return image, generator.random((_HEIGHT, _WIDTH)) < 0.5


def _crop(box: tuple[float, float, float, float], *, size: int = 14, context_ratio: float = 0.2) -> Crop:
    return crop_reference(*_scene(), np.array(box, dtype=np.float64), context_ratio=context_ratio, size=size)


def _assert_shows(crop: Crop, bounds: Bounds, size: int) -> None:
    """The crop is this part of the scene (x1, y1, x2, y2, ends exclusive), stretched to `size` by the plain filters."""
    left, top, right, bottom = bounds
    image, mask = (pixels[top:bottom, left:right].astype(np.float64) for pixels in _scene())
    expected = original.interpolate(image / 255, (size, size), original.cubic).transpose(2, 0, 1)
    np.testing.assert_allclose(crop.image_3EE.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(
        crop.mask_EE.numpy(), original.interpolate(mask, (size, size), original.linear), atol=1e-5
    )


@pytest.mark.parametrize(
    ("box", "bounds"),
    [
        ((30, 20, 50, 30), (28, 13, 52, 37)),  # 24 px around (40, 25)
        ((30.9, 20.9, 50.9, 30.9), (28, 13, 52, 37)),  # corners are truncated first
        ((30, 20, 45, 25), (28, 13, 46, 31)),  # 18 px around (37.5, 22.5); ends truncated
        ((0, 0, 20, 10), (0, 0, 22, 17)),  # cut at the corner, no longer square
        ((70, 40, 90, 60), (68, 38, 90, 60)),  # cut at the opposite corner
        ((0, 0, 90, 60), (0, 0, 90, 60)),  # the whole image
        ((-30, -30, 20, 10), (0, 0, 25, 20)),  # reaching out of the image
    ],
)
def test_crops_follow_the_box_and_are_cut_at_borders(box: tuple[float, float, float, float], bounds: Bounds) -> None:
    _assert_shows(_crop(box), bounds, 14)


def test_a_crop_of_the_frames_size_is_not_resampled() -> None:
    crop = _crop((30, 20, 50, 30), size=24)
    image, mask = _scene()
    expected = image[13:37, 28:52].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(crop.image_3EE.numpy(), expected)
    np.testing.assert_array_equal(crop.mask_EE.numpy(), mask[13:37, 28:52].astype(np.float32))


def _naive_bounds(box: Bounds, context_ratio: float) -> Bounds:
    x1, y1, x2, y2 = box
    side = max(x2 - x1, y2 - y1) * (1 + context_ratio)
    columns = [x for x in range(_WIDTH) if int((x1 + x2) / 2 - side / 2) <= x < int((x1 + x2) / 2 + side / 2)]
    rows = [y for y in range(_HEIGHT) if int((y1 + y2) / 2 - side / 2) <= y < int((y1 + y2) / 2 + side / 2)]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@settings(max_examples=20)
@given(
    st.tuples(st.integers(0, 80), st.integers(0, 50), st.integers(2, 40), st.integers(2, 40)),
    st.sampled_from((0.0, 0.2, 1.0, 4.0)),
)
def test_any_crop_equals_the_oracles(corner_and_size: Bounds, context_ratio: float) -> None:
    x, y, width, height = corner_and_size
    box = (x, y, x + width, y + height)
    bounds = left, top, right, bottom = _naive_bounds(box, context_ratio)
    assume(_scene()[1][top:bottom, left:right].any())
    _assert_shows(_crop(box, size=5, context_ratio=context_ratio), bounds, 5)


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((200, 10, 240, 40), "misses the image"),
        ((10, -80, 30, -60), "misses the image"),
        ((-50, 10, -30, 30), "misses the image"),
        ((5, 5, 5, 5), "has no area"),
        ((5, float("inf"), 9, 9), "no finite number"),
        ((30.2, 20.2, 30.8, 20.8), "holds no pixel of its mask"),
    ],
)
def test_a_box_that_covers_nothing_is_refused(box: tuple[float, float, float, float], problem: str) -> None:
    with pytest.raises(UnusableReferenceError, match=problem):
        _crop(box)


def test_a_mask_that_covers_nothing_is_refused() -> None:
    image, mask = _scene()
    box = np.array([10.0, 10, 30, 30])
    for useless, problem in (
        (np.zeros_like(mask), "covers nothing"),
        (mask[:30], r"shape \[30, 90\]; expected the image's, \[60, 90\]"),
        (np.pad(mask[:, :20], ((0, 0), (70, 0))), "holds no pixel of its mask"),
    ):
        with pytest.raises(UnusableReferenceError, match=problem):
            crop_reference(image, useless, box, context_ratio=0.2, size=14)


def test_a_patchs_weight_is_the_mask_at_its_top_left_pixel() -> None:
    mask = torch.arange(70.0 * 70).view(70, 70)
    expected = [[14 * row * 70 + 14 * column for column in range(5)] for row in range(5)]
    assert patch_weights(mask, 5).view(5, 5).tolist() == expected
    assert patch_weights(torch.stack((mask, 2 * mask)), 5)[1].tolist() == (2 * patch_weights(mask, 5)).tolist()


def test_features_are_averaged_under_the_soft_mask(encoder: DINOv2) -> None:
    crops = [Crop(random_tensor(3, 70, 70, seed=seed), random_tensor(70, 70, seed=seed + 9)) for seed in range(3)]
    encoded = encode_references(encoder, crops)
    for crop, reference in zip(crops, encoded, strict=True):
        features = encoder(crop.image_3EE[None])[0].double().numpy()
        total, weight = np.zeros(32), 0.0
        for patch in range(25):
            value = float(crop.mask_EE[patch // 5 * 14, patch % 5 * 14])
            total, weight = total + value * features[patch], weight + value
        np.testing.assert_allclose(reference.feature_C, total / weight, atol=1e-5)
        assert reference.foreground_weight == pytest.approx(weight, abs=1e-5)
        assert reference.feature_C.dtype == np.float32


def test_a_mask_that_vanishes_on_the_patch_grid_weighs_nothing(encoder: DINOv2) -> None:
    thin = torch.zeros(70, 70)
    thin[:, 7] = 1  # between the columns that count
    image = random_tensor(3, 70, 70)
    vanished, whole = encode_references(encoder, [Crop(image, thin), Crop(image, torch.ones(70, 70))])
    assert vanished.foreground_weight == 0
    assert (vanished.feature_C == 0).all()
    assert whole.foreground_weight == 25
    assert np.isfinite(whole.feature_C).all()
    assert whole.feature_C.any()


@pytest.mark.parametrize(
    ("categories", "shots", "limit"),
    [
        pytest.param(80, 30, 20_000_000, id="COCO"),
        pytest.param(1203, 10, 60_000_000, id="LVIS", marks=pytest.mark.slow),
    ],
)
def test_a_bank_on_disk_is_a_thousandth_of_all_patch_features(categories: int, shots: int, limit: int) -> None:
    """Random vectors of DINOv2 L's width, which no compression helps."""
    bank = MemoryBank(
        category_id=np.repeat(np.arange(categories), shots),
        shot=np.tile(np.arange(shots), categories),
        foreground_weight=np.ones(categories * shots),
        feature=np.random.default_rng(0).standard_normal((categories * shots, 1024), dtype=np.float32),
    )
    assert len(table_to_parquet(bank)) < limit


# --- views -----------------------------------------------------------------------------------------------------------


def _reference(encoder: DINOv2, bounds: Bounds) -> tuple[np.ndarray, np.ndarray, Crop]:
    image, _ = _scene()
    mask = np.zeros(image.shape[:2], dtype=bool)
    left, top, right, bottom = bounds
    mask[top:bottom, left:right] = True
    size = encoder.architecture.image_size
    return image, mask, crop_reference(image, mask, np.array(bounds, dtype=float), context_ratio=0.2, size=size)


def _views(encoder: DINOv2, image: np.ndarray, mask: np.ndarray, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """The feature of the large crop, and the mean with that of the others."""
    encoded = encode_references(encoder, [crop])
    in_image = pool(encode_image(encoder, image), torch.from_numpy(mask))
    (seen,) = encode_views(encoder, encoded, [crop], [in_image])
    assert seen.foreground_weight == encoded[0].foreground_weight
    return encoded[0].feature_C, seen.feature_C


def test_a_view_is_the_mean_feature_of_the_patches_inside_the_mask() -> None:
    features = random_tensor(16, 3)
    mask = np.zeros((8, 12), dtype=bool)
    mask[:4, :3] = True  # the first column's upper two patches, of 2 x 3 pixels
    pooled = pool(features, torch.from_numpy(mask))
    assert pooled is not None
    np.testing.assert_allclose(pooled.numpy(), features[[0, 4]].mean(dim=0).numpy(), rtol=1e-6)


def test_a_view_in_which_the_mask_hardly_covers_a_patch_says_nothing() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[:4, :4] = True
    assert pool(random_tensor(16, 3), mask) is None


def test_views_are_the_mean_of_a_large_crop_a_small_one_and_the_image(encoder: DINOv2) -> None:
    image, mask, crop = _reference(encoder, (10, 10, 70, 50))
    large, mean = _views(encoder, image, mask, crop)
    in_image = pool(encode_image(encoder, image), torch.from_numpy(mask))
    assert in_image is not None
    small = mean * 3 - large - in_image.numpy()
    assert not np.allclose(small, large, atol=1e-3)
    assert np.isfinite(small).all()


def test_without_the_image_two_views_are_left(encoder: DINOv2) -> None:
    image, mask, crop = _reference(encoder, (10, 10, 70, 50))
    encoded = encode_references(encoder, [crop])
    (two,) = encode_views(encoder, encoded, [crop], [None])
    in_image = pool(encode_image(encoder, image), torch.from_numpy(mask))
    (three,) = encode_views(encoder, encoded, [crop], [in_image])
    assert in_image is not None
    np.testing.assert_allclose(three.feature_C, (2 * two.feature_C + in_image.numpy()) / 3, atol=1e-5)


def test_what_a_mask_holds_is_most_like_the_reference_that_holds_the_same() -> None:
    features = random_tensor(16, 8)
    left = np.zeros((8, 8), dtype=bool)
    left[:, :4] = True
    halves = [pool(features, torch.from_numpy(mask)) for mask in (left, ~left)]
    bank = torch.stack([half * 3 for half in halves if half is not None]).numpy()
    for mask, same in ((left, 0), (~left, 1)):
        found = similarities(features, mask, bank)
        assert found is not None
        assert found[same] == pytest.approx(1)
        assert found[1 - same] < 1
    assert similarities(features, np.zeros((8, 8), dtype=bool), bank) is None
