"""Areas that masks share, counted on the CPU without a look at every pixel of every pair.

The frame is cut into tiles of 16 x 16 pixels. Where one of two masks covers a tile whole, they share in it what the
other covers there: all pairs and tiles at once are a product of matrices. Only the masks whose outlines run through a
tile are compared there pixel by pixel, and these are few.

Shapes: N masks, H x W pixels, B = ceil(H / 8) bytes of a column, T tiles of a strip, P = 256 pixels of a tile,
n masks with an outline in a tile.
"""

import numpy as np
import numpy.typing as npt

_SIDE = 16  # of a tile, px
_BYTES = _SIDE // 8  # of a tile's column
_TILES_AT_ONCE = 4_096  # of a strip; far fewer than 2^24 pixels, so that halves of what they share are exact in float32

_Bytes = npt.NDArray[np.uint8]
_Words = npt.NDArray[np.uint64]
_Floats = npt.NDArray[np.float64]


def areas(columns_NWB: _Bytes) -> _Floats:
    """Returns the pixels of each packed mask, float64 [N]."""
    num_bytes = columns_NWB.shape[1] * columns_NWB.shape[2]
    if num_bytes % 8:
        return np.asarray(np.bitwise_count(columns_NWB).sum(axis=(1, 2)), dtype=np.float64)
    words = np.ascontiguousarray(columns_NWB).reshape(len(columns_NWB), num_bytes).view(np.uint64)
    return np.asarray(np.bitwise_count(words).sum(axis=1), dtype=np.float64)


def shared_areas(columns_NWB: _Bytes, height: int) -> _Floats:
    """Returns the pixels that each two packed masks share, float64 [N, N]."""
    num_masks, width, num_bytes = columns_NWB.shape
    shared_NN = np.zeros((num_masks, num_masks))
    strip = max(1, _TILES_AT_ONCE * _BYTES // num_bytes) * _SIDE  # columns
    for start in range(0, width, strip):
        columns = columns_NWB[:, start : start + strip]
        shared_NN += _shared_in_tiles(_tiles(columns), _tiles(_all_of(columns.shape[1], height)[None])[0])
    return shared_NN


def _all_of(width: int, height: int) -> _Bytes:
    """Returns the packed mask that covers everything, uint8 [W, B]."""
    return np.tile(np.packbits(np.ones(height, dtype=np.uint8), bitorder="little"), (width, 1))


def _tiles(columns_NWB: _Bytes) -> _Bytes:
    """Returns the bytes of each tile, uint8 [N, T, P / 8]."""
    num_masks, width, num_bytes = columns_NWB.shape
    padded = np.pad(columns_NWB, ((0, 0), (0, -width % _SIDE), (0, -num_bytes % _BYTES)))
    pairs = padded.view(np.uint16).reshape(num_masks, padded.shape[1] // _SIDE, _SIDE, padded.shape[2] // _BYTES)
    tiles = np.ascontiguousarray(pairs.transpose(0, 1, 3, 2))
    return tiles.view(np.uint8).reshape(num_masks, tiles.shape[1] * tiles.shape[2], _SIDE * _BYTES)


def _shared_in_tiles(tiles_NTP: _Bytes, whole_TP: _Bytes) -> _Floats:
    count_NT, most_T = _counts(tiles_NTP), _counts(whole_TP)
    is_whole_NT = count_NT == most_T
    whole_NT = is_whole_NT.astype(np.float32)
    # Where both are whole, the sum below counts the tile twice: so each brings half of it. Halves are exact, too.
    of_whole_NN = (count_NT - whole_NT * (most_T / 2)) @ whole_NT.T
    shared_NN = np.asarray(of_whole_NN + of_whole_NN.T, dtype=np.float64)
    return shared_NN + _shared_where_both_are_cut(tiles_NTP.view(np.uint64), (count_NT > 0) & ~is_whole_NT)


def _shared_where_both_are_cut(tiles_NTQ: _Words, is_cut_NT: npt.NDArray[np.bool_]) -> _Floats:
    """Returns the pixels that masks share in tiles with outlines of both; every one with those after it in its tile."""
    num_masks = len(is_cut_NT)
    tile_e, mask_e = np.nonzero(is_cut_NT.T)
    words_eQ, end_e = tiles_NTQ[mask_e, tile_e], np.searchsorted(tile_e, tile_e, side="right")
    shared_NN = np.zeros((num_masks, num_masks))
    one, distance = np.arange(len(tile_e)), 0
    while len(one := one[one + distance < end_e[one]]):
        other = one + distance
        pixels = np.bitwise_count(words_eQ[one] & words_eQ[other]).sum(axis=1, dtype=np.float64)
        np.add.at(shared_NN.reshape(-1), mask_e[one] * num_masks + mask_e[other], pixels)
        distance += 1
    return shared_NN + np.triu(shared_NN, 1).T


def _counts(tiles_P: _Bytes) -> npt.NDArray[np.float32]:
    """Returns the pixels of each tile."""
    return np.asarray(np.bitwise_count(tiles_P.view(np.uint64)).sum(axis=-1), dtype=np.float32)
