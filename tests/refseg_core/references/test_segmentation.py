"""Boxes become masks in the image's own frame; where nothing is found the box itself is the mask."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from refseg_core.errors import UnusableReferenceError
from refseg_core.masks.rle import boxes_of_masks
from refseg_core.models.protocols import ImageEmbedding
from refseg_core.models.sam2 import SAM2
from refseg_core.references.segmentation import PromptedImage, segment_boxes, segment_points
from refseg_core.settings import Conventions
from tests.support.models import tiny_segmenter


@pytest.fixture
def segmenter() -> SAM2:
    return tiny_segmenter()


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _draw_boxes(_: ImageEmbedding, boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
    """A decoder that finds exactly what a box holds, to the nearest of its 16 x 16 cells."""
    logits = torch.full((len(boxes_N4), 16, 16), -1.0)
    for mask, (left, top, right, bottom) in zip(logits, (boxes_N4 / 4).round().int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return logits, 0.5 + boxes_N4[:, 0] / 100


def _find_nothing(_: ImageEmbedding, boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full((len(boxes_N4), 16, 16), -1.0), torch.full((len(boxes_N4),), 0.8)


def _filled(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def _draw(*pictures: list[str]) -> Callable[[ImageEmbedding, Tensor], tuple[Tensor, Tensor]]:
    """A decoder that answers one box after the other with these drawings, '#' where there is something.

    They are in the frame of its 16 x 16 cells.
    """
    logits = torch.full((len(pictures), 16, 16), -1.0)
    for mask, picture in zip(logits, pictures, strict=True):
        for row, line in enumerate(picture):
            mask[row, : len(line)] = torch.tensor([1.0 if character == "#" else -1.0 for character in line])
    masks = iter(logits)
    return lambda _, boxes_N4: (torch.stack([next(masks) for _ in boxes_N4]), torch.full((len(boxes_N4),), 0.8))


def test_boxes_are_scaled_to_the_segmenter_frame_and_masks_back(
    segmenter: SAM2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "decode_boxes", _draw_boxes)
    boxes = [(50, 20, 150, 60), (0, 0, 25, 80), (175, 75, 200, 80)]
    masks, scores = segment_boxes(segmenter, _image(80, 200), np.array(boxes, dtype=np.float64))
    assert masks.dtype == bool
    np.testing.assert_array_equal(boxes_of_masks(masks) + np.array([0, 0, 1, 1]), boxes)
    for mask, box in zip(masks, boxes, strict=True):
        assert (mask != _filled(80, 200, box)).mean() < 0.005  # upsampling rounds the corners off
    np.testing.assert_allclose(scores, [0.66, 0.5, 1.06], rtol=1e-6)


def test_where_nothing_is_found_the_mask_is_the_box(segmenter: SAM2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "decode_boxes", _find_nothing)
    boxes = np.array([[2.5, 3.0, 7.2, 9.0], [-4, -3, 5, 6], [15, 10, 40, 30]])
    masks, scores = segment_boxes(segmenter, _image(12, 20), boxes)
    for mask, box in zip(masks, [(2, 3, 8, 9), (0, 0, 5, 6), (15, 10, 20, 12)], strict=True):
        np.testing.assert_array_equal(mask, _filled(12, 20, box))
    assert scores.tolist() == [0, 0, 0]


@pytest.mark.parametrize("conventions", ["corrected", "original"])
@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((-10, 3, -5, 9), "misses the image, which is 20 wide and 12 high"),
        ((3, -10, 9, -5), "misses the image"),
        ((20, 3, 40, 9), "misses the image"),
        ((3, 3, 3, 9), "has no area"),
        ((9, 3, 3, 9), "has no area"),
        ((float("nan"), 3, 5, 9), "no finite number"),
    ],
)
def test_a_box_that_covers_nothing_is_refused(
    segmenter: SAM2, box: tuple[float, ...], problem: str, conventions: Conventions
) -> None:
    boxes = np.array([(1, 1, 5, 5), box], dtype=np.float64)
    with pytest.raises(UnusableReferenceError, match=problem):
        segment_boxes(segmenter, _image(12, 20), boxes, conventions=conventions)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (700, 2), (64, 64)])
def test_masks_have_the_images_size(segmenter: SAM2, size: tuple[int, int]) -> None:
    height, width = size
    masks, scores = segment_boxes(segmenter, _image(*size), np.array([[0.0, 0.0, width, height]]))
    assert masks.shape == (1, *size)
    assert masks.any()
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()


def test_other_boxes_of_the_image_change_nothing(segmenter: SAM2) -> None:
    image, boxes = _image(60, 90), np.array([[5.0, 5, 40, 30], [30, 20, 80, 55], [0, 0, 90, 60]])
    masks, scores = segment_boxes(segmenter, image, boxes)
    assert (masks[0] != masks[1]).any()
    for row in range(3):
        alone, score = segment_boxes(segmenter, image, boxes[row : row + 1])
        assert (alone[0] != masks[row]).mean() < 1e-3
        np.testing.assert_allclose(score[0], scores[row], atol=1e-5)


# --- the published conventions ---------------------------------------------------------------------------------------

_RING = ["", " #####", " #####", " ## ##", " #####", " #####"]
_BOXES = np.array([[1.0, 1, 6, 6], [2.4, 3, 9.6, 8], [-3, 2, 40, 4]])


def test_originally_masks_lose_their_holes_and_end_a_pixel_earlier(
    segmenter: SAM2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(segmenter, "decode_boxes", _draw(_RING, _RING))
    exact, _ = segment_boxes(segmenter, _image(16, 16), _BOXES[:1])
    masks, scores = segment_boxes(segmenter, _image(16, 16), _BOXES[:1], conventions="original")
    assert exact.sum() == 24
    np.testing.assert_array_equal(masks[0], _filled(16, 16, (1, 1, 5, 5)))
    np.testing.assert_allclose(scores, [0.8])
    assert not caplog.text


def test_originally_parts_too_small_for_a_polygon_are_dropped_with_a_warning(
    segmenter: SAM2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(segmenter, "decode_boxes", _draw([*_RING, "", "#", "", "  ######"]))
    masks, _ = segment_boxes(segmenter, _image(16, 16), _BOXES[:1], conventions="original")
    np.testing.assert_array_equal(masks[0], _filled(16, 16, (1, 1, 5, 5)))
    assert "box [1.0, 1.0, 6.0, 6.0]" in caplog.text
    assert "2 of 3 parts are dropped" in caplog.text


def test_originally_the_box_is_the_mask_where_no_polygon_is_left(
    segmenter: SAM2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(segmenter, "decode_boxes", _draw(_RING, ["", "   #"], []))
    masks, scores = segment_boxes(segmenter, _image(16, 16), _BOXES, conventions="original")
    for mask, box in zip(masks, [(1, 1, 5, 5), (2, 3, 10, 8), (0, 2, 16, 4)], strict=True):
        np.testing.assert_array_equal(mask, _filled(16, 16, box))
    np.testing.assert_allclose(scores, [0.8, 0, 0])
    assert "box [2.4, 3.0, 9.6, 8.0]" in caplog.text
    assert "The box itself becomes the mask." in caplog.text


# --- points ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("points", "chosen"), [([(8, 6)], 2), ([(8, 6), (12, 9)], 0)])
def test_one_point_takes_the_best_of_three_masks_and_several_the_single_one(
    segmenter: SAM2, monkeypatch: pytest.MonkeyPatch, points: list[tuple[int, int]], chosen: int
) -> None:
    prompts: list[torch.Tensor] = []

    def decode(_: ImageEmbedding, coordinates: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        prompts.append(coordinates)
        logits = torch.full((1, 4, 16, 16), -1.0)
        for mask in range(4):
            logits[:, mask, : 4 * (mask + 1)] = 1
        return logits, torch.tensor([[0.9, 0.2, 0.8, 0.3]])

    monkeypatch.setattr(segmenter, "_decode", decode)
    mask, score = segment_points(segmenter, _image(32, 64), np.array(points, dtype=np.float64))
    assert mask.sum() == 64 * 8 * (chosen + 1)
    assert score == pytest.approx([0.9, 0.2, 0.8, 0.3][chosen])
    assert prompts[0].tolist() == [[[x, 2 * y] for x, y in points]]


@pytest.mark.parametrize("points", [[], [(20, 3)], [(3, 12)], [(-1, 3)], [(float("nan"), 3)]])
def test_points_outside_of_the_image_are_refused(segmenter: SAM2, points: list[tuple[float, float]]) -> None:
    with pytest.raises(UnusableReferenceError, match="expected one or more"):
        segment_points(segmenter, _image(12, 20), np.array(points, dtype=np.float64).reshape(-1, 2))


def test_an_image_that_is_asked_about_several_times_is_embedded_once(
    segmenter: SAM2, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, boxes = _image(32, 64), np.array([[4.0, 4, 30, 20], [20, 8, 60, 30]])
    masks, scores = segment_boxes(segmenter, image, boxes)
    at_points, score = segment_points(segmenter, image, np.array([[20.0, 10]]))
    embedded: list[int] = []
    original = segmenter.embed

    def embed(images_B3SS: Tensor) -> ImageEmbedding:
        embedded.append(len(images_B3SS))
        return original(images_B3SS)

    monkeypatch.setattr(segmenter, "embed", embed)
    prompted = PromptedImage(segmenter, image)
    for box, mask, expected in zip(boxes, masks, scores, strict=True):
        found, predicted_iou = prompted.in_box(box)
        assert np.array_equal(found, mask)
        assert predicted_iou == pytest.approx(expected, abs=1e-6)
    again, predicted_iou = prompted.at_points(np.array([[20.0, 10]]))
    assert np.array_equal(again, at_points)
    assert (predicted_iou, embedded) == (pytest.approx(score, abs=1e-6), [1])


def test_a_box_in_which_nothing_is_found_is_the_mask(segmenter: SAM2, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = (torch.full((1, 16, 16), -1.0), torch.tensor([0.9]))
    monkeypatch.setattr(segmenter, "decode_boxes", lambda embedding, boxes: nothing)
    mask, predicted_iou = PromptedImage(segmenter, _image(12, 20)).in_box(np.array([2.0, 3, 8, 9]))
    expected = np.zeros((12, 20), dtype=bool)
    expected[3:9, 2:8] = True
    assert (np.array_equal(mask, expected), predicted_iou) == (True, 0.0)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [30, 1, 40, 5], [float("nan"), 0, 4, 4]])
def test_a_box_without_area_or_beside_the_image_is_refused(segmenter: SAM2, box: list[float]) -> None:
    with pytest.raises(UnusableReferenceError):
        PromptedImage(segmenter, _image(12, 20)).in_box(np.array(box, dtype=np.float64))
