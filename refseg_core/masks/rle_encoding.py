"""COCO's run lengths of packed masks, for all masks at once and without a look at every pixel.

A run ends where a pixel differs from the one before it, column by column. Eight pixels are compared with their
predecessors by one XOR; only the few bytes where something differs are looked at bit by bit. The strings are those of
`pycocotools.mask.encode`: from the third on, a run is written as the difference to the last but one; five bits a
character, the lowest first, a sixth bit where more follow, characters from '0' on.

Shapes: N masks, H x W pixels, B = ceil(H / 8) bytes of a column, T ends of runs in all masks, R runs in all masks.
"""

import numpy as np
import numpy.typing as npt

from refseg_core.masks.bitmasks import set_bits
from refseg_core.masks.rle import Rle

_Ints = npt.NDArray[np.int64]
_DIGIT_BITS, _MORE, _SIGN, _FIRST_CHARACTER = 5, 0x20, 0x10, 48
_HIGHEST_BIT = 0x80
_LAST_WRITTEN_AS_IT_IS = 2  # index of the run


def encode_packed(columns_NWB: npt.NDArray[np.uint8], height: int) -> list[Rle]:
    """Returns the run lengths of packed masks (`bitmasks.py`), uint8 [N, W, B]."""
    num_masks, width, _ = columns_NWB.shape
    if num_masks == 0:
        return []
    size = (height, width)
    mask_T, place_T = _ends_of_runs(columns_NWB, height)
    runs_R, num_runs_N = _runs(mask_T, place_T, num_masks, height * width)
    characters, stops_R = _characters(_differences(runs_R, num_runs_N))
    text = characters.tobytes().decode("ascii")
    stops_N = np.concatenate(([0], stops_R))[num_runs_N.cumsum()].tolist()
    starts_N = [0, *stops_N[:-1]]
    return [Rle(size, text[start:stop]) for start, stop in zip(starts_N, stops_N, strict=True)]


def _ends_of_runs(columns_NWB: npt.NDArray[np.uint8], height: int) -> tuple[_Ints, _Ints]:
    """For every pixel that differs from the one before: its mask and its place, column by column; ascending."""
    _, width, num_bytes = columns_NWB.shape
    before = columns_NWB + columns_NWB  # shifted by one pixel; NumPy adds bytes far faster than it shifts them
    before[:, :, 1:] |= columns_NWB[:, :, :-1] >= _HIGHEST_BIT
    last_bit = (height - 1) % 8
    before[:, 1:, 0] |= (columns_NWB[:, :-1, -1] >> last_bit) & 1
    before ^= columns_NWB
    before[:, :, -1] &= (2 << last_bit) - 1  # nothing lies below the last row
    place = set_bits(before.reshape(-1))
    column, y = np.divmod(place, num_bytes * 8)
    mask, x = np.divmod(column, width)
    return mask, x * height + y


def _runs(mask_T: _Ints, place_T: _Ints, num_masks: int, num_pixels: int) -> tuple[_Ints, _Ints]:
    """Runs of all masks one after the other, background first, and how many each mask has."""
    num_ends_N = np.bincount(mask_T, minlength=num_masks)
    num_runs_N = num_ends_N + 1
    last_R = num_runs_N.cumsum() - 1
    stops_R = np.empty(len(mask_T) + num_masks, dtype=np.int64)
    is_last = np.zeros(len(stops_R), dtype=bool)
    is_last[last_R] = True
    stops_R[is_last] = num_pixels
    stops_R[~is_last] = place_T
    runs_R = np.diff(stops_R, prepend=0)
    runs_R[num_ends_N.cumsum()[:-1] + np.arange(1, num_masks)] += num_pixels  # the first of the next mask
    return runs_R, num_runs_N


def _differences(runs_R: _Ints, num_runs_N: _Ints) -> _Ints:
    """Returns what is written for each run."""
    index_R = np.arange(len(runs_R)) - np.repeat(num_runs_N.cumsum() - num_runs_N, num_runs_N)
    written_R = runs_R.copy()
    written_R[2:] -= np.where(index_R[2:] > _LAST_WRITTEN_AS_IT_IS, runs_R[:-2], 0)
    return written_R


def _characters(numbers_R: _Ints) -> tuple[npt.NDArray[np.uint8], _Ints]:
    """Returns all characters, and where each number's end."""
    digits, is_used = [], []
    left, more = numbers_R, np.ones(len(numbers_R), dtype=bool)
    while more.any():
        digit = left & (_MORE - 1)
        left = left >> _DIGIT_BITS
        is_used.append(more)
        more = more & np.where(digit & _SIGN, left != -1, left != 0)
        digits.append((digit + np.where(more, _MORE, 0) + _FIRST_CHARACTER).astype(np.uint8))
    used_RD = np.stack(is_used, axis=1) if is_used else np.zeros((0, 1), dtype=bool)
    digits_RD = np.stack(digits, axis=1) if digits else np.zeros((0, 1), dtype=np.uint8)
    return digits_RD[used_RD], used_RD.sum(axis=1).cumsum()
