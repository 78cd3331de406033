"""Functions of a plane, sampled: what silhouettes and textures are both made of.

A level is positive inside a figure and negative outside.

Shapes: float32 arrays of one shape in, one of that shape out.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
TAU = float(2 * np.pi)


def length_of(x: Array, y: Array) -> Array:
    """Distance from the origin."""
    length: Array = np.hypot(x, y)
    return length


def union(*levels: Array) -> Array:
    """The level of what lies in any of the figures."""
    level = levels[0]
    for other in levels[1:]:
        level = np.maximum(level, other)
    return level


def overlap(*levels: Array) -> Array:
    """The level of what lies in all of the figures."""
    level = levels[0]
    for other in levels[1:]:
        level = np.minimum(level, other)
    return level
