"""The embedded demo's drawn scenes: deterministic, well-formed, and held out from training."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.images import decode_image
from refseg_core.masks.rle import decode_mask
from tasks.datasets.demo_files import demo_images, demo_scenes
from tests.demo_scenes.appearance import Silhouette, Texture
from tests.demo_scenes.dataset import (
    DEMO_CATEGORIES,
    DEMO_SILHOUETTES,
    TRAINING_SILHOUETTES,
    VALIDATION_CATEGORIES,
    VALIDATION_SILHOUETTES,
    draw_demo_references,
    draw_demo_targets,
    draw_references,
    draw_training_categories,
    image_name,
    is_valid_reference,
    run_lengths,
    to_coco,
)
from tests.demo_scenes.scenes import Instance, Scene, SceneSettings, draw_scene
from tests.demo_scenes.silhouettes import SILHOUETTES
from tests.demo_scenes.textures import TEXTURES


@pytest.fixture(scope="module")
def targets() -> tuple[Scene, ...]:
    return draw_demo_targets(8)


@pytest.fixture(scope="module")
def references() -> tuple[Scene, ...]:
    return draw_demo_references()


def _same(first: Scene, second: Scene) -> bool:
    masks = zip(first.instances, second.instances, strict=True)
    return np.array_equal(first.image, second.image) and all(
        a.category == b.category and np.array_equal(a.mask, b.mask) for a, b in masks
    )


def _square(height: int, width: int, left: int, top: int, side: int) -> Instance:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return Instance(DEMO_CATEGORIES[0], mask)


# --- drawing -----------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_scene() -> None:
    first, second = (draw_scene(DEMO_CATEGORIES, np.random.default_rng(4)) for _ in range(2))
    assert _same(first, second)


def test_another_seed_draws_another_scene() -> None:
    first, second = (draw_scene(DEMO_CATEGORIES, np.random.default_rng(seed)) for seed in (4, 5))
    assert not _same(first, second)


def test_drawing_leaves_the_global_generator_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    draw_demo_targets(1)
    after = np.random.get_state()[1]  # type: ignore[index]
    assert np.array_equal(before, after)


def test_a_shorter_target_set_is_a_prefix_of_a_longer_one(targets: tuple[Scene, ...]) -> None:
    assert all(_same(short, long) for short, long in zip(draw_demo_targets(3), targets, strict=False))


def test_masks_are_visible_and_disjoint(targets: tuple[Scene, ...]) -> None:
    for scene in targets:
        masks = np.stack([instance.mask for instance in scene.instances])
        assert masks.shape[1:] == scene.image.shape[:2]
        assert masks.sum(axis=0).max() == 1
        assert masks.sum(axis=(1, 2)).min() > 200


def test_objects_are_large_enough_for_coarse_mask_logits(targets: tuple[Scene, ...]) -> None:
    sides = [max(i.box_xyxy[2] - i.box_xyxy[0], i.box_xyxy[3] - i.box_xyxy[1]) for s in targets for i in s.instances]
    assert min(sides) >= 32
    assert max(sides) <= 135


def test_scenes_hold_several_instances_of_several_categories(targets: tuple[Scene, ...]) -> None:
    counts = [len(scene.instances) for scene in targets]
    assert min(counts) >= 2
    assert np.mean(counts) >= 4
    assert {i.category for scene in targets for i in scene.instances} == set(DEMO_CATEGORIES)
    assert len({scene.image.shape for scene in targets}) > 1
    assert any(scene.image.shape[0] != scene.image.shape[1] for scene in targets)


def test_settings_bound_what_is_drawn() -> None:
    settings = SceneSettings(smallest_side=200, largest_side=220, fewest_objects=1, most_objects=2)
    for seed in range(4):
        scene = draw_scene(DEMO_CATEGORIES, np.random.default_rng(seed), settings)
        assert all(200 <= side <= 220 for side in scene.image.shape[:2])
        assert 1 <= len(scene.instances) <= 2


def _touching(scene: Scene) -> bool:
    masks = np.pad(np.stack([instance.mask for instance in scene.instances]), ((0, 0), (1, 1), (1, 1)))
    grown = np.any([np.roll(masks, shift, axis=(1, 2)) for shift in ((0, 1), (1, 0), (0, -1), (-1, 0))], axis=0)
    return bool((grown.sum(axis=0) > 1).any())


def test_only_occluding_objects_touch_others() -> None:
    def touching(occluding: float) -> Iterator[bool]:
        settings = SceneSettings(occluding=occluding)
        return (_touching(draw_scene(DEMO_CATEGORIES, np.random.default_rng(seed), settings)) for seed in range(6))

    assert not any(touching(0.0))
    assert any(touching(1.0))


def test_some_targets_are_occluded(targets: tuple[Scene, ...]) -> None:
    assert 0 < sum(map(_touching, targets)) < len(targets)


def test_the_box_is_the_extent_of_the_visible_pixels() -> None:
    assert _square(60, 80, left=20, top=11, side=33).box_xyxy == (20, 11, 53, 44)


# --- looks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(SILHOUETTES))
def test_every_silhouette_fits_the_unit_disc_and_fills_some_of_it(family: str) -> None:
    v, u = np.mgrid[-1.3:1.3:131j, -1.3:1.3:131j].astype(np.float32)
    level = Silhouette(family, 5).level(u, v)
    inside = level > 0
    assert level.dtype == np.float32
    assert not (inside & (np.hypot(u, v) > 1.2)).any()
    assert 0.15 < inside.sum() / (np.hypot(u, v) < 1).sum() < 1


@pytest.mark.parametrize("family", sorted(TEXTURES))
def test_every_texture_is_a_share_and_not_plain(family: str) -> None:
    v, u = np.mgrid[-1:1:65j, -1:1:65j].astype(np.float32)
    share = Texture(family, 2.0, 0.4, 0.2).value(u, v)
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.std() > 0.1


# --- held out ------------------------------------------------------------------------------------------------------


def test_training_validation_and_demo_share_no_silhouette() -> None:
    groups = (frozenset(TRAINING_SILHOUETTES), VALIDATION_SILHOUETTES, DEMO_SILHOUETTES)
    assert sum(map(len, groups)) == len(frozenset.union(*groups)) == len(SILHOUETTES)


def test_training_categories_are_drawn_from_the_training_silhouettes() -> None:
    families = {c.silhouette.family for c in draw_training_categories(400, np.random.default_rng(0))}
    assert families == set(TRAINING_SILHOUETTES)


def test_categories_have_unlike_looks() -> None:
    for categories in (DEMO_CATEGORIES, VALIDATION_CATEGORIES, draw_training_categories(30, np.random.default_rng(1))):
        looks = {(c.silhouette, c.texture, c.palette) for c in categories}
        assert len(looks) == len({c.name for c in categories}) == len(categories)


def test_some_training_categories_share_a_trait() -> None:
    categories = draw_training_categories(30, np.random.default_rng(2))
    assert len({c.palette for c in categories}) < len(categories)
    assert len({c.texture for c in categories}) < len(categories)


# --- references and COCO -------------------------------------------------------------------------------------------


def test_every_category_has_a_valid_reference(references: tuple[Scene, ...]) -> None:
    valid = {i.category for scene in references for i in scene.instances if is_valid_reference(i)}
    assert valid == set(DEMO_CATEGORIES)
    assert len(references) <= len(DEMO_CATEGORIES)


def test_references_can_be_drawn_for_any_categories() -> None:
    scenes = draw_references(VALIDATION_CATEGORIES[:2], np.random.default_rng(0))
    assert {i.category for s in scenes for i in s.instances} == set(VALIDATION_CATEGORIES[:2])


@pytest.mark.parametrize(
    ("left", "top", "side", "valid"),
    [(10, 10, 32, True), (9, 10, 40, False), (10, 9, 40, False), (20, 20, 31, False), (58, 18, 32, True),
     (59, 18, 32, False), (20, 29, 32, False)],
)  # fmt: skip
def test_validity_is_the_methods(left: int, top: int, side: int, valid: bool) -> None:
    assert is_valid_reference(_square(60, 100, left, top, side)) is valid


def test_coco_holds_the_scenes(targets: tuple[Scene, ...]) -> None:
    coco = to_coco(targets, DEMO_CATEGORIES, prefix="target", with_masks=True)
    instances = [instance for scene in targets for instance in scene.instances]
    assert [image["file_name"] for image in coco["images"]] == [image_name("target", k) for k in range(8)]
    assert [c["name"] for c in coco["categories"]] == [c.name for c in DEMO_CATEGORIES]
    assert len({a["id"] for a in coco["annotations"]}) == len(instances)
    assert 0 not in {a["id"] for a in coco["annotations"]}
    for annotation, instance in zip(coco["annotations"], instances, strict=True):
        left, top, width, height = annotation["bbox"]
        assert (left, top, left + width, top + height) == instance.box_xyxy
        assert annotation["area"] == instance.mask.sum()
        assert DEMO_CATEGORIES[annotation["category_id"] - 1] == instance.category


def test_coco_of_references_has_boxes_only(references: tuple[Scene, ...]) -> None:
    coco = to_coco(references, DEMO_CATEGORIES, prefix="reference", with_masks=False)
    assert all("segmentation" not in annotation for annotation in coco["annotations"])


def test_the_pipeline_reads_the_coco_dictionaries(targets: tuple[Scene, ...]) -> None:
    coco = to_coco(targets[:2], DEMO_CATEGORIES, prefix="target", with_masks=True)
    dataset = parse_coco(json.dumps(coco).encode(), source="demo")
    instances = [instance for scene in targets[:2] for instance in scene.instances]
    assert len(dataset.annotations) == len(instances)
    for rle, instance in zip(dataset.annotations.mask_rle, instances, strict=True):
        assert np.array_equal(decode_mask(rle), instance.mask)


@pytest.mark.parametrize("first", [False, True])
def test_run_lengths_go_down_the_columns_and_start_with_background(first: bool) -> None:
    mask = np.array([[first, True, True], [False, False, True]])
    assert run_lengths(mask) == ([0, 1, 1, 1, 1, 2] if first else [2, 1, 1, 2])


def test_run_lengths_of_plain_masks() -> None:
    assert run_lengths(np.zeros((2, 3), bool)) == [6]
    assert run_lengths(np.ones((2, 3), bool)) == [0, 6]


# --- the files that come with the package -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_packaged_scenes_are_those_that_are_drawn() -> None:
    packaged = dict(demo_scenes())
    for name, scenes, with_masks in (
        ("references", draw_demo_references(), False),
        ("targets", draw_demo_targets(), True),
    ):
        drawn = to_coco(scenes, DEMO_CATEGORIES, prefix=name, with_masks=with_masks)
        assert json.loads(packaged.pop(f"{name}.json")) == drawn
        for index, scene in enumerate(scenes):
            image = decode_image(packaged.pop(f"{name}/{image_name(name, index)}"), max_pixels=10**6)
            assert np.abs(image.astype(int) - scene.image).mean() < 6  # of 255: what JPEG takes
    assert packaged == {}


def test_more_images_than_there_are_begin_again() -> None:
    images = demo_images(42)
    assert np.array_equal(images[0], images[40])
    assert not np.array_equal(images[0], images[1])
