"""What a category of the embedded demo looks like: a silhouette, a texture and a palette.

Geometry only: nothing is painted here (that is `scenes`), and which looks the demo keeps for itself is `dataset`'s
matter. Silhouettes and textures are functions of an object's own coordinates (`silhouettes.py`, `textures.py`), so
that they turn, stretch and bend with it.

Shapes: `u` and `v` are float32 arrays of one shape, the object's coordinates (its silhouette fits the unit disc, v
points down); results are of that shape.
"""

from dataclasses import dataclass

import numpy as np

from tests.demo_scenes.fields import Array
from tests.demo_scenes.silhouettes import SILHOUETTES
from tests.demo_scenes.textures import TEXTURES

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Silhouette:
    """An outline: its family, and the family's parameter (a number of corners, or the seed of a blob)."""

    family: str
    parameter: int = 0

    def level(self, u: Array, v: Array) -> Array:
        """Roughly the signed distance to the outline, positive inside."""
        return SILHOUETTES[self.family](u, v, self.parameter)


@dataclass(frozen=True)
class Texture:
    """A pattern: its family, its periods across the unit length, its direction in radians and its offset."""

    family: str
    frequency: float
    angle: float = 0.0
    phase: float = 0.0

    def value(self, u: Array, v: Array) -> Array:
        """The share of the accent color, in [0, 1]."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        along, across = cos * u + sin * v, cos * v - sin * u
        frequency, phase = np.float32(self.frequency), np.float32(self.phase)
        return TEXTURES[self.family](along * frequency + phase, across * frequency + phase)


@dataclass(frozen=True)
class Palette:
    """The colors of a look, RGB: the texture mixes base and accent, the rim follows the outline."""

    base: Color
    accent: Color
    rim: Color


@dataclass(frozen=True)
class Category:
    """A category: everything of its name's look; `rim_width` in object coordinates, 0 for none."""

    name: str
    silhouette: Silhouette
    texture: Texture
    palette: Palette
    rim_width: float = 0.1
