"""Runs that are started twice by mistake, or share the work of one, leave what one alone would have left."""

from typing import Any

import pytest

from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.crashes.crashing import Death
from tests.support.crashes.killed_runs import Contents, Crashes, contents

pytest_plugins = [
    "tests.support.crashes.crash_scenes",
    "tests.support.servers.stores",
    "tests.support.projects.tiny_project",
]
pytestmark = pytest.mark.slow

_ROUNDS = range(4)
_ROUNDS_IN_A_BUCKET = range(2)


def _workers(seed: int, number: int = 3) -> list[dict[str, Any]]:
    """Workers, each of which labels the shards in an order of its own."""
    return [{"order": number * seed + worker} for worker in range(number)]


def _attempt_with_one_killed(crashes: Crashes, seed: int, death: Death) -> None:
    """One of three workers is killed, unless the others are so quick that they leave it nothing to die of."""
    killed, *others = _workers(seed)
    outcomes = crashes.attempt({**killed, "death": death}, *others)
    assert not any(outcome.is_killed for outcome in outcomes[1:])


# --- equal attempts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("_round", _ROUNDS)
def test_two_runs_at_once_end_as_one_alone(_round: int, on_disk: Crashes) -> None:
    on_disk.attempt({}, {})
    on_disk.assert_exact()


@pytest.mark.parametrize("_round", _ROUNDS_IN_A_BUCKET)
def test_two_runs_at_once_over_a_bucket_end_as_one_alone(_round: int, in_bucket: Crashes) -> None:
    in_bucket.attempt({}, {})
    in_bucket.assert_exact()


@pytest.mark.parametrize("seed", _ROUNDS)
def test_three_workers_on_one_plan_end_as_one_alone_though_one_is_killed(seed: int, on_disk: Crashes) -> None:
    of = ("/detections/", "/labeled_images/", "/shards/", "/detections/")[seed]
    _attempt_with_one_killed(on_disk, seed, Death("create", of, nth=1 + seed // 3))
    on_disk.assert_exact()


@pytest.mark.parametrize("seed", _ROUNDS_IN_A_BUCKET)
def test_three_workers_on_one_plan_in_a_bucket_end_as_one_alone_though_one_is_killed(
    seed: int, in_bucket: Crashes
) -> None:
    _attempt_with_one_killed(in_bucket, seed, Death("create", "/detections/"))
    in_bucket.assert_exact()


def test_runs_that_are_all_killed_at_once_are_taken_up_by_another(on_disk: Crashes) -> None:
    deaths = [Death("create", "/detections/"), Death("create", "/detections/", nth=2), Death("label", nth=7)]
    outcomes = on_disk.attempt(*({**worker, "death": death} for worker, death in zip(_workers(7), deaths, strict=True)))
    assert all(outcome.is_killed for outcome in outcomes)
    on_disk.assert_whole()
    on_disk.attempt()
    on_disk.assert_exact()


# --- attempts that find different things -----------------------------------------------------------------------------


def _finders(crashes: Crashes) -> list[str]:
    """Who found what each shard holds. Fails where a shard tells of two attempts, or of none."""
    found = contents(crashes.store)
    finders = {finds: crashes.scene.undisturbed(finds).contents for finds in ("everything", "less")}
    shards = sorted(name.rpartition("/")[2].removesuffix(".json") for name in found if "/shards/" in name)
    assert len(shards) == len({name for name in finders["less"] if "/shards/" in name})
    return [_finder(_of_shard(found, shard), finders, shard) for shard in shards]


def _finder(shard: Contents, finders: dict[str, Contents], name: str) -> str:
    (finder,) = (finds for finds, expected in finders.items() if _of_shard(expected, name) == shard)
    return finder


def _of_shard(found: Contents, shard: str) -> Contents:
    """A shard's parts and its manifest, which has the parts' hashes and the count of images in each status."""
    return {name: content for name, content in found.items() if f"/{shard}." in name}


def _assert_sound(crashes: Crashes) -> None:
    crashes.count_images()
    assert verify_store(Store(crashes.store)).problems == []


@pytest.mark.parametrize("of", ["/detections/", "/labeled_images/", "/shards/"])
def test_a_shard_begun_by_a_killed_run_that_found_other_things_tells_of_that_run_alone(
    of: str, on_disk: Crashes
) -> None:
    on_disk.kill(Death("create", of, nth=2), finds="less")
    on_disk.attempt()
    assert _finders(on_disk) == ["less", "less", "everything", "everything"]
    _assert_sound(on_disk)


@pytest.mark.parametrize("seed", _ROUNDS)
def test_each_shard_of_runs_at_once_that_find_different_things_tells_of_one_of_them(
    seed: int, on_disk: Crashes
) -> None:
    """Even rounds label in one order, so that both race for every shard."""
    order = None if seed % 2 == 0 else seed
    on_disk.attempt({"finds": "everything"}, {"finds": "less", "order": order})
    assert set(_finders(on_disk)) <= {"everything", "less"}
    _assert_sound(on_disk)


@pytest.mark.parametrize("seed", _ROUNDS_IN_A_BUCKET)
def test_each_shard_in_a_bucket_of_runs_that_find_different_things_and_are_killed_tells_of_one_of_them(
    seed: int, in_bucket: Crashes
) -> None:
    death = Death("create", "/detections/", nth=2)
    in_bucket.attempt({"finds": "less", "death": death}, {"finds": "everything", "order": seed, "death": death})
    in_bucket.attempt({"finds": "less", "order": seed}, {"finds": "everything"})
    assert set(_finders(in_bucket)) <= {"everything", "less"}
    _assert_sound(in_bucket)
