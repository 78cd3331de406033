"""Runs that keep proposals and are killed leave whole objects, and what they kept gives the labels of a new run."""

from random import Random
from typing import Any

import pytest

from tasks.store.kept_proposals import kept_status
from tasks.store.store import Store
from tests.support.crashes.crashing import Attempt, Death
from tests.support.crashes.killed_runs import NUM_IMAGES, Contents, Crashes, contents

pytest_plugins = [
    "tests.support.crashes.crash_scenes",
    "tests.support.servers.stores",
    "tests.support.projects.tiny_project",
]
pytestmark = pytest.mark.slow

_MOMENTS = {
    "half way through what is kept of the first image": Death("create", "^proposals/.*parquet", 1, "half"),
    "after what is kept of the first image": Death("create", "^proposals/.*parquet", 1),
    "half way through its manifest": Death("create", "^proposals/.*/manifest", 1, "half"),
    "after its manifest": Death("create", "^proposals/.*/manifest", 1),
    "before what is kept of the last image": Death("create", "^proposals/.*parquet", NUM_IMAGES, "before"),
    "after the first detections": Death("create", "/detections/", 1),
}


def _with_one_category(crashes: Crashes, store: str, **special: Any) -> Attempt:
    """A run with other references, on the same images."""
    scene = crashes.scene
    references = {**scene.content["references"], "sampling": {"categories": ["bar"]}}
    content = {**scene.content, "references": references, "store": store, "pictures": None}
    content["targets"] = {**content["targets"], "annotations": None}
    return Attempt("run", {"content": content}, scene.environment, **special)


def _labels(store: str) -> Contents:
    """The tables of all labels."""
    return {name: of for name, of in contents(store).items() if name.startswith("labels/") and ".parquet" in name}


@pytest.mark.parametrize("moment", _MOMENTS.values(), ids=_MOMENTS)
def test_a_run_killed_while_it_keeps_proposals_ends_as_an_undisturbed_one(moment: Death, keeping: Crashes) -> None:
    keeping.kill(moment)
    keeping.assert_whole()
    keeping.attempt()
    keeping.assert_exact()
    (kept,) = kept_status(Store(keeping.store))
    assert (kept.num_images, kept.num_parts) == (NUM_IMAGES, NUM_IMAGES)


@pytest.mark.parametrize("seed", range(3))
def test_what_killed_runs_kept_gives_other_references_the_labels_of_a_run_from_nothing(
    seed: int, keeping: Crashes
) -> None:
    generator = Random(seed)
    keeping.kill(Death("create", "^proposals/", generator.randint(2, 2 * NUM_IMAGES - 2)))
    keeping.make(_with_one_category(keeping, keeping.store, death=Death("create", "^proposals/", 2)))
    keeping.make(_with_one_category(keeping, keeping.store))
    elsewhere = keeping.elsewhere()
    elsewhere.make(_with_one_category(elsewhere, elsewhere.store))
    expected, found = _labels(elsewhere.store), _labels(keeping.store)
    assert len(expected) > 0
    assert {name: found.get(name) for name in expected} == expected
    keeping.attempt()
    undisturbed = _labels(keeping.scene.undisturbed().store)
    assert {name: _labels(keeping.store).get(name) for name in undisturbed} == undisturbed
