"""Crops show what is in and around a mask, and similarities change by what they show."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.second_look import SecondLook
from refseg_core.models.architectures import EncoderArchitecture
from refseg_core.models.preprocessing import to_unit_range
from tests.refseg_core.models.toy_encoder import ColorEncoder
from tests.support.closeness import assert_close
from tests.support.models import random_tensor, tiny_encoder

_SIDE, _GRID, _CROP = 20, 16, 224  # of masks and patches; pixels of a crop in an encoder of 70 pixels and 5 x 5 patches
_COLORS = EncoderArchitecture(3, 1, 1, image_size=70)
_PLACES = EncoderArchitecture(_GRID**2, 1, 1, image_size=70)
_PRIMARIES = torch.eye(3)  # prototypes that are a patch of plain red, green or blue
_RED, _BLUE = (255, 0, 0), (0, 0, 255)


class _Seen(ColorEncoder):
    """Keeps the crops that it encodes, whose features are their mean colors."""

    def __init__(self) -> None:
        super().__init__(_COLORS)
        self.gray.zero_()
        self.crops: list[Tensor] = []

    def forward(self, images_B3EE: Tensor, *, grid_size: int | None = None) -> Tensor:
        self.crops.extend(images_B3EE)
        return super().forward(images_B3EE, grid_size=grid_size)


class _Places(ColorEncoder):
    """A channel of its own for every patch, so that a mean feature is how much each patch counts."""

    def forward(self, images_B3EE: Tensor, *, grid_size: int | None = None) -> Tensor:
        assert grid_size == _GRID
        return torch.eye(_GRID**2).expand(len(images_B3EE), -1, -1)


def _look(
    encoder: ColorEncoder, *, part_penalty: float = 0.0, prototypes: Tensor = _PRIMARIES, batch: int = 8
) -> SecondLook:
    return SecondLook(encoder, prototypes, batch=BatchSize(batch), part_penalty=part_penalty)


def _image(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _masks(*rectangles: tuple[int, int, int, int]) -> Tensor:
    """True within x_min, y_min, x_max, y_max, the last ones not included."""
    masks = torch.zeros(len(rectangles), _SIDE, _SIDE, dtype=torch.bool)
    for row, (left, top, right, bottom) in enumerate(rectangles):
        masks[row, top:bottom, left:right] = True
    return masks


def _blobs(seed: int, number: int = 1) -> Tensor:
    """Smooth masks of any shape."""
    coarse = random_tensor(number, 1, 5, 5, seed=seed) - 0.5
    return F.interpolate(coarse, size=(_SIDE, _SIDE), mode="bicubic")[:, 0] > 0


def _plain(color: Sequence[int], height: int = 60, width: int = 80) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), color, dtype=np.uint8)


@pytest.mark.parametrize(
    ("rectangle", "square"),
    [
        ((8, 9, 12, 11), (152, 52, 248, 148)),  # 80 x 20 px around (200, 100)
        ((0, 0, 4, 4), (0, 0, 88, 68)),  # 80 x 40 px around (40, 20), cut at the left and the top
        ((16, 18, 20, 20), (312, 142, 400, 200)),  # 80 x 20 px around (360, 190), cut at the right and the bottom
        ((0, 0, 20, 20), (0, 0, 400, 200)),
        ((5, 5, 6, 6), (98, 43, 122, 67)),  # 20 x 10 px around (110, 55)
    ],
)
def test_crops_are_squares_a_fifth_larger_than_masks_and_cut_at_borders(
    rectangle: tuple[int, int, int, int], square: tuple[int, int, int, int]
) -> None:
    image, encoder = _image(200, 400), _Seen()
    _look(encoder)(image, _masks(rectangle), torch.zeros(1, 3))
    left, top, right, bottom = square
    pixels = to_unit_range(image[top:bottom, left:right])[None]
    expected = F.interpolate(pixels, size=(_CROP, _CROP), mode="bicubic", antialias=True)[0].clamp(0, 1)
    (crop,) = encoder.crops
    assert_close(crop, expected, atol=1e-6, rtol=0)


def _read(mask: npt.NDArray[np.bool_], x: float, y: float) -> float:
    """The mask between the centers of its cells, and beyond them as in the outermost cell; x and y in cells."""
    x, y = (min(max(place, 0.5), _SIDE - 0.5) for place in (x, y))
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    value = 0.0
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        if 0 <= column < _SIDE and 0 <= row < _SIDE and mask[row, column]:
            value += (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
    return value


def _square(mask: npt.NDArray[np.bool_], height: int, width: int) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    left, right = columns[0] * width / _SIDE, (columns[-1] + 1) * width / _SIDE
    top, bottom = rows[0] * height / _SIDE, (rows[-1] + 1) * height / _SIDE
    half = 0.6 * max(right - left, bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2
    first = max(0, math.floor(x - half)), max(0, math.floor(y - half))
    return *first, min(width, math.ceil(x + half)), min(height, math.ceil(y + half))


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), height=st.integers(5, 90), width=st.integers(5, 90))
def test_patches_count_by_the_share_of_them_that_is_inside(seed: int, height: int, width: int) -> None:
    mask = _blobs(seed)
    assume(mask.any())
    left, top, right, bottom = _square(mask[0].numpy(), height, width)
    along = (np.arange(_GRID * 4) + 0.5) / (_GRID * 4)
    x, y = (left + (right - left) * along) * _SIDE / width, (top + (bottom - top) * along) * _SIDE / height
    values = np.array([[_read(mask[0].numpy(), column, row) for column in x] for row in y])
    assume(np.abs(values - 0.5).min() > 1e-4)
    share = torch.from_numpy((values > 0.5).reshape(_GRID, 4, _GRID, 4).mean(axis=(1, 3)).flatten())
    assume(0.5 < share.sum() < _GRID**2 - 0.5)
    look = _look(_Places(_PLACES), part_penalty=0.5, prototypes=torch.eye(_GRID**2))
    expected = (1 + F.normalize(share, dim=0)) / 2 - 0.5 * F.normalize(1 - share, dim=0)
    revised = look(_image(height, width), mask, torch.ones(1, _GRID**2))
    assert_close(revised[0], expected.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("part_penalty", [0.0, 0.3, 2.0])
def test_a_mask_that_fills_its_crop_has_no_background(part_penalty: float) -> None:
    look = _look(_Seen(), part_penalty=part_penalty)
    revised = look(_plain(_RED), _masks((0, 0, _SIDE, _SIDE)), torch.tensor([[0.6, 0.2, 0.0]]))
    assert_close(revised, torch.tensor([[0.8, 0.1, 0.0]]))


@pytest.mark.parametrize("part_penalty", [0.0, 0.1, 0.3])
def test_a_background_like_the_prototype_costs_the_penalty(part_penalty: float) -> None:
    look = _look(_Seen(), part_penalty=part_penalty)
    revised = look(_plain(_RED), _masks((8, 8, 12, 12)), torch.tensor([[0.6, 0.2, 0.0]]))
    assert_close(revised, torch.tensor([[0.8 - part_penalty, 0.1, 0.0]]))


def test_a_background_unlike_the_prototype_costs_nothing_and_its_category_all() -> None:
    image = _plain(_BLUE, 80, 80)
    image[32:48, 32:48] = _RED
    revised = _look(_Seen(), part_penalty=0.5)(image, _masks((8, 8, 12, 12)), torch.tensor([[1.0, 0.0, 0.6]]))
    assert revised[0, 0] > 0.9
    assert revised[0, 2] < 0.05


def test_similarities_stay_between_nothing_and_everything() -> None:
    mask, whole = _masks((8, 8, 12, 12)), torch.tensor([[1.0, 0.1, 1.0]])
    prototypes = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    image = _plain(_RED)
    image[24:36, 32:48] = 0  # what is inside has no likeness at all
    revised = _look(_Seen(), part_penalty=2.0, prototypes=prototypes)(image, mask, whole)
    assert revised.tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "mask", [torch.zeros(1, 256, 256), F.one_hot(torch.tensor([4]), 256)[..., None].expand(1, 256, 256)]
)
def test_a_mask_that_vanishes_in_its_crop_keeps_what_it_has(mask: Tensor) -> None:
    """As an empty one, or a line that runs between the points at which it is read."""
    similarity = torch.tensor([[0.6, 0.2, 0.0]])
    revised = _look(_Seen(), part_penalty=0.3)(_plain(_RED, 80, 80), mask > 0, similarity)
    assert torch.equal(revised, similarity)


def test_without_candidates_nothing_is_encoded() -> None:
    encoder = _Seen()
    assert _look(encoder)(_plain(_RED), _masks(), torch.zeros(0, 3)).shape == (0, 3)
    assert encoder.crops == []


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 7), part_penalty=st.sampled_from((0.0, 0.3, 2.0)))
def test_neither_the_order_of_candidates_nor_batches_matter(seed: int, batch: int, part_penalty: float) -> None:
    encoder, image, masks = tiny_encoder(), _image(60, 80, seed), _blobs(seed, 6)
    prototypes = F.normalize(random_tensor(3, 32, seed=seed) - 0.5, dim=1)
    similarity = random_tensor(6, 3, seed=seed + 1)
    looks = [SecondLook(encoder, prototypes, batch=BatchSize(n), part_penalty=part_penalty) for n in (6, batch)]
    expected, order = (
        looks[0](image, masks, similarity),
        torch.randperm(6, generator=torch.Generator().manual_seed(seed)),
    )
    assert_close(looks[1](image, masks[order], similarity[order]), expected[order], atol=1e-5, rtol=0)
    assert ((expected >= 0) & (expected <= 1)).all()
    assert not torch.equal(expected, similarity)


def test_what_is_around_a_mask_costs_categories_and_no_negatives() -> None:
    encoder, image, masks = tiny_encoder(), _image(60, 80), _blobs(0, 6)
    prototypes = F.normalize(random_tensor(3, 32, seed=0) - 0.5, dim=1)
    similarity = 0.5 + random_tensor(6, 3, seed=1) / 2

    def look(part_penalty: float, num_negatives: int) -> Tensor:
        looker = SecondLook(
            encoder, prototypes, batch=BatchSize(8), part_penalty=part_penalty, num_negatives=num_negatives
        )
        return looker(image, masks, similarity)

    found = look(0.3, 1)
    assert torch.equal(found[:, :2], look(0.3, 0)[:, :2])
    assert torch.equal(found[:, 2], look(0.0, 0)[:, 2])
    assert not torch.equal(found[:, 2], look(0.3, 0)[:, 2])
