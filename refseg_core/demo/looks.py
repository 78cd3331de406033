"""What a category of the embedded demo looks like: a silhouette, a texture and a palette.

Geometry only: nothing is painted here (that is `scenes`), and which looks the demo keeps for itself is `dataset`'s
matter. Silhouettes and textures are functions of an object's own coordinates, so that they turn, stretch and bend
with it.

Shapes: every function takes float32 arrays `u`, `v` of one shape, the object's coordinates (its silhouette fits
the unit disc, v points down), and returns one of that shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Colour = tuple[int, int, int]
Point = tuple[float, float]
_TAU = float(2 * np.pi)
_FEWEST_POINTS, _SHARP_STAR, _BLUNT_STAR = 4, 0.38, 0.52  # inner radii: a star of four is else a square


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
        """The share of the accent colour, in [0, 1]."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        along, across = cos * u + sin * v, cos * v - sin * u
        frequency, phase = np.float32(self.frequency), np.float32(self.phase)
        return TEXTURES[self.family](along * frequency + phase, across * frequency + phase)


@dataclass(frozen=True)
class Palette:
    """The colours of a look, RGB: the texture mixes base and accent, the rim follows the outline."""

    base: Colour
    accent: Colour
    rim: Colour


@dataclass(frozen=True)
class Category:
    """A category: everything of its name's look; `rim_width` in object coordinates, 0 for none."""

    name: str
    silhouette: Silhouette
    texture: Texture
    palette: Palette
    rim_width: float = 0.1


# --- silhouettes -----------------------------------------------------------------------------------------------


def _length(x: Array, y: Array) -> Array:
    length: Array = np.hypot(x, y)
    return length


def _union(*levels: Array) -> Array:
    level = levels[0]
    for other in levels[1:]:
        level = np.maximum(level, other)
    return level


def _overlap(*levels: Array) -> Array:
    level = levels[0]
    for other in levels[1:]:
        level = np.minimum(level, other)
    return level


def _disc(u: Array, v: Array, x: float = 0.0, y: float = 0.0, radius: float = 1.0) -> Array:
    return np.float32(radius) - _length(u - np.float32(x), v - np.float32(y))


def _rectangle(u: Array, v: Array, corners: tuple[float, float, float, float]) -> Array:
    left, top, right, bottom = (np.float32(edge) for edge in corners)
    return _overlap(u - left, right - u, v - top, bottom - v)


def _convex(u: Array, v: Array, *corners: Point) -> Array:
    """A convex polygon, corners clockwise on the screen."""
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    return -_union(*(_beyond(u, v, start, end) for start, end in edges))


def _beyond(u: Array, v: Array, start: Point, end: Point) -> Array:
    """Signed distance to the line from start to end, positive to its left on the screen."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    distance = (u - np.float32(start[0])) * np.float32(dy / length)
    return distance - (v - np.float32(start[1])) * np.float32(dx / length)


def _fold(u: Array, v: Array, sectors: int) -> tuple[Array, Array]:
    """Coordinates folded into half a sector: as if the figure were only one of its `sectors` points."""
    sector = np.float32(_TAU / sectors)
    angle = np.abs((np.arctan2(v, u) + sector / 2) % sector - sector / 2)
    radius = _length(u, v)
    return radius * np.cos(angle), radius * np.sin(angle)


def _polygon(u: Array, v: Array, corners: int) -> Array:
    """A regular polygon with a corner opposite to u: its edges face the folded axis."""
    along, _ = _fold(u, v, corners)
    return np.float32(np.cos(np.pi / corners)) - along


def _star(u: Array, v: Array, points: int) -> Array:
    along, across = _fold(u, v, points)
    inner = _SHARP_STAR if points == _FEWEST_POINTS else _BLUNT_STAR
    valley = (inner * float(np.cos(np.pi / points)), inner * float(np.sin(np.pi / points)))
    return _beyond(along, across, valley, (1.0, 0.0))


def _gear(u: Array, v: Array, teeth: int) -> Array:
    outline = 0.87 + 0.13 * np.clip(2.5 * np.sin(teeth * np.arctan2(v, u)), -1, 1)
    return np.asarray(outline - _length(u, v), np.float32)


def _flower(u: Array, v: Array, petals: int) -> Array:
    outline = 0.78 + 0.22 * np.cos(petals * np.arctan2(v, u))
    return np.asarray(outline - _length(u, v), np.float32)


def _blob(u: Array, v: Array, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    angle = np.arctan2(v, u)
    outline = np.full_like(u, 0.72)
    for waves, amplitude in ((2, 0.11), (3, 0.1), (5, 0.07)):
        phase = np.float32(generator.uniform(0, _TAU))
        outline += np.float32(amplitude) * np.sin(np.float32(waves) * angle + phase)
    return outline - _length(u, v)


def _without(level: Array, hole: Array) -> Array:
    return _overlap(level, -hole)


def _frame(u: Array, v: Array, corners: int) -> Array:
    return _without(_polygon(u, v, corners), _polygon(u, v, corners) - np.float32(0.38))


def _wheel(u: Array, v: Array, teeth: int) -> Array:
    return _without(_gear(u, v, teeth), _disc(u, v, radius=0.42))


def _plus(u: Array, v: Array, _: int) -> Array:
    return _union(_rectangle(u, v, (-0.95, -0.31, 0.95, 0.31)), _rectangle(u, v, (-0.31, -0.95, 0.31, 0.95)))


def _letter(u: Array, v: Array, which: int) -> Array:
    """Block letters T, L, E, F, Z, I."""
    stem, top = (-0.72, -0.85, -0.2, 0.85), (-0.72, -0.85, 0.72, -0.38)
    middle, bottom = (-0.72, -0.22, 0.55, 0.22), (-0.72, 0.38, 0.72, 0.85)
    centre = (-0.26, -0.85, 0.26, 0.85)
    slash = ((0.12, -0.5), (0.72, -0.5), (-0.12, 0.5), (-0.72, 0.5))
    bars = ((centre, top), (stem, bottom), (stem, top, middle, bottom), (stem, top, middle), (top, bottom))
    letters = (*bars, (centre, top, bottom))
    level = _union(*(_rectangle(u, v, bar) for bar in letters[which]))
    return _union(level, _convex(u, v, *slash)) if which == len(bars) - 1 else level


def _ellipse(u: Array, v: Array, _: int) -> Array:
    return _disc(u, v * np.float32(1.6))


def _capsule(u: Array, v: Array, _: int) -> Array:
    return np.float32(0.42) - _length(u - np.clip(u, -0.56, 0.56), v)


def _bow(u: Array, v: Array, _: int) -> Array:
    side = np.abs(u)
    return _overlap(np.float32(0.88) - side, np.float32(0.2) + np.float32(0.5) * side - np.abs(v))


def _house(u: Array, v: Array, _: int) -> Array:
    return _convex(u, v, (0.0, -1.0), (0.78, -0.2), (0.62, 0.8), (-0.62, 0.8), (-0.78, -0.2))


def _bolt(u: Array, v: Array, _: int) -> Array:
    upper = _convex(u, v, (-0.1, -1.0), (0.55, -1.0), (0.12, 0.2), (-0.62, 0.2))
    lower = _convex(u, v, (-0.12, -0.2), (0.62, -0.2), (-0.15, 1.0), (-0.5, 1.0))
    return _union(upper, lower)


def _kite(u: Array, v: Array, _: int) -> Array:
    return _convex(u, v, (0.0, -0.95), (0.66, -0.25), (0.0, 1.0), (-0.66, -0.25))


def _mushroom(u: Array, v: Array, _: int) -> Array:
    cap = _overlap(_disc(u, v, 0.0, 0.05, 0.95), np.float32(0.1) - v)
    return _union(cap, _rectangle(u, v, (-0.32, -0.1, 0.32, 0.85)))


def _key(u: Array, v: Array, _: int) -> Array:
    bow = _without(_disc(u, v, -0.5, 0.0, 0.5), _disc(u, v, -0.5, 0.0, 0.2))
    return _union(bow, _rectangle(u, v, (-0.1, -0.18, 0.98, 0.18)), _rectangle(u, v, (0.55, 0.0, 0.92, 0.5)))


def _heart(u: Array, v: Array, _: int) -> Array:
    lobes = _union(_disc(u, v, -0.42, -0.32, 0.5), _disc(u, v, 0.42, -0.32, 0.5))
    return _union(lobes, _convex(u, v, (0.0, -0.5), (0.79, 0.02), (0.0, 0.95), (-0.79, 0.02)))


def _moon(u: Array, v: Array, _: int) -> Array:
    return _without(_disc(u, v, radius=0.95), _disc(u, v, 0.55, 0.0, 0.75))


def _ring(u: Array, v: Array, _: int) -> Array:
    return _without(_disc(u, v, radius=0.92), _disc(u, v, radius=0.42))


def _leaf(u: Array, v: Array, _: int) -> Array:
    return _overlap(_disc(u, v, 0.0, -0.55, 1.12), _disc(u, v, 0.0, 0.55, 1.12))


def _h(u: Array, v: Array, _: int) -> Array:
    posts = _union(_rectangle(u, v, (-0.75, -0.8, -0.25, 0.8)), _rectangle(u, v, (0.25, -0.8, 0.75, 0.8)))
    return _union(posts, _rectangle(u, v, (-0.75, -0.25, 0.75, 0.25)))


def _arrow(u: Array, v: Array, _: int) -> Array:
    head = _convex(u, v, (0.98, 0.0), (0.05, 0.8), (0.05, -0.8))
    return _union(head, _rectangle(u, v, (-0.95, -0.34, 0.3, 0.34)))


def _fish(u: Array, v: Array, _: int) -> Array:
    body = _disc(u * np.float32(0.85) - np.float32(0.18), v * np.float32(1.25), 0.0, 0.0, 0.68)
    return _union(body, _convex(u, v, (-0.2, 0.0), (-0.95, 0.62), (-0.95, -0.62)))


def _clover(u: Array, v: Array, _: int) -> Array:
    lobes = [_disc(u, v, 0.48 * np.cos(a), 0.48 * np.sin(a), 0.47) for a in np.arange(3) * _TAU / 3]
    return _union(_disc(u, v, radius=0.3), *lobes)


def _drop(u: Array, v: Array, _: int) -> Array:
    cone = _convex(u, v, (0.0, -1.0), (0.56, 0.1), (-0.56, 0.1))
    return _union(_disc(u, v, 0.0, 0.32, 0.6), cone)


def _u(u: Array, v: Array, _: int) -> Array:
    slot = _union(_rectangle(u, v, (-0.28, -1.0, 0.28, 0.1)), _disc(u, v, 0.0, 0.1, 0.28))
    body = _union(_rectangle(u, v, (-0.78, -0.8, 0.78, 0.1)), _disc(u, v, 0.0, 0.1, 0.78))
    return _without(body, slot)


def _chevron(u: Array, v: Array, _: int) -> Array:
    slope = u + np.float32(0.8) * np.abs(v) - np.float32(0.3)
    return _overlap(np.float32(0.38) - np.abs(slope), np.float32(0.72) - np.abs(v))


def _semicircle(u: Array, v: Array, _: int) -> Array:
    return _overlap(_disc(u, v, 0.0, 0.4, 1.0), np.float32(0.45) - v)


SILHOUETTES: dict[str, Callable[[Array, Array, int], Array]] = {
    "polygon": _polygon,
    "star": _star,
    "gear": _gear,
    "flower": _flower,
    "blob": _blob,
    "frame": _frame,
    "wheel": _wheel,
    "plus": _plus,
    "letter": _letter,
    "ellipse": _ellipse,
    "capsule": _capsule,
    "bow": _bow,
    "house": _house,
    "bolt": _bolt,
    "kite": _kite,
    "mushroom": _mushroom,
    "key": _key,
    "heart": _heart,
    "moon": _moon,
    "ring": _ring,
    "leaf": _leaf,
    "h": _h,
    "arrow": _arrow,
    "fish": _fish,
    "clover": _clover,
    "drop": _drop,
    "u": _u,
    "chevron": _chevron,
    "semicircle": _semicircle,
}


# --- textures: x, y in periods ---------------------------------------------------------------------------------


def _clipped(share: Array) -> Array:
    clipped: Array = np.clip(share, 0, 1)
    return clipped


def _edge(wave: Array) -> Array:
    """A wave in [-1, 1] turned into two plateaus with soft edges."""
    return _clipped(np.float32(0.5) + np.float32(2.0) * wave)


def _wave(x: Array) -> Array:
    return np.asarray(np.sin(np.float32(_TAU) * x), np.float32)


def _stripes(x: Array, y: Array) -> Array:
    return _edge(_wave(x))


def _pinstripes(x: Array, y: Array) -> Array:
    return _edge(_wave(x) - np.float32(0.6))


def _dots(x: Array, y: Array) -> Array:
    offset = np.float32(0.5) * (np.floor(y) % 2)
    distance = _length((x + offset) % 1 - np.float32(0.5), y % 1 - np.float32(0.5))
    return _clipped((np.float32(0.33) - distance) * 8 + np.float32(0.5))


def _checks(x: Array, y: Array) -> Array:
    return _clipped(np.float32(0.5) + np.float32(4.0) * _wave(x) * _wave(y))


def _waves(x: Array, y: Array) -> Array:
    return _edge(_wave(x + np.float32(0.22) * _wave(np.float32(0.7) * y)))


def _zigzag(x: Array, y: Array) -> Array:
    return _edge(_wave(x + np.float32(1.2) * np.abs(np.float32(0.6) * y % 1 - np.float32(0.5))))


def _rings(x: Array, y: Array) -> Array:
    return _edge(_wave(_length(x, y)))


def _spokes(x: Array, y: Array) -> Array:
    return _edge(np.sin(np.float32(8) * np.arctan2(y, x)))


def _bricks(x: Array, y: Array) -> Array:
    offset = np.float32(0.5) * (np.floor(y) % 2)
    gap = _overlap(np.abs((x * np.float32(0.6) + offset) % 1 - np.float32(0.5)) / np.float32(0.6), y % 1)
    return _clipped((gap - np.float32(0.14)) * 9 + np.float32(0.5))


def _grid(x: Array, y: Array) -> Array:
    return _edge(_union(_wave(x), _wave(y)) - np.float32(0.75))


def _plaid(x: Array, y: Array) -> Array:
    return np.float32(0.5) * (_edge(_wave(x)) + _edge(_wave(y)))


def _marble(x: Array, y: Array) -> Array:
    bend = _wave(np.float32(0.5) * y + np.float32(0.3) * x) + _wave(np.float32(0.8) * x - np.float32(0.4) * y)
    return np.float32(0.5) + np.float32(0.5) * _wave(np.float32(0.6) * x + np.float32(0.5) * bend)


def _scales(x: Array, y: Array) -> Array:
    offset = np.float32(0.5) * (np.floor(y) % 2)
    return _length((x + offset) % 1 - np.float32(0.5), y % 1) % 1


def _speckles(x: Array, y: Array) -> Array:
    bumps = _wave(np.float32(0.9) * x + np.float32(0.5) * _wave(y)) * _wave(y + np.float32(0.4) * _wave(x))
    return _edge(bumps - np.float32(0.25))


def _patches(x: Array, y: Array) -> Array:
    bend = _wave(np.float32(0.43) * x + np.float32(0.2)) + _wave(np.float32(0.37) * y - np.float32(0.31) * x)
    return _edge(bend + _wave(np.float32(0.5) * y + np.float32(0.1)))


def _fade(x: Array, y: Array) -> Array:
    return _clipped(np.float32(0.5) + np.float32(0.25) * x)


TEXTURES: dict[str, Callable[[Array, Array], Array]] = {
    "stripes": _stripes,
    "pinstripes": _pinstripes,
    "dots": _dots,
    "checks": _checks,
    "waves": _waves,
    "zigzag": _zigzag,
    "rings": _rings,
    "spokes": _spokes,
    "bricks": _bricks,
    "grid": _grid,
    "plaid": _plaid,
    "marble": _marble,
    "scales": _scales,
    "speckles": _speckles,
    "patches": _patches,
    "fade": _fade,
}
