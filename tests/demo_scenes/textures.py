"""The families of patterns: each the share of the accent color, in [0, 1].

Shapes: every function takes float32 arrays `x`, `y` of one shape, an object's coordinates turned and counted in
periods, and returns one of that shape.
"""

from collections.abc import Callable

import numpy as np

from tests.demo_scenes.fields import TAU, Array, length_of, overlap, union


def _clipped(share: Array) -> Array:
    clipped: Array = np.clip(share, 0, 1)
    return clipped


def _edge(wave: Array) -> Array:
    """A wave in [-1, 1] turned into two plateaus with soft edges."""
    return _clipped(np.float32(0.5) + np.float32(2.0) * wave)


def _wave(x: Array) -> Array:
    return np.asarray(np.sin(np.float32(TAU) * x), np.float32)


def _stripes(x: Array, y: Array) -> Array:
    return _edge(_wave(x))


def _pinstripes(x: Array, y: Array) -> Array:
    return _edge(_wave(x) - np.float32(0.6))


def _dots(x: Array, y: Array) -> Array:
    offset = np.float32(0.5) * (np.floor(y) % 2)
    distance = length_of((x + offset) % 1 - np.float32(0.5), y % 1 - np.float32(0.5))
    return _clipped((np.float32(0.33) - distance) * 8 + np.float32(0.5))


def _checks(x: Array, y: Array) -> Array:
    return _clipped(np.float32(0.5) + np.float32(4.0) * _wave(x) * _wave(y))


def _waves(x: Array, y: Array) -> Array:
    return _edge(_wave(x + np.float32(0.22) * _wave(np.float32(0.7) * y)))


def _zigzag(x: Array, y: Array) -> Array:
    return _edge(_wave(x + np.float32(1.2) * np.abs(np.float32(0.6) * y % 1 - np.float32(0.5))))


def _rings(x: Array, y: Array) -> Array:
    return _edge(_wave(length_of(x, y)))


def _spokes(x: Array, y: Array) -> Array:
    return _edge(np.sin(np.float32(8) * np.arctan2(y, x)))


def _bricks(x: Array, y: Array) -> Array:
    offset = np.float32(0.5) * (np.floor(y) % 2)
    gap = overlap(np.abs((x * np.float32(0.6) + offset) % 1 - np.float32(0.5)) / np.float32(0.6), y % 1)
    return _clipped((gap - np.float32(0.14)) * 9 + np.float32(0.5))


def _grid(x: Array, y: Array) -> Array:
    return _edge(union(_wave(x), _wave(y)) - np.float32(0.75))


def _plaid(x: Array, y: Array) -> Array:
    return np.float32(0.5) * (_edge(_wave(x)) + _edge(_wave(y)))


def _marble(x: Array, y: Array) -> Array:
    bend = _wave(np.float32(0.5) * y + np.float32(0.3) * x) + _wave(np.float32(0.8) * x - np.float32(0.4) * y)
    return np.float32(0.5) + np.float32(0.5) * _wave(np.float32(0.6) * x + np.float32(0.5) * bend)


def _scales(x: Array, y: Array) -> Array:
    offset = np.float32(0.5) * (np.floor(y) % 2)
    return length_of((x + offset) % 1 - np.float32(0.5), y % 1) % 1


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
