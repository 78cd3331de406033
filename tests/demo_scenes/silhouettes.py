"""The families of outlines: each a level over an object's own coordinates, positive inside.

Shapes: every function takes float32 arrays `u`, `v` of one shape, the object's coordinates (the figure fits the unit
disc, v points down), and returns one of that shape; the last argument is the family's parameter, where it has one.
"""

import math
from collections.abc import Callable

import numpy as np

from tests.demo_scenes.fields import TAU, Array, length_of, overlap, union

Point = tuple[float, float]
_FEWEST_POINTS, _SHARP_STAR, _BLUNT_STAR = 4, 0.38, 0.52  # inner radii: a star of four is else a square


def _disc(u: Array, v: Array, x: float = 0.0, y: float = 0.0, radius: float = 1.0) -> Array:
    return np.float32(radius) - length_of(u - np.float32(x), v - np.float32(y))


def _rectangle(u: Array, v: Array, corners: tuple[float, float, float, float]) -> Array:
    left, top, right, bottom = (np.float32(edge) for edge in corners)
    return overlap(u - left, right - u, v - top, bottom - v)


def _convex(u: Array, v: Array, *corners: Point) -> Array:
    """A convex polygon, corners clockwise on the screen."""
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    return -union(*(_beyond(u, v, start, end) for start, end in edges))


def _beyond(u: Array, v: Array, start: Point, end: Point) -> Array:
    """Signed distance to the line from start to end, positive to its left on the screen."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    distance = (u - np.float32(start[0])) * np.float32(dy / length)
    return distance - (v - np.float32(start[1])) * np.float32(dx / length)


def _fold(u: Array, v: Array, sectors: int) -> tuple[Array, Array]:
    """Coordinates folded into half a sector: as if the figure were only one of its `sectors` points."""
    sector = np.float32(TAU / sectors)
    angle = np.abs((np.arctan2(v, u) + sector / 2) % sector - sector / 2)
    radius = length_of(u, v)
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
    return np.asarray(outline - length_of(u, v), np.float32)


def _flower(u: Array, v: Array, petals: int) -> Array:
    outline = 0.78 + 0.22 * np.cos(petals * np.arctan2(v, u))
    return np.asarray(outline - length_of(u, v), np.float32)


def _blob(u: Array, v: Array, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    angle = np.arctan2(v, u)
    outline = np.full_like(u, 0.72)
    for waves, amplitude in ((2, 0.11), (3, 0.1), (5, 0.07)):
        phase = np.float32(generator.uniform(0, TAU))
        outline += np.float32(amplitude) * np.sin(np.float32(waves) * angle + phase)
    return outline - length_of(u, v)


def _without(level: Array, hole: Array) -> Array:
    return overlap(level, -hole)


def _frame(u: Array, v: Array, corners: int) -> Array:
    return _without(_polygon(u, v, corners), _polygon(u, v, corners) - np.float32(0.38))


def _wheel(u: Array, v: Array, teeth: int) -> Array:
    return _without(_gear(u, v, teeth), _disc(u, v, radius=0.42))


def _plus(u: Array, v: Array, _: int) -> Array:
    return union(_rectangle(u, v, (-0.95, -0.31, 0.95, 0.31)), _rectangle(u, v, (-0.31, -0.95, 0.31, 0.95)))


def _letter(u: Array, v: Array, which: int) -> Array:
    """Block letters T, L, E, F, Z, I."""
    stem, top = (-0.72, -0.85, -0.2, 0.85), (-0.72, -0.85, 0.72, -0.38)
    middle, bottom = (-0.72, -0.22, 0.55, 0.22), (-0.72, 0.38, 0.72, 0.85)
    center = (-0.26, -0.85, 0.26, 0.85)
    slash = ((0.12, -0.5), (0.72, -0.5), (-0.12, 0.5), (-0.72, 0.5))
    bars = ((center, top), (stem, bottom), (stem, top, middle, bottom), (stem, top, middle), (top, bottom))
    letters = (*bars, (center, top, bottom))
    level = union(*(_rectangle(u, v, bar) for bar in letters[which]))
    return union(level, _convex(u, v, *slash)) if which == len(bars) - 1 else level


def _ellipse(u: Array, v: Array, _: int) -> Array:
    return _disc(u, v * np.float32(1.6))


def _capsule(u: Array, v: Array, _: int) -> Array:
    return np.float32(0.42) - length_of(u - np.clip(u, -0.56, 0.56), v)


def _bow(u: Array, v: Array, _: int) -> Array:
    side = np.abs(u)
    return overlap(np.float32(0.88) - side, np.float32(0.2) + np.float32(0.5) * side - np.abs(v))


def _house(u: Array, v: Array, _: int) -> Array:
    return _convex(u, v, (0.0, -1.0), (0.78, -0.2), (0.62, 0.8), (-0.62, 0.8), (-0.78, -0.2))


def _bolt(u: Array, v: Array, _: int) -> Array:
    upper = _convex(u, v, (-0.1, -1.0), (0.55, -1.0), (0.12, 0.2), (-0.62, 0.2))
    lower = _convex(u, v, (-0.12, -0.2), (0.62, -0.2), (-0.15, 1.0), (-0.5, 1.0))
    return union(upper, lower)


def _kite(u: Array, v: Array, _: int) -> Array:
    return _convex(u, v, (0.0, -0.95), (0.66, -0.25), (0.0, 1.0), (-0.66, -0.25))


def _mushroom(u: Array, v: Array, _: int) -> Array:
    cap = overlap(_disc(u, v, 0.0, 0.05, 0.95), np.float32(0.1) - v)
    return union(cap, _rectangle(u, v, (-0.32, -0.1, 0.32, 0.85)))


def _key(u: Array, v: Array, _: int) -> Array:
    bow = _without(_disc(u, v, -0.5, 0.0, 0.5), _disc(u, v, -0.5, 0.0, 0.2))
    return union(bow, _rectangle(u, v, (-0.1, -0.18, 0.98, 0.18)), _rectangle(u, v, (0.55, 0.0, 0.92, 0.5)))


def _heart(u: Array, v: Array, _: int) -> Array:
    lobes = union(_disc(u, v, -0.42, -0.32, 0.5), _disc(u, v, 0.42, -0.32, 0.5))
    return union(lobes, _convex(u, v, (0.0, -0.5), (0.79, 0.02), (0.0, 0.95), (-0.79, 0.02)))


def _moon(u: Array, v: Array, _: int) -> Array:
    return _without(_disc(u, v, radius=0.95), _disc(u, v, 0.55, 0.0, 0.75))


def _ring(u: Array, v: Array, _: int) -> Array:
    return _without(_disc(u, v, radius=0.92), _disc(u, v, radius=0.42))


def _leaf(u: Array, v: Array, _: int) -> Array:
    return overlap(_disc(u, v, 0.0, -0.55, 1.12), _disc(u, v, 0.0, 0.55, 1.12))


def _h(u: Array, v: Array, _: int) -> Array:
    posts = union(_rectangle(u, v, (-0.75, -0.8, -0.25, 0.8)), _rectangle(u, v, (0.25, -0.8, 0.75, 0.8)))
    return union(posts, _rectangle(u, v, (-0.75, -0.25, 0.75, 0.25)))


def _arrow(u: Array, v: Array, _: int) -> Array:
    head = _convex(u, v, (0.98, 0.0), (0.05, 0.8), (0.05, -0.8))
    return union(head, _rectangle(u, v, (-0.95, -0.34, 0.3, 0.34)))


def _fish(u: Array, v: Array, _: int) -> Array:
    body = _disc(u * np.float32(0.85) - np.float32(0.18), v * np.float32(1.25), 0.0, 0.0, 0.68)
    return union(body, _convex(u, v, (-0.2, 0.0), (-0.95, 0.62), (-0.95, -0.62)))


def _clover(u: Array, v: Array, _: int) -> Array:
    lobes = [_disc(u, v, 0.48 * np.cos(a), 0.48 * np.sin(a), 0.47) for a in np.arange(3) * TAU / 3]
    return union(_disc(u, v, radius=0.3), *lobes)


def _drop(u: Array, v: Array, _: int) -> Array:
    cone = _convex(u, v, (0.0, -1.0), (0.56, 0.1), (-0.56, 0.1))
    return union(_disc(u, v, 0.0, 0.32, 0.6), cone)


def _u(u: Array, v: Array, _: int) -> Array:
    slot = union(_rectangle(u, v, (-0.28, -1.0, 0.28, 0.1)), _disc(u, v, 0.0, 0.1, 0.28))
    body = union(_rectangle(u, v, (-0.78, -0.8, 0.78, 0.1)), _disc(u, v, 0.0, 0.1, 0.78))
    return _without(body, slot)


def _chevron(u: Array, v: Array, _: int) -> Array:
    slope = u + np.float32(0.8) * np.abs(v) - np.float32(0.3)
    return overlap(np.float32(0.38) - np.abs(slope), np.float32(0.72) - np.abs(v))


def _semicircle(u: Array, v: Array, _: int) -> Array:
    return overlap(_disc(u, v, 0.0, 0.4, 1.0), np.float32(0.45) - v)


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
