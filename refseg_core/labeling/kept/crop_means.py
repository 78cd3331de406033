"""What crops of candidates show, in numbers: what a second look compares, and what is kept of it."""

from typing import NamedTuple

from torch import Tensor


class CropMeans(NamedTuple):
    """The mean features inside and outside of the mask in its crop, and whether there is a mask.

    inside and outside float32 [n, C], of unit length, or zeros where hardly a patch counts; has_mask bool [n]: False
    where the mask vanishes in its crop.
    """

    inside_nC: Tensor
    outside_nC: Tensor
    has_mask_n: Tensor
