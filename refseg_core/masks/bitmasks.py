"""Boolean masks, eight pixels a byte: packed where the logits are, read on the host.

A mask lies column by column, as COCO's run lengths count, and every column begins a byte; the first pixel is a byte's
lowest bit, and bits below the last row are 0. Not here: run lengths themselves (`rle_encoding.py`).

Shapes: N masks, H x W pixels of the original frame, B = ceil(H / 8) bytes and Q = ceil(H / 64) words of a column.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.masks.overlaps import areas, shared_areas

WORD_BITS = 64
Words = npt.NDArray[np.uint64]

_BITS = 8
_BYTES_PER_BLOCK = 16_384  # of a mask unpacked at once while overlaps are counted


@dataclass(frozen=True)
class PackedMasks:
    """N masks of one size: uint8 [N, W, B], and the height H in pixels."""

    columns_NWB: Tensor
    height: int

    def __len__(self) -> int:
        return len(self.columns_NWB)

    def __getitem__(self, rows_n: Tensor) -> "PackedMasks":
        """Returns the masks of rows, int64 [n]."""
        # Indexing copies byte by byte, which takes several times as long.
        return PackedMasks(self.columns_NWB.index_select(0, rows_n), self.height)

    @classmethod
    def of(cls, masks_NHW: Tensor) -> "PackedMasks":
        """Packs boolean masks."""
        num_masks, height, width = masks_NHW.shape
        if num_masks == 0:  # whose strides may be anything, which what follows cannot view
            return cls(torch.empty(0, width, -(-height // _BITS), dtype=torch.uint8, device=masks_NHW.device), height)
        pixels = masks_NHW.contiguous().view(torch.uint8)
        if height % _BITS or width % _BITS:
            pixels = F.pad(pixels, (0, -width % _BITS, 0, -height % _BITS))
        # Eight pixels of a row at a time: each is 0 or 1, so that none is shifted out of its byte.
        words = pixels.view(torch.int64).view(num_masks, -(-height // _BITS), _BITS, -(-width // _BITS))
        packed = words[:, :, 0].clone()
        for bit in range(1, _BITS):
            packed |= words[:, :, bit] << bit
        return cls(packed.view(torch.uint8)[..., :width].transpose(1, 2).contiguous(), height)

    @classmethod
    def concatenate(cls, parts: list["PackedMasks"]) -> "PackedMasks":
        """Returns all masks of the parts, which are of one size, in order."""
        return cls(torch.cat([part.columns_NWB for part in parts]), parts[0].height)

    def replaced(self, others: "PackedMasks") -> "PackedMasks":
        """Returns these masks, the first of them replaced by the others; an empty one replaces nothing."""
        rows_N = torch.arange(len(self), device=self.columns_NWB.device)
        is_there_n = others.areas() > 0
        rows_N[: len(others)] += len(self) * is_there_n
        return PackedMasks.concatenate([self, others])[rows_N]

    def unpack(self) -> Tensor:
        """bool [N, H, W]."""
        return _unpack_bits(self.columns_NWB)[..., : self.height].transpose(1, 2)

    @property
    def _is_on_the_host(self) -> bool:
        return self.columns_NWB.device.type == "cpu"

    def areas(self) -> Tensor:
        """Pixels of each mask, float64 [N]."""
        if self._is_on_the_host:
            return torch.from_numpy(areas(self.columns_NWB.numpy()))
        counts_N = self.columns_NWB.new_zeros(len(self), dtype=torch.float64)
        for block in self.columns_NWB.flatten(1).split(_BYTES_PER_BLOCK, dim=1):
            counts_N += _unpack_bits(block).flatten(1).sum(dim=1)
        return counts_N

    def shared_areas(self) -> Tensor:
        """Pixels that each two masks share, float64 [N, N]."""
        if self._is_on_the_host:
            return torch.from_numpy(shared_areas(self.columns_NWB.numpy(), self.height))
        shared_NN = self.columns_NWB.new_zeros(len(self), len(self), dtype=torch.float64)
        for block in self.columns_NWB.flatten(1).split(_BYTES_PER_BLOCK, dim=1):
            pixels = _unpack_bits(block).to(torch.float32)
            shared_NN += pixels @ pixels.T  # exact: far fewer than 2^24 pixels in a block
        return shared_NN


def _unpack_bits(packed: Tensor) -> Tensor:
    """bool, the last dimension eight times as long."""
    values = torch.tensor([1 << bit for bit in range(_BITS)], dtype=torch.uint8, device=packed.device)
    return (packed[..., None].bitwise_and(values) != 0).flatten(-2)


def set_bits(flags: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Returns where bits of bytes [n] are set, ascending; few are, so whole words are passed over first."""
    words = np.pad(flags, (0, -len(flags) % 8)).view(np.int64) if len(flags) % 8 else flags.view(np.int64)
    word = np.flatnonzero(words)
    found = np.flatnonzero(np.unpackbits(words[word].view(np.uint8), bitorder="little").view(np.bool_))
    places: npt.NDArray[np.int64] = word[found >> 6] * WORD_BITS + (found & (WORD_BITS - 1))
    return places


def words_of_columns(columns_NWB: npt.NDArray[np.uint8]) -> Words:
    """Returns packed columns in 64-bit words, each column from a whole word on: uint64 [N, W, ceil(H / 64)]."""
    padded = np.pad(columns_NWB, ((0, 0), (0, 0), (0, -columns_NWB.shape[2] % 8)))
    return np.ascontiguousarray(padded).view(np.uint64)


def moved_up(words_NWQ: Words) -> Words:
    """Returns columns of words with every pixel one row further up."""
    moved_NWQ = words_NWQ >> np.uint64(1)
    moved_NWQ[..., :-1] |= words_NWQ[..., 1:] << np.uint64(WORD_BITS - 1)
    return moved_NWQ


def moved_down(words_NWQ: Words) -> Words:
    """Returns columns of words with every pixel one row further down."""
    moved_NWQ = words_NWQ << np.uint64(1)
    moved_NWQ[..., 1:] |= words_NWQ[..., :-1] >> np.uint64(WORD_BITS - 1)
    return moved_NWQ


def first_rows(number: int, num_words: int) -> Words:
    """Returns a column of words in which the first rows are set, uint64 [Q]."""
    rows = np.arange(num_words * WORD_BITS) < number
    return np.packbits(rows, bitorder="little").view(np.uint64)


def extents(columns_NWB: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Inclusive extents (x_min, y_min, x_max, y_max) int64 [N, 4]; zeros where a mask is empty."""
    num_masks, width, num_bytes = columns_NWB.shape
    rows_NH = np.unpackbits(np.bitwise_or.reduce(columns_NWB, axis=1), axis=1, bitorder="little").view(np.bool_)
    y_min, y_max = _first_and_last(rows_NH)
    x_min, x_max = (
        ends // num_bytes for ends in _first_and_last(columns_NWB.reshape(num_masks, width * num_bytes) != 0)
    )
    boxes_N4 = np.stack([x_min, y_min, x_max, y_max], axis=1)
    return np.asarray(boxes_N4 * rows_NH.any(axis=1, keepdims=True), dtype=np.int64)


def _first_and_last(occupied_NL: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return occupied_NL.argmax(axis=1), occupied_NL.shape[1] - 1 - occupied_NL[:, ::-1].argmax(axis=1)
