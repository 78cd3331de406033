"""Images whose annotations fit only the picture turned upright, though they declare the size of the stored pixels.

Not here: what else decides in which frame annotations were drawn (`refseg_core/datasets/checks/frames.py`).
"""

from collections.abc import Mapping

import numpy as np

from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.table_schema import Array

_SLACK = 2  # px that tools draw beyond the edge, and round sizes by

TURNED = (
    "images whose annotations fit only the picture turned upright, though their declared size is that of the stored "
    "pixels: read upright"
)
"""What it is called where it is told."""

Size = tuple[int, int]  # (height, width)


def upright_sizes(folder: ImageFolder, declared: Mapping[str, Size]) -> dict[str, Size]:
    """Returns the sizes as people see them of those images whose files are as declared, but for being turned.

    `declared`: the sizes of images by name that fit only turned.
    """
    found = folder.upright_sizes(declared)
    return {name: size for name, size in found.items() if _is_near(size[::-1], declared[name])}


def _is_near(size: Size, other: Size) -> bool:
    return all(abs(side - its) <= _SLACK for side, its in zip(size, other, strict=True))


def fitting_only_turned(sizes_N: Array, rows_M: Array, boxes_M4: Array) -> Array:
    """Returns the rows of images whose boxes reach outside, but would not if height and width were swapped.

    `sizes_N`: (height, width) of the images [N, 2]; `rows_M`: each box's image; `boxes_M4`: (x, y, width, height), px.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.nan_to_num(boxes_M4[:, 1::-1] + boxes_M4[:, 3:1:-1], nan=np.inf, posinf=np.inf)  # (bottom, right)
    reach = np.zeros(sizes_N.shape, dtype=np.float64)
    np.maximum.at(reach, rows_M, ends)
    is_outside = (reach > sizes_N + _SLACK).any(axis=1)
    fits_turned = (reach <= sizes_N[:, ::-1] + _SLACK).all(axis=1)
    return np.flatnonzero(is_outside & fits_turned & (sizes_N > 0).all(axis=1))
