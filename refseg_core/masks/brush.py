"""Masks as Label Studio's brush has them: run lengths of an RGBA picture, packed into bits.

32 bits say how many values the picture has, 5 bits how long a value is (less one), four times 4 bits how long the kinds
of lengths are (less one). Then come runs: a set bit, two bits for the kind of the length, the length less one, and the
value that is repeated; or a cleared bit, the length in the same way, and that many values.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refseg_core.masks.rle import Rle, encode_masks

_BITS = 8
_CHANNELS = 4
_OPAQUE = 128  # of 255: what is at least so opaque is in the mask


def mask_of_brush(packed: Sequence[int], height: int, width: int) -> Rle:
    """Returns the mask of a brush. Raises ValueError where it is cut off, or not of an image of that size."""
    if not all(type(byte) is int for byte in packed):  # NumPy takes 2.7 for 2, and the text 1_0 for 10
        raise ValueError("a brush is no list of bytes")
    bits = _Bits(np.unpackbits(np.array(packed, dtype=np.uint8)))
    number, word = bits.number(32), bits.number(5) + 1
    sizes = [bits.number(4) + 1 for _ in range(4)]
    if number != height * width * _CHANNELS or word != _BITS:
        raise ValueError(f"{number} values of {word} bits are no picture of {width} x {height}")
    values: list[npt.NDArray[np.uint8]] = []
    left = number
    while left > 0:
        is_repeated = bits.number(1)
        length = bits.number(sizes[bits.number(2)]) + 1
        given = [bits.number(word) for _ in range(1 if is_repeated else length)]
        values.append(np.repeat(np.array(given, dtype=np.uint8), length if is_repeated else 1))
        left -= length
    if left < 0:
        raise ValueError("the runs are longer than the picture")
    alpha = np.concatenate(values or [np.zeros(0, dtype=np.uint8)]).reshape(height, width, _CHANNELS)[..., -1]
    return encode_masks((alpha >= _OPAQUE)[None])[0]


class _Bits:
    """Bits that are read one number after the other, highest bit first."""

    def __init__(self, bits: npt.NDArray[np.uint8]) -> None:
        self._bits = bits.tolist()
        self._place = 0

    def number(self, num_bits: int) -> int:
        """Returns the next number. Raises ValueError where there are no more bits."""
        end = self._place + num_bits
        if end > len(self._bits):
            raise ValueError("the brush is cut off")
        value = 0
        for bit in self._bits[self._place : end]:
            value = value << 1 | bit
        self._place = end
        return value
