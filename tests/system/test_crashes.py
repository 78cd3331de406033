"""A run that is killed at any of its moments leaves whole objects only, and the next run ends with all of them."""

from pathlib import Path

import pytest

from tests.support.crashes.crashing import Death
from tests.support.crashes.killed_runs import Crashes, contents

pytest_plugins = [
    "tests.support.crashes.crash_scenes",
    "tests.support.servers.stores",
    "tests.support.projects.tiny_project",
]
pytestmark = pytest.mark.slow


def after(of: str, nth: int = 1) -> Death:
    """Dies once that object is there."""
    return Death("create", of, nth)


def before(of: str, nth: int = 1) -> Death:
    """Dies just before that object is put."""
    return Death("create", of, nth, "before")


def half(of: str, nth: int = 1) -> Death:
    """Dies when half of that object is written."""
    return Death("create", of, nth, "half")


_MOMENTS = {
    "after the references' images": after("^dataset/.*/images"),
    "half way through the references' annotations": half("^dataset/.*/annotations"),
    "after the references' annotations": after("^dataset/.*/annotations"),
    "before the references' manifest": before("^dataset/.*/manifest"),
    "half way through the references' manifest": half("^dataset/.*/manifest"),
    "after the references' manifest": after("^dataset/.*/manifest"),
    "after the sampled references": after("^references/.*parquet"),
    "after their manifest": after("^references/.*/manifest"),
    "after the segmented references": after("^references/.*parquet", 2),
    "after the segmented references' manifest": after("^references/.*/manifest", 2),
    "after the memory bank": after("^memory_bank/.*parquet"),
    "after the memory bank's manifest": after("^memory_bank/.*/manifest"),
    "half way through the prototypes": half("^prototypes/.*parquet"),
    "after the prototypes": after("^prototypes/.*parquet"),
    "after the prototypes' manifest": after("^prototypes/.*/manifest"),
    "after the targets' categories": after("^dataset/.*/categories", 2),
    "after the targets' manifest": after("^dataset/.*/manifest", 2),
    "before the recipe": before("/recipe.json"),
    "after the recipe": after("/recipe.json"),
    "before the request": before("/requests/"),
    "after the request": after("/requests/"),
    "half way through the plan's images": half("/plans/parts/"),
    "after the plan's images": after("/plans/parts/"),
    "half way through the plan": half("/plans/0000.json"),
    "after the plan": after("/plans/0000.json"),
    "after an image of the first shard": Death("label"),
    "in the middle of the third shard": Death("label", nth=8),
    "while an image is read": Death("read", r"t4\.png"),
    "half way through the first detections": half("/detections/"),
    "after the first detections": after("/detections/"),
    "half way through what became of the first images": half("/labeled_images/"),
    "after what became of the first images": after("/labeled_images/"),
    "half way through the first similarities": half("/category_similarities/"),
    "after the first similarities": after("/category_similarities/"),
    "half way through the first shard's manifest": half("/shards/"),
    "after the first shard's manifest": after("/shards/"),
    "while a whole object still has its hidden name, too": Death("name", nth=28),
    "after the third detections": after("/detections/", 3),
    "after what became of the last images": after("/labeled_images/", 4),
    "after the last shard's manifest": after("/shards/", 4),
    "after the gone labels": after("^gone_labels/.*parquet"),
    "after the gone labels' manifest": after("^gone_labels/.*/manifest"),
    "half way through the metrics": half("^metrics/.*parquet"),
    "after the metrics": after("^metrics/.*parquet"),
    "after the metrics' manifest": after("^metrics/.*/manifest"),
}


@pytest.mark.parametrize("moment", _MOMENTS.values(), ids=_MOMENTS)
def test_a_run_killed_at_this_moment_and_started_again_ends_as_an_undisturbed_one(
    moment: Death, on_disk: Crashes
) -> None:
    on_disk.kill(moment)
    on_disk.assert_whole()
    on_disk.attempt()
    on_disk.assert_exact()


def test_a_run_that_is_killed_after_every_object_it_puts_still_ends(on_disk: Crashes) -> None:
    num_kills = 0
    while on_disk.kill_perhaps(Death("link")):
        num_kills += 1
    on_disk.assert_exact()
    assert num_kills == len(on_disk.scene.undisturbed().contents)


def test_pictures_of_a_killed_run_are_whole_and_in_the_end_all_there(on_disk: Crashes, tmp_path: Path) -> None:
    pictures, expected = str(tmp_path / "pictures"), str(tmp_path / "expected")
    on_disk.elsewhere().attempt({"pictures": expected})
    whole = contents(expected)
    on_disk.kill(Death("replace", nth=2), Death("rename", nth=3, when="before"), pictures=pictures)
    found = contents(pictures)
    assert {name: whole[name] for name in found} == found
    assert found
    on_disk.attempt({"pictures": pictures})
    assert contents(pictures) == whole
    on_disk.assert_exact()


_MOMENTS_IN_A_BUCKET = {
    "after the references' images": after("^dataset/.*/images"),
    "before the memory bank's manifest": before("^memory_bank/.*/manifest"),
    "after the plan's images": after("/plans/parts/"),
    "in the middle of the second shard": Death("label", nth=5),
    "while an image is read": Death("read", r"t4\.png"),
    "after the second detections": after("/detections/", 2),
    "before the second shard's manifest": before("/shards/", 2),
    "after the second shard's manifest": after("/shards/", 2),
    "after the metrics": after("^metrics/.*parquet"),
}


@pytest.mark.parametrize("moment", _MOMENTS_IN_A_BUCKET.values(), ids=_MOMENTS_IN_A_BUCKET)
def test_a_run_over_a_bucket_killed_at_this_moment_and_started_again_ends_as_an_undisturbed_one(
    moment: Death, in_bucket: Crashes
) -> None:
    in_bucket.kill(moment)
    in_bucket.assert_whole()
    in_bucket.attempt()
    in_bucket.assert_exact()
