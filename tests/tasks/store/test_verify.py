"""Every object that is lost, damaged or contradicts another is found and named, and nothing else is."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.label_stores import LabelStore
from tests.support.samples import images_table, labels_of, similarities_of


@pytest.fixture
def labels() -> LabelStore:
    labels = LabelStore()
    labels.night("a", "b", "c", unreadable=["b"])
    labels.night("a", "c", "d", c="2")
    labels.gone()
    return labels


def _problems(labels: LabelStore) -> dict[str, str]:
    return {problem.name: problem.what for problem in verify_store(labels.store).problems}


def _change_json(store: Store, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(store.folder.read(name))
    change(content)
    store.folder.replace(name, json.dumps(content).encode())


def test_a_whole_store_has_no_faults_and_all_of_it_is_read(labels: LabelStore) -> None:
    verified = verify_store(labels.store)
    assert verified.problems == []
    parts = {name for name in labels.names() if name.endswith(".parquet") and "/plans/" not in name}
    assert verified.num_parts == len(parts)
    assert verified.size == sum(len(labels.store.folder.read(name)) for name in parts)


def test_an_empty_store_has_no_problems() -> None:
    assert verify_store(LabelStore().store).problems == []


def test_every_part_that_is_lost_is_named(labels: LabelStore) -> None:
    for name in sorted(name for name in labels.names() if name.endswith(".parquet")):
        data = labels.store.folder.read(name)
        labels.store.folder.delete(name)
        (problem,) = (
            verify_store(labels.store).problems if "/plans/" not in name else verify_store(labels.store).problems[:1]
        )
        assert problem.name in (name, f"{labels.run.root}/plans")
        labels.store.folder.replace(name, data)
    assert _problems(labels) == {}


@pytest.mark.slow
def test_every_part_of_which_a_byte_changed_is_named(labels: LabelStore) -> None:
    for name in sorted(name for name in labels.names() if name.endswith(".parquet") and "/plans/" not in name):
        data = labels.store.folder.read(name)
        labels.store.folder.replace(name, bytes([data[0] ^ 1]) + data[1:])
        assert list(_problems(labels)) == [name]
        assert "damaged" in _problems(labels)[name]
        labels.store.folder.replace(name, data)


def test_a_manifest_whose_recipe_was_altered_is_named(labels: LabelStore) -> None:
    name = f"{labels.prototypes().name}/manifest.json"
    _change_json(labels.store, name, lambda manifest: manifest.update(version=9))
    assert "was altered" in _problems(labels)[name]


def test_a_wrong_count_of_rows_is_named(labels: LabelStore) -> None:
    name = labels.prototypes().name
    _change_json(labels.store, f"{name}/manifest.json", lambda manifest: manifest["tables"][0].update(num_rows=7))
    assert _problems(labels) == {f"{name}/prototypes.parquet": "has 1 row, expected 7"}


def test_a_shard_whose_tables_tell_of_different_attempts_is_named() -> None:
    labels = LabelStore()
    (shard,) = labels.begin_night("a", "b")
    images = images_table("a", "b")
    labels.run.commit(shard, labels_of(images, detections_each=2)[0], labels_of(images)[1])
    assert _problems(labels) == {
        f"{labels.run.root}/shards/{shard.name}.json": "has 4 detections where its images count 2"
    }


def test_a_shard_that_labels_other_images_than_its_plan_names_is_named() -> None:
    labels = LabelStore()
    (shard,) = labels.begin_night("a", "b")
    labels.run.commit(shard, *labels_of(images_table("a", "c")))
    (what,) = _problems(labels).values()
    assert what == "labels 2 images, not the 2 that its plan names"


@pytest.mark.parametrize("similar", [["a"], ["a", "b", "c"]])
def test_a_shard_whose_similarities_do_not_explain_its_prompts_is_named(similar: list[str]) -> None:
    labels = LabelStore()
    (shard,) = labels.begin_night("a", "b")
    labels.run.commit(shard, *labels_of(images_table("a", "b")), similarities_of(images_table(*similar)))
    assert _problems(labels) == {
        f"{labels.run.root}/shards/{shard.name}.json": "prompts other images than those whose similar categories it "
        "names"
    }


def test_a_shard_that_counts_other_prompts_than_its_images_is_named(labels: LabelStore) -> None:
    name = f"{labels.run.root}/shards/0000-00000.json"
    _change_json(labels.store, name, lambda manifest: manifest["prompts"].update(num_skipped=5))
    assert "'num_skipped': 5" in _problems(labels)[name]


def test_labels_of_paths_without_similarities_have_no_problems() -> None:
    labels = LabelStore(is_guided=False)
    labels.night("a", "b", "c", unreadable=["b"])
    assert _problems(labels) == {}
    assert not any("category_similarities" in name for name in labels.names())


def test_shards_whose_plan_is_lost_are_named(labels: LabelStore) -> None:
    labels.store.folder.delete(f"{labels.run.root}/plans/0001.json")
    assert set(_problems(labels).values()) == {"belongs to no plan: a plan is lost"}


def test_what_is_not_labeled_yet_or_was_left_by_a_killed_process_is_no_fault(labels: LabelStore) -> None:
    labels.begin_night("a", "x", "y")
    labels.store.folder.create("dataset/unfinished/images.parquet", b"half")
    labels.store.folder.create(f"{labels.run.root}/detections/0002-00000.parquet", b"half")
    assert _problems(labels) == {}


@pytest.fixture
def stopped() -> LabelStore:
    """Labels of a shard of four images in three segments."""
    stopped = LabelStore(images_per_shard=4)
    for _ in range(2):
        stopped.stop_night("a", "b", "c", "d", after=1)
    stopped.night("a", "b", "c", "d")
    return stopped


def test_segments_of_a_shard_are_checked_like_whole_ones(stopped: LabelStore) -> None:
    verified = verify_store(stopped.store)
    assert verified.problems == []
    parts = {name for name in stopped.names() if name.endswith(".parquet") and "/plans/" not in name}
    assert verified.num_parts == len(parts)
    for name in sorted(name for name in parts if "/0000-00000" in name):
        data = stopped.store.folder.read(name)
        stopped.store.folder.delete(name)
        assert _problems(stopped) == {name: "is missing"}
        stopped.store.folder.create(name, data)


def test_a_segment_without_the_one_before_it_is_named(stopped: LabelStore) -> None:
    shards = f"{stopped.run.root}/shards"
    stopped.store.folder.delete(f"{shards}/0000-00000_00001.json")
    assert _problems(stopped) == {
        f"{shards}/0000-00000_00002.json": "belongs to no shard: what comes before it is lost or damaged"
    }


def test_a_segment_that_counts_too_many_images_is_named(stopped: LabelStore) -> None:
    name = f"{stopped.run.root}/shards/0000-00000_00002.json"
    _change_json(stopped.store, name, lambda manifest: manifest["images"].update(empty=7))
    assert "counts 9 images, where the plan has 2" in _problems(stopped)[name]
