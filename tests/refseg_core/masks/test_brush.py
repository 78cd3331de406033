"""Label Studio's brushes are read back as the masks that they were made of."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refseg_core.masks.brush import mask_of_brush
from refseg_core.masks.rle import encode_masks
from tasks.outputs.exports.label_studio import brush_of


@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any))
def test_a_written_brush_is_the_mask_again(mask: npt.NDArray[np.bool_]) -> None:
    (rle,) = encode_masks(mask[None])
    assert mask_of_brush(brush_of(rle), *mask.shape) == rle


def test_values_that_are_not_repeated_are_read_too() -> None:
    values = [0, 0, 0, 255, 9, 9, 9, 0]
    bits = [format(8, "032b"), format(7, "05b"), *(format(size - 1, "04b") for size in (3, 4, 8, 16))]
    bits += ["0", "00", format(7, "03b"), *(format(value, "08b") for value in values)]
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    packed = list(int(text, 2).to_bytes(len(text) // 8, "big"))
    assert mask_of_brush(packed, 1, 2) == encode_masks(np.array([[[True, False]]]))[0]


@pytest.mark.parametrize("cut", [0, 1, 3, 8])
def test_a_damaged_brush_is_refused(cut: int) -> None:
    packed = brush_of(encode_masks(np.eye(5, dtype=bool)[None])[0])
    with pytest.raises(ValueError, match=r"cut off|no picture"):
        mask_of_brush(packed[:cut], 5, 5)
    with pytest.raises(ValueError, match="no picture"):
        mask_of_brush(packed, 4, 5)
