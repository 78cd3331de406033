"""Runs that are killed at random, again and again, lose no image, label none twice, and end as undisturbed ones."""

from random import Random

import pytest

from tests.support.crashes.crashing import Death
from tests.support.crashes.killed_runs import Crashes

pytest_plugins = [
    "tests.support.crashes.crash_scenes",
    "tests.support.servers.stores",
    "tests.support.projects.tiny_project",
]
pytestmark = pytest.mark.slow

_SEEDS_ON_DISK = range(8)
_SEEDS_IN_A_BUCKET = range(5)
_ROUNDS = {"disk": 5, "bucket": 2}  # for each seed, so 50 in all
_MOST_KILLS = 2  # in a round; then it may end


def _round(crashes: Crashes, seed: str) -> None:
    """A run that is killed at random until it ends."""
    generator = Random(seed)
    num_calls = crashes.scene.undisturbed().num_calls
    for _ in range(_MOST_KILLS):
        if not crashes.kill_perhaps(_random_death(generator, num_calls)):
            break
        crashes.assert_whole()
    else:
        crashes.attempt()
    crashes.assert_exact()


def _random_death(generator: Random, num_calls: int) -> Death:
    """Some time after the start, or around some call of the store."""
    if generator.random() < 0.5:
        return Death(seconds=generator.uniform(0.02, 1.2))
    return Death("call", nth=generator.randint(1, num_calls), when=generator.choice(["before", "after"]))


@pytest.mark.parametrize("seed", _SEEDS_ON_DISK)
def test_runs_killed_at_random_end_as_an_undisturbed_one(seed: int, on_disk: Crashes) -> None:
    for number in range(_ROUNDS["disk"]):
        _round(on_disk.elsewhere(), f"disk {seed} {number}")


@pytest.mark.parametrize("seed", _SEEDS_IN_A_BUCKET)
def test_runs_over_a_bucket_killed_at_random_end_as_an_undisturbed_one(seed: int, in_bucket: Crashes) -> None:
    for number in range(_ROUNDS["bucket"]):
        _round(in_bucket.elsewhere(), f"bucket {seed} {number}")
