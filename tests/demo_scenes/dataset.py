"""The embedded demo's dataset: its categories, its references and targets, and the looks its models learn from.

What is held out: the silhouettes of the demo's categories (`DEMO_SILHOUETTES`) are drawn nowhere in training,
neither in scenes nor as references, and therefore none of its combinations of silhouette, texture and palette.
Texture families are shared (with other frequencies, directions and colors); training palettes are random colors.
Settings were chosen on `VALIDATION_CATEGORIES`, whose silhouettes occur neither in training nor in the demo.

Pure: scenes go out as arrays and as COCO dictionaries; writing them down is the caller's matter.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.demo_scenes.appearance import Category, Palette, Silhouette, Texture
from tests.demo_scenes.scenes import Instance, Scene, SceneSettings, draw_scene, random_palette
from tests.demo_scenes.textures import TEXTURES

_REFERENCE_SEED, _TARGET_SEED = 2507, 2798
_VALID_SIDE, _VALID_MARGIN = 32, 10  # px; method, section 1.1
_REFERENCE_SETTINGS = SceneSettings(smallest_radius=36, fewest_objects=3, most_objects=5, occluding=0.0)


def _category(name: str, texture: Texture, palette: Palette, rim_width: float = 0.1) -> Category:
    return Category(name, Silhouette(name.split("_")[1]), texture, palette, rim_width)


DEMO_CATEGORIES: tuple[Category, ...] = (
    _category("dotted_ring", Texture("dots", 2.6, 0.3), Palette((38, 78, 180), (250, 210, 70), (16, 28, 84))),
    _category("striped_heart", Texture("stripes", 2.2, 0.8), Palette((214, 48, 64), (255, 205, 190), (110, 16, 44))),
    _category("checked_fish", Texture("checks", 2.4), Palette((240, 130, 36), (40, 58, 92), (120, 56, 10)), 0.08),
    _category("waved_leaf", Texture("waves", 2.4, 1.57), Palette((46, 125, 50), (197, 225, 110), (20, 70, 40))),
    _category("banded_moon", Texture("rings", 2.0), Palette((116, 58, 160), (240, 214, 250), (52, 22, 84))),
    _category(
        "bricked_h", Texture("bricks", 3.0, 0.0, 0.1), Palette((120, 90, 70), (216, 170, 130), (70, 40, 30)), 0.08
    ),
    _category("zigzag_arrow", Texture("zigzag", 2.0, 0.4), Palette((240, 236, 220), (40, 40, 46), (90, 90, 96)), 0.08),
    _category("speckled_clover", Texture("speckles", 2.6), Palette((20, 150, 150), (230, 250, 240), (8, 70, 80)), 0.12),
)
VALIDATION_CATEGORIES: tuple[Category, ...] = (
    _category("dotted_drop", Texture("dots", 2.2, 1.0), Palette((60, 150, 190), (250, 250, 240), (10, 60, 90))),
    _category("striped_u", Texture("stripes", 2.5), Palette((230, 190, 60), (90, 40, 20), (60, 20, 10))),
    _category("checked_key", Texture("checks", 2.0, 0.6), Palette((190, 200, 190), (30, 90, 60), (20, 60, 40)), 0.08),
    _category("waved_mushroom", Texture("waves", 2.6, 0.4), Palette((200, 60, 50), (245, 230, 210), (90, 20, 20))),
    _category("spoked_semicircle", Texture("spokes", 1.0), Palette((240, 120, 90), (70, 60, 110), (40, 30, 70))),
    _category("zigzag_chevron", Texture("zigzag", 2.4, 0.2), Palette((120, 70, 150), (200, 220, 120), (50, 30, 70))),
)
DEMO_SILHOUETTES = frozenset(category.silhouette.family for category in DEMO_CATEGORIES)
VALIDATION_SILHOUETTES = frozenset(category.silhouette.family for category in VALIDATION_CATEGORIES)

# Family -> the parameters drawn from (half-open).
TRAINING_SILHOUETTES: dict[str, tuple[int, int]] = {
    "polygon": (3, 9),
    "star": (4, 9),
    "gear": (5, 11),
    "flower": (4, 9),
    "blob": (0, 10_000),
    "frame": (3, 8),
    "wheel": (5, 11),
    "plus": (0, 1),
    "letter": (0, 6),
    "ellipse": (0, 1),
    "capsule": (0, 1),
    "bow": (0, 1),
    "house": (0, 1),
    "bolt": (0, 1),
    "kite": (0, 1),
}
_SHARE_PALETTE, _SHARE_TEXTURE, _SHARE_SILHOUETTE = 0.3, 0.2, 0.2


def draw_training_categories(number: int, generator: np.random.Generator) -> tuple[Category, ...]:
    """Random categories to learn from; some share a trait, so that no single trait tells them apart."""
    categories: list[Category] = []
    for index in range(number):
        fresh = _random_category(f"category_{index}", generator)
        categories.append(_sharing_a_trait(fresh, categories, generator) if categories else fresh)
    return tuple(categories)


def draw_demo_references() -> tuple[Scene, ...]:
    """A few scenes in which every category of the demo has an instance valid as a reference."""
    return draw_references(DEMO_CATEGORIES, np.random.default_rng(_REFERENCE_SEED))


def draw_demo_targets(num_scenes: int = 40) -> tuple[Scene, ...]:
    """The held-out scenes to label; a shorter set is a prefix of a longer one."""
    return draw_targets(DEMO_CATEGORIES, num_scenes, np.random.default_rng(_TARGET_SEED))


def draw_references(categories: Sequence[Category], generator: np.random.Generator) -> tuple[Scene, ...]:
    """Scenes of little occlusion, drawn until every category has a valid instance; each adds a category."""
    scenes: list[Scene] = []
    missing = set(categories)
    while missing:
        scene = draw_scene(categories, generator, _REFERENCE_SETTINGS)
        valid = {instance.category for instance in scene.instances if is_valid_reference(instance)}
        if missing & valid:
            scenes.append(scene)
            missing -= valid
    return tuple(scenes)


def draw_targets(
    categories: Sequence[Category],
    num_scenes: int,
    generator: np.random.Generator,
    settings: SceneSettings | None = None,
) -> tuple[Scene, ...]:
    """Scenes of several instances, some of which occlude others."""
    return tuple(draw_scene(categories, generator, settings) for _ in range(num_scenes))


def is_valid_reference(instance: Instance) -> bool:
    """Whether the instance's box is large enough and far enough from the borders (method, section 1.1)."""
    height, width = instance.mask.shape
    left, top, right, bottom = instance.box_xyxy
    large = min(right - left, bottom - top) >= _VALID_SIDE
    return large and min(left, top, width - right, height - bottom) >= _VALID_MARGIN


def to_coco(
    scenes: Sequence[Scene], categories: Sequence[Category], *, prefix: str, with_masks: bool
) -> dict[str, Any]:
    """A COCO json dictionary; images are named `<prefix>_<index>.jpg`, ids start at 1.

    Boxes are xywh in pixels, masks uncompressed run lengths; without masks only boxes remain, as annotators give.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    category_ids = {category: index for index, category in enumerate(categories, start=1)}
    for image_id, scene in enumerate(scenes, start=1):
        height, width = scene.image.shape[:2]
        name = image_name(prefix, image_id - 1)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for instance in scene.instances:
            annotation = _annotation(instance, with_masks=with_masks)
            ids = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append(ids | {"category_id": category_ids[instance.category]} | annotation)
    named = [{"id": index, "name": category.name} for category, index in category_ids.items()]
    return {"images": images, "annotations": annotations, "categories": named}


def image_name(prefix: str, index: int) -> str:
    """The file name of a scene's picture."""
    return f"{prefix}_{index:03d}.jpg"


def run_lengths(mask_HW: npt.NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, starting with the length of background."""
    pixels = mask_HW.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = [0, *changes.tolist(), pixels.size]
    lengths = [end - start for start, end in pairwise(edges)]
    return [0, *lengths] if pixels[0] else lengths


def _annotation(instance: Instance, *, with_masks: bool) -> dict[str, Any]:
    left, top, right, bottom = instance.box_xyxy
    annotation: dict[str, Any] = {"bbox": [left, top, right - left, bottom - top], "iscrowd": 0}
    if not with_masks:
        return annotation | {"area": (right - left) * (bottom - top)}
    segmentation = {"size": list(instance.mask.shape), "counts": run_lengths(instance.mask)}
    return annotation | {"area": int(instance.mask.sum()), "segmentation": segmentation}


def _random_category(name: str, generator: np.random.Generator) -> Category:
    family = _pick(sorted(TRAINING_SILHOUETTES), generator)
    silhouette = Silhouette(family, int(generator.integers(*TRAINING_SILHOUETTES[family])))
    frequency, angle, phase = generator.uniform((1.4, 0, 0), (3.2, 3.14, 1)).tolist()
    texture = Texture(_pick(sorted(TEXTURES), generator), frequency, angle, phase)
    rim_width = float(generator.choice((0.0, 0.08, 0.1, 0.12)))
    return Category(name, silhouette, texture, random_palette(generator), rim_width)


def _sharing_a_trait(fresh: Category, others: Sequence[Category], generator: np.random.Generator) -> Category:
    other, chance = others[int(generator.integers(len(others)))], generator.random()
    palette, texture, silhouette = fresh.palette, fresh.texture, fresh.silhouette
    if chance < _SHARE_PALETTE:
        palette = other.palette
    elif chance < _SHARE_PALETTE + _SHARE_TEXTURE:
        texture = other.texture
    elif chance < _SHARE_PALETTE + _SHARE_TEXTURE + _SHARE_SILHOUETTE:
        silhouette = other.silhouette
    return Category(fresh.name, silhouette, texture, palette, fresh.rim_width)


def _pick(names: Sequence[str], generator: np.random.Generator) -> str:
    return names[int(generator.integers(len(names)))]
