"""Pixels reach the models as they did in the published runs, to the last bit where that is promised."""

import numpy as np
import pytest
import torch

from refseg_core.models.preprocessing import normalize, resize_to_square, to_unit_range
from tests.support.closeness import assert_close
from tests.support.oracles import original


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_levels_are_divided_by_255_not_multiplied_by_its_reciprocal() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    for channel in to_unit_range(levels):
        np.testing.assert_array_equal(channel.numpy().ravel(), expected)
    assert (expected != np.arange(256, dtype=np.float32) * np.float32(1 / 255)).any()


def test_channels_come_first_in_rgb_order() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[1, 2] = (255, 0, 51)
    values = to_unit_range(image)
    assert values.shape == (3, 2, 3)
    assert values[:, 1, 2].tolist() == pytest.approx([1, 0, 0.2])


def test_read_only_and_flipped_images_are_read_and_left_alone() -> None:
    image = _image(4, 5)
    expected = to_unit_range(image)
    frozen = image.copy()
    frozen.flags.writeable = False
    assert torch.equal(to_unit_range(frozen), expected)
    assert torch.equal(to_unit_range(np.asfortranarray(image)), expected)
    assert torch.equal(to_unit_range(image[::-1, ::-1]), expected.flip(1, 2))
    to_unit_range(image).zero_()
    assert torch.equal(to_unit_range(image), expected)


@pytest.mark.parametrize("size", [(20, 30), (7, 5), (1, 1), (3, 50), (33, 16)])
def test_resizing_is_pillows_antialiased_bicubic_to_a_level(size: tuple[int, int]) -> None:
    image = _image(*size)
    # Pillow goes along the rows first and cuts and rounds to levels after each direction.
    along = original.interpolate(image.astype(np.float64), (size[0], 16), original.antialiased_cubic).clip(0, 255)
    expected = original.interpolate(along.round(), (16, 16), original.antialiased_cubic).clip(0, 255)
    frames = resize_to_square(image, 16)
    assert frames.dtype == np.uint8
    assert frames.shape == (16, 16, 3)
    assert np.abs(frames - expected).max() < 1


def test_resizing_a_square_of_the_right_size_changes_nothing() -> None:
    image = _image(16, 16)
    np.testing.assert_array_equal(resize_to_square(image, 16), image)


def test_normalizing_takes_imagenets_mean_to_zero_and_its_deviation_to_one() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    images = torch.cat((mean, mean + deviation, mean - 2 * deviation))
    expected = torch.tensor([0.0, 1.0, -2.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    assert_close(normalize(images), expected, atol=1e-6, rtol=0)
