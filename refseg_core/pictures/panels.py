"""Pictures put together: two panels with captions, one reference, a sheet of thumbnails.

All are uint8 RGB on white paper. What does not fit is made smaller; where it would be too small to see, it is left
out and the sheet says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from refseg_core.masks import Masks, Rle, decode_mask
from refseg_core.pictures.colours import category_colours
from refseg_core.pictures.coverage import cover
from refseg_core.pictures.instances import Numbers
from refseg_core.pictures.lettering import BUNDLED, Typeface, write
from refseg_core.pictures.painting import Boxes, Colour, Picture, Strokes, draw_box, draw_mask, resized

_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (25, 25, 25), (105, 105, 105), (236, 236, 236)
# Around a reference, on every side, as a multiple of its box's longer side; and the least that is shown at all.
_CONTEXT, _LEAST_CROP = 0.35, 48
_SURROUNDINGS_BRIGHTNESS, _REFERENCE_OPACITY = 0.6, 0.12
_MOST_SHEET_PIXELS, _LONGEST_SHEET_SIDE, _SMALLEST_TILE = 16_000_000, 16_000, 96
_SHEET_ASPECT = 4 / 3
_MASK_SOURCES = {
    "dataset": "mask from the dataset",
    "segmenter": "mask from the segmenter",
    "none": "no mask yet",
}


def side_by_side(left: Picture, right: Picture, titles: tuple[str, str], *, typeface: Typeface = BUNDLED) -> Picture:
    """Two pictures, uint8 RGB, at the lower one's height, each below its title."""
    height = min(left.shape[0], right.shape[0])
    panels = [_at_height(panel, height) for panel in (left, right)]
    text = max(13, round((height * max(panel.width for panel in panels)) ** 0.5 / 36))
    # A narrow panel gets room for its title.
    widths = [max(panel.width, 16 * text) for panel in panels]
    top = round(2.2 * text)
    sheet = Image.new("RGB", (sum(widths) + 3 * text, top + height + text), _PAPER)
    x = text
    for panel, width, title in zip(panels, widths, titles, strict=True):
        write(sheet, title, (x, round(0.45 * text), width), size=text, colour=_INK, face=typeface)
        sheet.paste(panel, (x + (width - panel.width) // 2, top))
        x += width + text
    return np.array(sheet)


def reference_panel(
    image: Picture,
    box_xyxy: Numbers | Sequence[float],
    mask: Masks | Rle | None,
    *,
    category_name: str,
    colour_index: int,
    shot: int,
    mask_source: str,
    mask_score: float | None = None,
    side: int = 224,
    typeface: Typeface = BUNDLED,
) -> Picture:
    """One reference: a square of its image with everything but the mask dimmed, and below it what it is.

    `image`: uint8 RGB [H, W, 3]. `box_xyxy`: [4], along pixel edges. `mask`: bool [H, W], run lengths, or None while
    there is none: then its box is drawn. `mask_source`: 'dataset', 'segmenter' or 'none'. `mask_score`: the
    segmenter's predicted IoU. Returns uint8 RGB [side + caption, side, 3]; the caption's height depends on `side`
    alone. Raises ValueError when the mask is not of the image's size.
    """
    mask_size = image.shape[:2] if mask is None else mask.size if isinstance(mask, Rle) else mask.shape
    if tuple(mask_size) != image.shape[:2]:
        raise ValueError(f"the mask must have the image's size {list(image.shape[:2])}, got {list(mask_size)}")
    left, top, right, bottom = _surroundings(np.asarray(box_xyxy, dtype=np.float64), image.shape)
    crop = image[top:bottom, left:right]
    scale = side / max(crop.shape[:2])
    size = (max(1, round(crop.shape[0] * scale)), max(1, round(crop.shape[1] * scale)))
    red, green, blue = (int(level) for level in category_colours(colour_index + 1)[colour_index])
    canvas = resized(crop, size)
    if mask is None:
        box = (np.asarray(box_xyxy, dtype=np.float64) - (left, top, left, top)) * scale
        draw_box(canvas, box, (red, green, blue), Strokes.suiting(size).box + 1)
    else:
        whole = decode_mask(mask) if isinstance(mask, Rle) else mask
        canvas = _spotlit(canvas, whole[top:bottom, left:right], (red, green, blue))
    source = _MASK_SOURCES.get(mask_source, f"mask from {mask_source}")
    score = "" if mask_score is None else f" {mask_score:.2f}"
    return _captioned(canvas, side, category_name, f"shot {shot}, {source}{score}", typeface)


def contact_sheet(
    tiles: Sequence[Picture],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    *,
    heading: str = "",
    tile_side: int = 256,
    typeface: Typeface = BUNDLED,
) -> Picture:
    """Thumbnails in reading order, each above its title, below a heading.

    `tiles`: uint8 RGB of any sizes; they are reduced to cells of their usual shape whose longer side is `tile_side`
    (a reference panel of the default side just fits). `columns`: None for a sheet somewhat wider than high. A sheet
    has 16 megapixels at most: tiles get smaller, down to 96 pixels, and those that still find no room are counted
    below. Raises ValueError unless there is a title per tile or none.
    """
    if titles is not None and len(titles) != len(tiles):
        raise ValueError(f"a contact sheet needs a title per tile or none, got {len(titles)} for {len(tiles)} tiles")
    if not tiles:
        tiles, titles = [np.full((_SMALLEST_TILE, tile_side, 3), 255, dtype=np.uint8)], ["nothing to show"]
    aspect = float(np.median([tile.shape[0] / tile.shape[1] for tile in tiles]))
    grid = _fitting_grid(len(tiles), min(max(aspect, 0.4), 2.5), columns, tile_side, titles is not None)
    head, foot = (grid.text * 2 if heading else 0), (grid.text * 2 if grid.num < len(tiles) else 0)
    sheet = Image.new("RGB", (grid.width, head + grid.height + foot), _PAPER)
    line = (grid.gap, grid.width - 2 * grid.gap)
    write(sheet, heading, (line[0], grid.gap, line[1]), size=grid.text + 2, colour=_INK, face=typeface)
    for index in range(grid.num):
        row, column = divmod(index, grid.columns)
        left = grid.gap + column * (grid.cell_width + grid.gap)
        top = head + grid.gap + row * grid.row_height
        tile = _fitted(tiles[index], grid.cell_height, grid.cell_width)
        sheet.paste(tile, (left + (grid.cell_width - tile.width) // 2, top + (grid.cell_height - tile.height) // 2))
        if titles is not None:
            place = (left, top + grid.cell_height + grid.text // 5, grid.cell_width)
            write(sheet, titles[index], place, size=grid.text, colour=_INK, face=typeface)
    if foot:
        more = f"and {len(tiles) - grid.num} more"
        write(sheet, more, (line[0], sheet.height - foot, line[1]), size=grid.text, colour=_FAINT, face=typeface)
    return np.array(sheet)


class _Grid(NamedTuple):
    """Cells of one size in a sheet; pixels."""

    num: int
    columns: int
    cell_height: int
    cell_width: int
    gap: int
    text: int
    has_titles: bool

    @property
    def row_height(self) -> int:
        return self.cell_height + self.gap + (round(1.5 * self.text) if self.has_titles else 0)

    @property
    def width(self) -> int:
        return self.columns * (self.cell_width + self.gap) + self.gap

    @property
    def height(self) -> int:
        return -(-self.num // self.columns) * self.row_height + self.gap

    @property
    def fits(self) -> bool:
        """Whether the sheet keeps its bounds."""
        longest = max(self.width, self.height)
        return longest <= _LONGEST_SHEET_SIDE and self.width * self.height <= _MOST_SHEET_PIXELS


def _fitting_grid(num: int, aspect: float, columns: int | None, tile_side: int, has_titles: bool) -> _Grid:
    """The grid with the largest tiles that fit; at the smallest size, with as many tiles as fit."""
    for side in [*range(tile_side, _SMALLEST_TILE, -8), min(tile_side, _SMALLEST_TILE)]:
        grid = _grid(num, aspect, columns, side, has_titles)
        if grid.fits:
            return grid
    while not grid.fits:
        num = int(num * 0.98)
        grid = _grid(num, aspect, columns, side, has_titles)
    return grid


def _grid(num: int, aspect: float, columns: int | None, side: int, has_titles: bool) -> _Grid:
    height, width = max(1, round(side * min(aspect, 1))), max(1, round(side / max(aspect, 1)))
    usual = round((num * _SHEET_ASPECT * height / width) ** 0.5)
    text = max(10, round(side / 17))
    return _Grid(num, max(1, min(columns or usual, num)), height, width, max(4, side // 24), text, has_titles)


def _at_height(picture: Picture, height: int) -> Image.Image:
    return resized(picture, (height, max(1, round(picture.shape[1] * height / picture.shape[0]))))


def _fitted(picture: Picture, height: int, width: int) -> Image.Image:
    """The picture reduced until it fits into the cell."""
    scale = min(height / picture.shape[0], width / picture.shape[1], 1)
    return resized(picture, (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))))


def _surroundings(box_xyxy: Boxes, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The square around a box, moved into the image and cut where the image is smaller: xyxy, whole pixels."""
    wanted = max(_LEAST_CROP, (box_xyxy[2:] - box_xyxy[:2]).max() * (1 + 2 * _CONTEXT))
    edges = []
    for first, last, length in zip(box_xyxy[:2], box_xyxy[2:], (shape[1], shape[0]), strict=True):
        side = min(round(wanted), length)
        start = min(max(round((first + last - side) / 2), 0), length - side)
        edges.append((start, start + side))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _spotlit(canvas: Image.Image, mask_HW: Masks, colour: Colour) -> Image.Image:
    """The canvas with all but the mask dimmed, and the mask's contour."""
    coverage = cover(mask_HW, (canvas.height, canvas.width))
    light = Image.new("L", canvas.size)
    if coverage is not None:
        light.paste(Image.fromarray(coverage.alpha), (coverage.left, coverage.top))
    dimmed = ImageEnhance.Brightness(canvas).enhance(_SURROUNDINGS_BRIGHTNESS)
    spotlit = Image.composite(canvas, dimmed, light)
    thickness = Strokes.suiting((canvas.height, canvas.width)).contour + 0.5
    draw_mask(spotlit, coverage, colour, thickness, fill_opacity=_REFERENCE_OPACITY)
    return spotlit


def _captioned(picture: Image.Image, side: int, name: str, details: str, typeface: Typeface) -> Picture:
    large, small = max(12, round(side / 19)), max(10, round(side / 25))
    panel = Image.new("RGB", (side, side + round(1.4 * (large + small))), _PAPER)
    panel.paste(_EMPTY, (0, 0, side, side))
    panel.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    write(panel, name, (0, side + 1, side), size=large, colour=_INK, face=typeface)
    write(panel, details, (0, side + 1 + round(1.3 * large), side), size=small, colour=_FAINT, face=typeface)
    return np.array(panel)
