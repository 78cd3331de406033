"""A sheet of thumbnails, uint8 RGB on white paper.

What does not fit is made smaller; where it would be too small to see, it is left out and the sheet says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from refseg_core.visualization.drawing import Picture, resized
from refseg_core.visualization.text import readable, text_width, write

_PAPER, _INK, _FAINT = (255, 255, 255), (25, 25, 25), (105, 105, 105)
_MOST_SHEET_PIXELS, _LONGEST_SHEET_SIDE, _SMALLEST_TILE = 16_000_000, 16_000, 96
_SHEET_ASPECT = 4 / 3
_WIDEST_HEADING = 4  # tiles


def contact_sheet(
    tiles: Sequence[Picture],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    *,
    heading: str = "",
    tile_side: int = 256,
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
    heading_width = min(text_width(readable(heading), grid.text + 2) + 2 * grid.gap, _WIDEST_HEADING * tile_side)
    width = max(grid.width, heading_width)  # few tiles are narrower than what is said of them
    sheet = Image.new("RGB", (width, head + grid.height + foot), _PAPER)
    line = (grid.gap, width - 2 * grid.gap)
    write(sheet, heading, (line[0], grid.gap, line[1]), size=grid.text + 2, color=_INK)
    for index in range(grid.num):
        row, column = divmod(index, grid.columns)
        left = grid.gap + column * (grid.cell_width + grid.gap)
        top = head + grid.gap + row * grid.row_height
        height, width = tiles[index].shape[:2]
        scale = min(grid.cell_height / height, grid.cell_width / width, 1)
        tile = resized(tiles[index], (max(1, round(height * scale)), max(1, round(width * scale))))
        sheet.paste(tile, (left + (grid.cell_width - tile.width) // 2, top + (grid.cell_height - tile.height) // 2))
        if titles is not None:
            place = (left, top + grid.cell_height + grid.text // 5, grid.cell_width)
            write(sheet, titles[index], place, size=grid.text, color=_INK)
    if foot:
        more = f"and {len(tiles) - grid.num} more"
        write(sheet, more, (line[0], sheet.height - foot, line[1]), size=grid.text, color=_FAINT)
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
    """Returns the grid with the largest tiles that fit; at the smallest size, with as many tiles as fit."""
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
