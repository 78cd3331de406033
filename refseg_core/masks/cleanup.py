"""Islands and holes of masks: the small ones are removed and filled. Not here: whether, and below which area.

All runs of all masks are worked on at once; masks are never decoded. A run is what of a mask lies in one column, one
pixel above the other. An island is what hangs together by edges or corners of pixels, a hole the background that an
island encloses, which hangs together by edges only.

Shapes: N masks, R runs, E pairs of runs that touch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import Rle, rle_from_counts, run_lengths

VERSION = 2  # of what is left of masks, and of labels that it makes one

_Ints = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


class _Runs(NamedTuple):
    """Runs [R] in the order of masks, columns and rows: rows from `top` up to, not including, `bottom`."""

    mask: _Ints
    column: _Ints
    top: _Ints
    bottom: _Ints

    def where(self, chosen_R: _Flags) -> "_Runs":
        return _Runs(*(values[chosen_R] for values in self))


def clean_masks(rles: Sequence[Rle], *, min_island: int = 0, min_hole: int = 0) -> list[Rle]:
    """Returns the masks, holes of fewer than `min_hole` pixels filled, then islands of fewer than `min_island` gone.

    A mask's largest island stays whatever its area, the first of equal ones, so that no mask becomes empty. A hole that
    reaches the image's border is none. Masks in which nothing is small are returned as they are.
    """
    found = list(rles)
    if min_hole > 1:
        found = _filled(found, min_hole)
    if min_island > 1:
        found = _without_islands(found, min_island)
    return found


def _filled(rles: list[Rle], min_hole: int) -> list[Rle]:
    sizes_N2 = _sizes(rles)
    background = _runs_of(rles, sizes_N2, first=0)
    hole_R, areas = _parts(background, sizes_N2, by_corners=False)
    heights_R, widths_R = sizes_N2[background.mask].T
    at_border = (background.column == 0) | (background.column == widths_R - 1)
    at_border |= (background.top == 0) | (background.bottom == heights_R)
    is_open = np.bincount(hole_R[at_border], minlength=len(areas)) > 0
    stays_R = ((areas >= min_hole) | is_open)[hole_R]
    return _replaced(rles, background, stays_R, is_foreground=False)


def _without_islands(rles: list[Rle], min_island: int) -> list[Rle]:
    foreground = _runs_of(rles, _sizes(rles), first=1)
    island_R, areas = _parts(foreground, _sizes(rles), by_corners=True)
    stays_R = (areas >= min_island)[island_R] | _is_largest(foreground.mask, island_R, areas, len(rles))
    return _replaced(rles, foreground, stays_R, is_foreground=True)


def _is_largest(mask_R: _Ints, island_R: _Ints, areas: _Ints, num_masks: int) -> _Flags:
    """Returns which runs belong to the largest island of their mask."""
    largest_N = np.zeros(num_masks, dtype=np.int64)
    np.maximum.at(largest_N, mask_R, areas[island_R])
    is_as_large = areas[island_R] == largest_N[mask_R]
    first_N = np.full(num_masks, len(areas), dtype=np.int64)
    np.minimum.at(first_N, mask_R[is_as_large], island_R[is_as_large])
    flags: _Flags = island_R == first_N[mask_R]
    return flags


def _sizes(rles: Sequence[Rle]) -> _Ints:
    """Heights and widths [N, 2]."""
    return np.array([rle.size for rle in rles], dtype=np.int64).reshape(-1, 2)


def _runs_of(rles: Sequence[Rle], sizes_N2: _Ints, *, first: int) -> _Runs:
    """Returns the runs of the background (`first` 0) or of the foreground (1), cut where a column ends."""
    starts, stops, num_spans = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], []
    for rle in rles:
        ends = run_lengths(rle.counts).cumsum()
        spans = np.concatenate(([0], ends))[first : len(ends) + 1]
        spans = spans[: len(spans) - len(spans) % 2].reshape(-1, 2)
        spans = spans[spans[:, 0] < spans[:, 1]]
        starts.append(spans[:, 0])
        stops.append(spans[:, 1])
        num_spans.append(len(spans))
    mask = np.repeat(np.arange(len(rles)), num_spans)
    return _cut_at_columns(mask, np.concatenate(starts), np.concatenate(stops), sizes_N2[mask, 0])


def _cut_at_columns(mask: _Ints, start: _Ints, stop: _Ints, height: _Ints) -> _Runs:
    first_column, last_column = start // height, (stop - 1) // height
    num_columns = last_column - first_column + 1
    source = np.repeat(np.arange(len(start)), num_columns)
    column = first_column[source] + _places_within(num_columns)
    top = np.maximum(start[source] - column * height[source], 0)
    bottom = np.minimum(stop[source] - column * height[source], height[source])
    return _Runs(mask[source], column, top, bottom)


def _places_within(numbers: _Ints) -> _Ints:
    """Returns 0 to n - 1 for each n of the numbers, one after the other."""
    places: _Ints = np.arange(numbers.sum()) - np.repeat(numbers.cumsum() - numbers, numbers)
    return places


def _parts(runs: _Runs, sizes_N2: _Ints, *, by_corners: bool) -> tuple[_Ints, _Ints]:
    """Returns each run's part [R], numbered by its first run, and the pixels of each part, by that number [R]."""
    part_R = _connected(len(runs.mask), *_touching(runs, sizes_N2, reach=int(by_corners)))
    areas = np.bincount(part_R, weights=runs.bottom - runs.top, minlength=len(part_R)).astype(np.int64)
    return part_R, areas


def _touching(runs: _Runs, sizes_N2: _Ints, *, reach: int) -> tuple[_Ints, _Ints]:
    """Returns pairs of runs [E] of neighboring columns of a mask that share an edge, or with `reach` 1 a corner."""
    heights_N, widths_N = sizes_N2.T
    stride = int(heights_N.max(initial=0)) + 2  # no run reaches into the next column's numbers
    columns_before_N = (widths_N + 1).cumsum() - (widths_N + 1)  # one between two masks
    offset = (columns_before_N[runs.mask] + runs.column) * stride
    top, bottom = offset + runs.top, offset + runs.bottom
    first = np.searchsorted(bottom, top + stride - reach, side="right")
    beyond = np.searchsorted(top, bottom + stride + reach, side="left")
    num_touching = np.maximum(beyond - first, 0)
    left = np.repeat(np.arange(len(top)), num_touching)
    return left, first[left] + _places_within(num_touching)


def _connected(num_runs: int, left: _Ints, right: _Ints) -> _Ints:
    """Returns the first run [R] of all that each run is connected to, by whatever way."""
    label = np.arange(num_runs)
    while True:
        of_left, of_right = label[left], label[right]
        if np.array_equal(of_left, of_right):
            return label
        lowest = np.minimum(of_left, of_right)
        np.minimum.at(label, of_left, lowest)
        np.minimum.at(label, of_right, lowest)
        while not np.array_equal(label, jumped := label[label]):
            label = jumped


def _replaced(rles: list[Rle], runs: _Runs, stays_R: _Flags, *, is_foreground: bool) -> list[Rle]:
    """Returns the masks made of the runs that stay: of themselves, or of what is not background."""
    found = list(rles)
    kept = runs.where(stays_R)
    begins = np.searchsorted(kept.mask, np.arange(len(rles) + 1))
    for row in np.unique(runs.mask[~stays_R]).tolist():
        part = slice(begins[row], begins[row + 1])
        start = kept.column[part] * rles[row].size[0]
        found[row] = _encoded(start + kept.top[part], start + kept.bottom[part], rles[row].size, is_foreground)
    return found


def _encoded(start: _Ints, stop: _Ints, size: tuple[int, int], is_foreground: bool) -> Rle:
    """Encodes ascending spans of pixels, column by column, that are foreground or background."""
    ends = np.stack((start, stop), axis=1).ravel()
    meets_next = np.flatnonzero(stop[:-1] == start[1:])
    ends = np.delete(ends, np.concatenate((2 * meets_next + 1, 2 * meets_next + 2)))
    num_pixels = size[0] * size[1]
    counts = np.diff(np.concatenate(([0], ends, [num_pixels])))
    if not is_foreground:  # where a span of no foreground comes first
        counts = counts[1:] if counts[0] == 0 else np.concatenate(([0], counts))
    return rle_from_counts(counts[: len(counts) - (counts[-1] == 0)].tolist(), *size)
