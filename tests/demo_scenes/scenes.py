"""Draws the scenes of the embedded demo: textured objects that occlude one another on cluttered backgrounds.

Pure and deterministic: the same seed and categories give the same pixels. Which categories there are is not
decided here (`dataset`), nor how they look in themselves (`looks`).

Shapes: H, W the scene in pixels; h, w the square an object is painted in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tests.demo_scenes.appearance import Category, Color, Palette, Texture
from tests.demo_scenes.fields import Array
from tests.demo_scenes.textures import TEXTURES

_MARGIN = 12  # px between an object's unit disc and the scene's border: more than a reference needs
_TRIES = 16  # placements tried per object before it is left out
_CLEARANCE = 5.0  # px between an object and others where it may not cover them
_SHADOW = 0.28  # darkening at the core of a shadow


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are drawn; sides and radii in pixels.

    `occluding` is the share of objects that may cover others, none of which loses more than `least_visible` allows
    and which lie on others with at most `most_covering` of their own area; the rest keeps clear. `clutter_contrast`
    is the share of its vividness that the background's clutter keeps.
    """

    smallest_side: int = 256
    largest_side: int = 352
    smallest_radius: float = 32.0
    largest_radius: float = 64.0
    fewest_objects: int = 4
    most_objects: int = 7
    least_visible: float = 0.7
    most_covering: float = 0.15
    occluding: float = 0.25
    clutter_contrast: float = 0.5


@dataclass(frozen=True, eq=False)
class Instance:
    """An object of a scene: its category and its visible pixels, bool [H, W]."""

    category: Category
    mask: npt.NDArray[np.bool_]

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """The extents of the visible pixels in the scene, ends exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, uint8 RGB [H, W, 3], and the objects in it, back to front; their masks are disjoint."""

    image: npt.NDArray[np.uint8]
    instances: tuple[Instance, ...]


@dataclass(frozen=True, eq=False)
class _Sprite:
    """An object ready to be pasted: where, which pixels, those near them, how opaque, and the shadow it casts."""

    top: int
    left: int
    mask_hw: npt.NDArray[np.bool_]
    halo_hw: npt.NDArray[np.bool_]
    alpha_hw: Array
    color_hw3: Array
    shadow_hw: Array

    @property
    def window(self) -> tuple[slice, slice]:
        """Where it lies in the scene."""
        height, width = self.mask_hw.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def draw_scene(
    categories: Sequence[Category], generator: np.random.Generator, settings: SceneSettings | None = None
) -> Scene:
    """Draws one scene with objects of some of the categories, each chosen with replacement."""
    settings = settings or SceneSettings()
    height, width = (int(side) for side in generator.integers(*_sides(settings), size=2))
    canvas = _background(height, width, generator, settings)
    owner_HW = np.full((height, width), -1, np.int16)
    full_areas: list[int] = []
    placed: list[Category] = []
    for _ in range(int(generator.integers(settings.fewest_objects, settings.most_objects + 1))):
        category = categories[int(generator.integers(len(categories)))]
        may_cover = bool(generator.random() < settings.occluding)
        for _ in range(_TRIES):
            sprite = _sprite(category, height, width, generator, settings)
            if _fits(sprite, owner_HW, full_areas, settings, may_cover=may_cover):
                _paste(sprite, canvas, owner_HW, len(placed))
                full_areas.append(int(sprite.mask_hw.sum()))
                placed.append(category)
                break
    return Scene(_develop(canvas, generator), _instances(placed, owner_HW))


def random_palette(generator: np.random.Generator) -> Palette:
    """Colors for a look: accent and rim stand out against the base."""
    base = _vivid(generator)
    return Palette(base, _against(base, generator), _against(base, generator))


def _sides(settings: SceneSettings) -> tuple[int, int]:
    return settings.smallest_side, settings.largest_side + 1


def _vivid(generator: np.random.Generator) -> Color:
    red, green, blue = (int(c) for c in generator.integers(15, 250, size=3))
    return red, green, blue


def _against(base: Color, generator: np.random.Generator) -> Color:
    while True:
        color = _vivid(generator)
        if sum(abs(a - b) for a, b in zip(base, color, strict=True)) > 200:
            return color


# --- objects ---------------------------------------------------------------------------------------------------


def _sprite(
    category: Category, height: int, width: int, generator: np.random.Generator, settings: SceneSettings
) -> _Sprite:
    radius = float(generator.uniform(settings.smallest_radius, settings.largest_radius))
    reach = int(radius) + 6
    side = 2 * reach + 1
    left = int(generator.integers(_MARGIN - 6, max(_MARGIN - 5, width - side - _MARGIN + 7)))
    top = int(generator.integers(_MARGIN - 6, max(_MARGIN - 5, height - side - _MARGIN + 7)))
    y_hw, x_hw = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32) / np.float32(radius)
    u, v = _pose(x_hw, y_hw, generator)
    level = category.silhouette.level(u, v)
    alpha = np.clip(level * np.float32(radius) + np.float32(0.5), 0, 1)
    color = _colors(category, u, v, level, generator) * _light(x_hw, y_hw, generator)[..., None]
    cast = np.clip(np.float32(0.5) + level * np.float32(4), 0, 1)
    shadow = np.float32(_SHADOW) * np.roll(cast, (4, 3), axis=(0, 1))
    halo = level > np.float32(-_CLEARANCE / radius)
    return _Sprite(top, left, level > 0, halo, alpha, color, shadow)


def _pose(x: Array, y: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Screen to object coordinates: turned, a little stretched and a little bent."""
    angle = generator.uniform(0, 2 * np.pi)
    stretch, bend, phase = generator.uniform(0.9, 1.1), generator.uniform(0, 0.06), generator.uniform(0, 6.28)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = cos * x + sin * y, cos * y - sin * x
    bent = u + np.float32(bend) * np.sin(np.float32(3) * v + np.float32(phase))
    return bent * np.float32(max(1.0, stretch)), v * np.float32(max(1.0, 1 / stretch))


def _colors(
    category: Category, u: Array, v: Array, level: Array, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    palette = category.palette
    colors = np.array([palette.base, palette.accent, palette.rim], np.float32)
    base, accent, rim = colors + generator.normal(0, 7, size=(3, 3)).astype(np.float32)
    share = category.texture.value(u, v)[..., None]
    painted: npt.NDArray[np.float32] = base + share * (accent - base)
    if not category.rim_width:
        return painted
    on_rim = np.clip((np.float32(category.rim_width) - level) * 20 + np.float32(0.5), 0, 1)[..., None]
    painted += on_rim * (rim - painted)
    return painted


def _light(x: Array, y: Array, generator: np.random.Generator) -> Array:
    angle, slope = generator.uniform(0, 2 * np.pi), generator.uniform(0, 0.22)
    towards = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    return np.float32(generator.uniform(0.88, 1.1)) + np.float32(slope) * towards


def _fits(
    sprite: _Sprite,
    owner_HW: npt.NDArray[np.int16],
    full_areas: list[int],
    settings: SceneSettings,
    *,
    may_cover: bool,
) -> bool:
    """Whether the object lies inside the scene, keeps its distance or leaves enough of every object below it."""
    height, width = sprite.mask_hw.shape
    if sprite.top + height > owner_HW.shape[0] or sprite.left + width > owner_HW.shape[1]:
        return False
    if not may_cover:
        return not (owner_HW[sprite.window][sprite.halo_hw] >= 0).any()
    covered = owner_HW[sprite.window][sprite.mask_hw]
    if (covered >= 0).mean() > settings.most_covering:
        return False
    lost = np.bincount(covered[covered >= 0], minlength=len(full_areas))
    visible = np.bincount(owner_HW[owner_HW >= 0], minlength=len(full_areas)) - lost
    return bool((visible >= settings.least_visible * np.array(full_areas)).all())


def _paste(sprite: _Sprite, canvas: Array, owner_HW: npt.NDArray[np.int16], index: int) -> None:
    here = canvas[sprite.window]
    here *= 1 - sprite.shadow_hw[..., None]
    here += sprite.alpha_hw[..., None] * (sprite.color_hw3 - here)
    owner_HW[sprite.window][sprite.mask_hw] = index


def _instances(placed: list[Category], owner_HW: npt.NDArray[np.int16]) -> tuple[Instance, ...]:
    return tuple(Instance(category, owner_HW == index) for index, category in enumerate(placed))


# --- backgrounds: nothing in them belongs to a category ----------------------------------------------------------


def _background(height: int, width: int, generator: np.random.Generator, settings: SceneSettings) -> Array:
    canvas = _gradient(height, width, generator)
    for _ in range(int(generator.integers(1, 4))):
        _texture_patch(canvas, generator)
    canvas += _smooth_noise(height, width, int(generator.integers(4, 14)), generator) * generator.uniform(4, 16)
    return _clutter(canvas, generator, settings.clutter_contrast)


def _muted(generator: np.random.Generator) -> Array:
    gray = generator.uniform(45, 215)
    return np.asarray(np.clip(gray + generator.normal(0, 28, size=3), 10, 245), np.float32)


def _gradient(height: int, width: int, generator: np.random.Generator) -> Array:
    start, end = _muted(generator), _muted(generator)
    angle = generator.uniform(0, 2 * np.pi)
    y_HW, x_HW = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    share = np.float32(np.cos(angle)) * (x_HW - np.float32(0.5)) + np.float32(np.sin(angle)) * (y_HW - np.float32(0.5))
    return np.asarray(start + (np.clip(share + 0.5, 0, 1))[..., None] * (end - start), np.float32)


def _smooth_noise(height: int, width: int, cells: int, generator: np.random.Generator) -> Array:
    coarse = Image.fromarray(generator.normal(0, 1, size=(cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)[..., None]


def _texture_patch(canvas: Array, generator: np.random.Generator) -> None:
    """A region of faint texture with a feathered edge."""
    height, width = canvas.shape[:2]
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32)
    center_x, center_y = generator.uniform(0, width), generator.uniform(0, height)
    reach = np.float32(generator.uniform(50, 160))
    x, y = (x_HW - np.float32(center_x)) / reach, (y_HW - np.float32(center_y)) / reach
    family = sorted(TEXTURES)[int(generator.integers(len(TEXTURES)))]
    texture = Texture(family, float(generator.uniform(1.5, 7)), float(generator.uniform(0, 3.14)))
    opacity = np.clip(np.float32(1.2) - np.hypot(x, y), 0, 1) * np.float32(generator.uniform(0.15, 0.5))
    share = (opacity * texture.value(x, y))[..., None]
    canvas += share * (_muted(generator) - canvas)


def _clutter(canvas: Array, generator: np.random.Generator, contrast: float) -> Array:
    """Flat specks and strokes, too small and too plain to be objects."""
    height, width = canvas.shape[:2]
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(generator.integers(3, 10))):
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        rx, ry = generator.uniform(2, 11, size=2)
        pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=_vivid(generator))
    for _ in range(int(generator.integers(1, 5))):
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        steps = np.cumsum(generator.normal(0, 28, size=(4, 2)), axis=0)
        path = [(x, y), *((x + dx, y + dy) for dx, dy in steps.tolist())]
        pen.line(path, fill=_vivid(generator), width=int(generator.integers(1, 5)), joint="curve")
    return canvas + np.float32(contrast) * (np.array(picture, np.float32) - canvas)


def _develop(canvas: Array, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Sensor noise, then eight bits."""
    noise = generator.standard_normal(canvas.shape[:2], dtype=np.float32)[..., None]
    noisy = canvas + noise * np.float32(generator.uniform(2, 7))
    return np.clip(noisy + np.float32(0.5), 0, 255).astype(np.uint8)
