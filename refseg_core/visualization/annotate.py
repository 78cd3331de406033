"""Instances over their image: fill, contour, box and label, in the color of their category.

Frames: original (H x W pixels; where masks and boxes are given), picture (what is drawn, at a size that can be
read). Everything is drawn at the picture's size, one instance at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import Rle, boxes_of_masks
from refseg_core.visualization.drawing import Boxes, Color, Numbers, Picture, Strokes, draw_box, draw_mask, resized
from refseg_core.visualization.label_placement import draw_labels
from refseg_core.visualization.mask_coverage import Coverage, cover, picture_size
from refseg_core.visualization.palette import category_colors


def draw_instances(
    image: Picture,
    masks: Sequence[Rle | None],
    boxes_xyxy: Numbers | None,
    labels: Sequence[str],
    color_indices: Sequence[int] | npt.NDArray[np.integer[Any]],
    *,
    scores: Sequence[float] | Numbers | None = None,
) -> Picture:
    """Draws N instances over their image.

    `image`: uint8 RGB [H, W, 3]. `masks`: run lengths of that size, None for an instance that has only a box; they are
    not decoded where the picture is smaller than the image. `boxes_xyxy`: [N, 4], along pixel edges of the original
    frame; None draws only those around specks, which could be overlooked. `labels`: names in any script.
    `color_indices`: class indices from 0. `scores`: in [0, 1], written after the names; the labels of the best find
    their places first.

    Returns uint8 RGB, its longer side between 640 and 1600 pixels, its size a function of the image's alone. What is
    farther than two pixels from every mask, box and label is the (resized) image, unchanged. In a crowd the text gets
    smaller, and a label that finds no room near its instance without covering another is left out.
    Raises ValueError naming whatever has the wrong shape or length.
    """
    columns = {"labels": labels, "color indices": color_indices, "scores": scores}
    _check(image, masks, boxes_xyxy, columns)
    size = picture_size(*image.shape[:2])
    canvas = resized(image, size)
    strokes = Strokes.suiting(size)
    coverages = [None if mask is None else cover(mask, size) for mask in masks]
    palette = category_colors(max(map(int, color_indices), default=-1) + 1).tolist()
    colors: list[Color] = [tuple(palette[int(index)]) for index in color_indices]
    for index in _largest_first(coverages):
        draw_mask(canvas, coverages[index], colors[index], strokes.contour)
    boxes_N4 = _extents(coverages) if boxes_xyxy is None else _in_picture(boxes_xyxy, image.shape[:2], size)
    boxes_N4, is_speck_N = _around_specks(boxes_N4, strokes.speck)
    for index in np.flatnonzero(is_speck_N | (boxes_xyxy is not None)).tolist():
        draw_box(canvas, boxes_N4[index], colors[index], strokes.box)
    order = _largest_first(coverages) if scores is None else np.argsort(-np.asarray(scores), kind="stable").tolist()
    shown = [""] * len(labels) if scores is None else [f"{score:.2f}" for score in scores]
    draw_labels(canvas, list(zip(labels, shown, strict=True)), boxes_N4, colors, order, text_size=strokes.text)
    return np.array(canvas)


def _check(
    image: Picture,
    masks: Sequence[Rle | None],
    boxes_xyxy: Numbers | None,
    columns: Mapping[str, Any],
) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:  # noqa: PLR2004
        raise ValueError(f"the image must be uint8 RGB [H, W, 3], got {image.dtype} {list(image.shape)}")
    faults = [
        f"{len(values)} {name}" for name, values in columns.items() if values is not None and len(values) != len(masks)
    ]
    if boxes_xyxy is not None and boxes_xyxy.size != 4 * len(masks):
        faults.append(f"boxes of shape {list(boxes_xyxy.shape)}")
    sizes = {mask.size for mask in masks if mask is not None}
    faults += [f"a mask of {list(size)}" for size in sizes if size != image.shape[:2]]
    if min(columns["color indices"], default=0) < 0:
        faults.append("a negative color index")
    if faults:
        there = f"{len(masks)} masks on an image of {list(image.shape[:2])}"
        raise ValueError(f"{there} do not go with " + ", ".join(faults))


def _largest_first(coverages: Sequence[Coverage | None]) -> list[int]:
    """So that small things lie on top of large ones."""
    areas = [0 if coverage is None else int(coverage.alpha.sum(dtype=np.int64)) for coverage in coverages]
    return sorted(range(len(areas)), key=lambda index: -areas[index])


def _extents(coverages: Sequence[Coverage | None]) -> Boxes:
    """Boxes [N, 4] of what is covered in the picture; not a number where nothing is."""
    boxes = np.full((len(coverages), 4), np.nan)
    for index, coverage in enumerate(coverages):
        if coverage is not None:
            left, top, right, bottom = boxes_of_masks(coverage.alpha[None] > 0)[0]
            boxes[index] = np.array([left, top, right + 1, bottom + 1]) + (coverage.left, coverage.top) * 2
    return boxes


def _in_picture(boxes_xyxy: Numbers, original: tuple[int, ...], picture: tuple[int, int]) -> Boxes:
    height, width = picture
    scale = np.array([width / original[1], height / original[0]] * 2)
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4) * scale
    return np.asarray(boxes.clip(0, [width, height, width, height]))


def _around_specks(boxes_N4: Boxes, smallest: float) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Returns the boxes, none shorter than `smallest` on both sides, and which ones were."""
    sides_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2]
    is_speck_N: npt.NDArray[np.bool_] = np.all(sides_N2 < smallest, axis=1)
    centers_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
    grown_N4 = np.concatenate([centers_N2 - smallest / 2, centers_N2 + smallest / 2], axis=1)
    return np.asarray(np.where(is_speck_N[:, None], grown_N4, boxes_N4)), is_speck_N
