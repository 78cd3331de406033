"""One picture of few things: two panels with captions, one instance in its surroundings.

All are uint8 RGB on white paper.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance

from refseg_core.masks.rle import Rle, decode_mask, encode_masks
from refseg_core.visualization.drawing import Boxes, Color, Numbers, Picture, Strokes, draw_box, draw_mask, resized
from refseg_core.visualization.mask_coverage import cover
from refseg_core.visualization.palette import category_colors
from refseg_core.visualization.text import write

_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (25, 25, 25), (105, 105, 105), (236, 236, 236)
# Around an instance, on every side, as a multiple of its box's longer side; and the least that is shown at all.
_CONTEXT, _LEAST_CROP = 0.35, 48
_SURROUNDINGS_BRIGHTNESS, _INSTANCE_OPACITY = 0.6, 0.12


def side_by_side(left: Picture, right: Picture, titles: tuple[str, str]) -> Picture:
    """Two pictures, uint8 RGB, at the lower one's height, each below its title."""
    height = min(left.shape[0], right.shape[0])
    widths = [max(1, round(panel.shape[1] * height / panel.shape[0])) for panel in (left, right)]
    panels = [resized(panel, (height, width)) for panel, width in zip((left, right), widths, strict=True)]
    text = max(13, round((height * max(panel.width for panel in panels)) ** 0.5 / 36))
    # A narrow panel gets room for its title.
    widths = [max(panel.width, 16 * text) for panel in panels]
    top = round(2.2 * text)
    sheet = Image.new("RGB", (sum(widths) + 3 * text, top + height + text), _PAPER)
    x = text
    for panel, width, title in zip(panels, widths, titles, strict=True):
        write(sheet, title, (x, round(0.45 * text), width), size=text, color=_INK)
        sheet.paste(panel, (x + (width - panel.width) // 2, top))
        x += width + text
    return np.array(sheet)


def reference_panel(
    image: Picture,
    box_xyxy: Numbers | Sequence[float],
    mask: Rle | None,
    *,
    category_name: str,
    color_index: int,
    annotation_id: str,
    mask_source: str,
    mask_score: float | None = None,
    side: int = 224,
) -> Picture:
    """One reference in its surroundings, and below it its category, its annotation's id and where its mask is from.

    `mask`: None while there is none. `mask_source`: 'dataset', 'segmenter' or 'none'. `mask_score`: the segmenter's
    predicted IoU. The rest as for `instance_panel`.
    """
    source = "no mask yet" if mask_source == "none" else f"mask: {mask_source}"
    details = f"{annotation_id}, {source}" + ("" if mask_score is None else f" {mask_score:.2f}")
    return instance_panel(
        image, box_xyxy, mask, name=category_name, details=details, color_index=color_index, side=side
    )


def instance_panel(
    image: Picture,
    box_xyxy: Numbers | Sequence[float],
    mask: Rle | None,
    *,
    name: str,
    details: str,
    color_index: int,
    side: int = 224,
) -> Picture:
    """One instance: a square of its image with everything but the mask dimmed, and below it two lines of text.

    `image`: uint8 RGB [H, W, 3]. `box_xyxy`: [4], along pixel edges. `mask`: run lengths, or None: then its box is
    drawn. Returns uint8 RGB [side + caption, side, 3]; the caption's height depends on `side` alone.
    Raises ValueError when the mask is not of the image's size.
    """
    if mask is not None and mask.size != image.shape[:2]:
        raise ValueError(f"the mask must have the image's size {list(image.shape[:2])}, got {list(mask.size)}")
    left, top, right, bottom = surroundings(np.asarray(box_xyxy, dtype=np.float64), image.shape)
    crop = image[top:bottom, left:right]
    scale = side / max(crop.shape[:2])
    size = (max(1, round(crop.shape[0] * scale)), max(1, round(crop.shape[1] * scale)))
    red, green, blue = (int(level) for level in category_colors(color_index + 1)[color_index])
    canvas = resized(crop, size)
    if mask is None:
        box = (np.asarray(box_xyxy, dtype=np.float64) - (left, top, left, top)) * scale
        draw_box(canvas, box, (red, green, blue), Strokes.suiting(size).box + 1)
    else:
        part = encode_masks(decode_mask(mask)[None, top:bottom, left:right])[0]
        canvas = _spotlit(canvas, part, (red, green, blue))
    return _captioned(canvas, side, name, details)


def surroundings(box_xyxy: Boxes, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns the square around a box, moved into the image and cut where the image is smaller: xyxy, whole pixels."""
    wanted = max(_LEAST_CROP, (box_xyxy[2:] - box_xyxy[:2]).max() * (1 + 2 * _CONTEXT))
    edges = []
    for first, last, length in zip(box_xyxy[:2], box_xyxy[2:], (shape[1], shape[0]), strict=True):
        side = min(round(wanted), length)
        start = min(max(round((first + last - side) / 2), 0), length - side)
        edges.append((start, start + side))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _spotlit(canvas: Image.Image, mask: Rle, color: Color) -> Image.Image:
    """Returns the canvas with all but the mask dimmed, and the mask's contour."""
    coverage = cover(mask, (canvas.height, canvas.width))
    light = Image.new("L", canvas.size)
    if coverage is not None:
        light.paste(Image.fromarray(coverage.alpha), (coverage.left, coverage.top))
    dimmed = ImageEnhance.Brightness(canvas).enhance(_SURROUNDINGS_BRIGHTNESS)
    spotlit = Image.composite(canvas, dimmed, light)
    thickness = Strokes.suiting((canvas.height, canvas.width)).contour + 0.5
    draw_mask(spotlit, coverage, color, thickness, fill_opacity=_INSTANCE_OPACITY)
    return spotlit


def _captioned(picture: Image.Image, side: int, name: str, details: str) -> Picture:
    large, small = max(12, round(side / 19)), max(10, round(side / 25))
    panel = Image.new("RGB", (side, side + round(1.4 * (large + small))), _PAPER)
    panel.paste(_EMPTY, (0, 0, side, side))
    panel.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    write(panel, name, (0, side + 1, side), size=large, color=_INK)
    write(panel, details, (0, side + 1 + round(1.3 * large), side), size=small, color=_FAINT)
    return np.array(panel)
