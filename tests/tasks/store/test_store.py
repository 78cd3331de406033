"""A store's artifacts: their keys follow their recipes, they are made once and whole, and manifests tell the truth."""

import dataclasses
import hashlib
import json
import pwd
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.errors import StoreError
from refseg_core.tables import BenchmarkNumbers, Categories, Detections, Images, LabeledImages
from tasks.store.garbage import find_garbage
from tasks.store.parquet import table_to_parquet
from tasks.store.status import store_status
from tasks.store.steps import ARTIFACT_FOLDERS, BENCHMARK, STEPS
from tasks.store.store import MANIFEST, Artifact, Recipe, Store, made_by, table_name
from tasks.store.verify import verify_store
from tests.support.samples import images_table, labels_of

pytest_plugins = ["tests.support.servers.stores"]

RECIPE = Recipe(
    "index_dataset",
    "dataset",
    version=3,
    settings={"num_shots": 1, "split": None, "thresh": 0.4, "names": ["a", "ü"]},
    inputs={"content": "abc"},
    weights={"encoder": "0123"},
)
_WRITERS = 4


@pytest.fixture
def store(empty_uri: str) -> Store:
    return Store(empty_uri)


def _never() -> list[Any]:
    raise AssertionError("computed again")


def _manifest_name(recipe: Recipe = RECIPE) -> str:
    return f"{recipe.folder}/{recipe.key}/{MANIFEST}"


# --- keys ------------------------------------------------------------------------------------------------------------


def test_equal_recipes_have_equal_keys_whatever_the_order_of_their_entries() -> None:
    shuffled = dataclasses.replace(RECIPE, settings=dict(reversed(list(RECIPE.settings.items()))))
    assert shuffled.key == RECIPE.key
    assert re.fullmatch("[0-9a-f]{16}", RECIPE.key)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "other"},
        {"folder": "other"},
        {"version": 4},
        {"settings": {**RECIPE.settings, "num_shots": 2}},
        {"settings": {**RECIPE.settings, "new": None}},
        {"settings": {**RECIPE.settings, "names": ["ü", "a"]}},
        {"inputs": {"content": "abd"}},
        {"inputs": {"other": "abc"}},
        {"weights": {"encoder": "0124"}},
        {"weights": {"segmenter": "0123"}},
        {"inputs": {"encoder": "0123"}, "weights": {"content": "abc"}},
    ],
    ids=str,
)
def test_any_change_of_a_recipe_changes_its_key(change: dict[str, Any]) -> None:
    assert dataclasses.replace(RECIPE, **change).key != RECIPE.key


_SETTINGS = st.dictionaries(st.text(max_size=3), st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=3))


@given(_SETTINGS, _SETTINGS)
def test_keys_are_equal_exactly_where_settings_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (dataclasses.replace(RECIPE, settings=settings).key for settings in (one, other))
    assert (first == second) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def test_keys_stay_the_same_between_versions_so_that_stores_stay_valid() -> None:
    assert Recipe("step", "folder", version=1, settings={"a": 1}, inputs={"b": "c"}).key == "5d7fe142604b4cdc"


# --- making ----------------------------------------------------------------------------------------------------------


def test_an_artifact_is_computed_once(store: Store) -> None:
    images = images_table("a.png", "b.png")
    made = store.make(RECIPE, lambda: [images, Categories.empty()])
    assert made == Artifact("dataset", RECIPE.key, {"images": 2, "categories": 0})
    assert Store(store.uri).make(RECIPE, _never) == made
    assert Store(store.uri).find(RECIPE) == made
    assert store.named(made.name) == made
    assert store.load(made, Images).equals(images)


def test_a_changed_recipe_makes_another_artifact_beside_the_first(store: Store) -> None:
    first = store.make(RECIPE, lambda: [images_table("a")])
    second = store.make(dataclasses.replace(RECIPE, version=4), lambda: [images_table("b")])
    assert first.key != second.key
    assert store.load(first, Images).image_id.tolist() == ["a"]
    assert store.load(second, Images).image_id.tolist() == ["b"]


def test_an_artifact_without_manifest_does_not_exist(store: Store) -> None:
    store.put_table(f"dataset/{RECIPE.key}/images.parquet", images_table("a"))
    assert store.find(RECIPE) is None
    assert store.manifests("dataset") == []
    with pytest.raises(StoreError, match=rf"dataset/{RECIPE.key}"):
        store.named(f"dataset/{RECIPE.key}")


def test_what_a_killed_writer_left_is_completed(store: Store) -> None:
    detections, labeled = labels_of(images_table("a", "b"))
    store.put_table(f"dataset/{RECIPE.key}/detections.parquet", detections)
    made = store.make(RECIPE, lambda: [detections, labeled])
    assert made.num_rows == {"detections": 2, "labeled_images": 2}
    _check_parts(store, RECIPE, [detections, labeled])


def test_a_manifest_describes_the_part_that_is_there_even_if_another_writer_left_it(store: Store) -> None:
    """Seconds of labeling differ between writers; the part that came first stays and is what the manifest tells."""
    _, theirs = labels_of(images_table("a", "b"), seconds=1)
    _, ours = labels_of(images_table("a", "b"), seconds=2)
    store.put_table(f"dataset/{RECIPE.key}/labeled_images.parquet", theirs)
    made = store.make(RECIPE, lambda: [ours])
    _check_parts(store, RECIPE, [theirs])
    assert store.load(made, LabeledImages).equals(theirs)


def test_racing_writers_end_with_one_artifact(store: Store) -> None:
    barrier = threading.Barrier(_WRITERS)

    def make(number: int) -> Artifact:
        def compute() -> list[Any]:
            barrier.wait()
            return list(labels_of(images_table("a", "b"), seconds=number))

        return Store(store.uri).make(RECIPE, compute)

    with ThreadPoolExecutor(_WRITERS) as writers:
        made = list(writers.map(make, range(_WRITERS)))
    assert made == [made[0]] * _WRITERS
    assert sorted(file.name.rpartition("/")[2] for file in store.folder.list_files()) == [
        "detections.parquet",
        "labeled_images.parquet",
        MANIFEST,
    ]
    _check_parts(store, RECIPE, [store.load(made[0], Detections), store.load(made[0], LabeledImages)])


def test_a_step_that_fails_leaves_nothing(store: Store) -> None:
    def fail() -> list[Any]:
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        store.make(RECIPE, fail)
    assert store.find(RECIPE) is None
    assert store.folder.list_folders() == []


# --- manifests -------------------------------------------------------------------------------------------------------


def _check_parts(store: Store, recipe: Recipe, tables: list[Any]) -> None:
    manifest = store.manifest(f"{recipe.folder}/{recipe.key}")
    assert manifest is not None
    assert [part["table"] for part in manifest["tables"]] == [table_name(type(table)) for table in tables]
    for part, table in zip(manifest["tables"], tables, strict=True):
        data = store.folder.read(f"{recipe.folder}/{recipe.key}/{part['name']}")
        assert data == table_to_parquet(table)
        assert part["num_rows"] == len(table)
        assert part["size"] == len(data)
        assert part["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_manifest_says_what_was_made_from_what_by_whom(store: Store) -> None:
    images = images_table("a", "b", "c")
    store.make(RECIPE, lambda: [images])
    _check_parts(store, RECIPE, [images])
    manifest = json.loads(store.folder.read(_manifest_name()))
    assert {name: manifest[name] for name in dataclasses.asdict(RECIPE)} == dataclasses.asdict(RECIPE)
    assert manifest["key"] == RECIPE.key
    assert manifest["refseg_version"] == version("refseg")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest["created"])
    assert "@" in manifest["created_by"]


def test_the_writer_is_named_also_where_the_system_knows_no_name_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers often run as a user id that has no entry in /etc/passwd."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    store = Store(f"memory://{uuid.uuid4().hex}")
    store.make(RECIPE, lambda: [images_table("a")])
    assert store.find(RECIPE) is not None


def test_manifests_are_listed_from_the_oldest_to_the_newest(store: Store) -> None:
    for number, created in enumerate(["2026-01-02", "2026-01-03", "2026-01-01"]):
        recipe = Recipe("index_dataset", "dataset", version=number)
        manifest = {**dataclasses.asdict(recipe), "key": recipe.key, **made_by(), "created": created, "tables": []}
        store.commit(f"dataset/{recipe.key}/{MANIFEST}", manifest)
    store.folder.create("dataset/unfinished/images.parquet", b"")
    assert [manifest["created"] for manifest in store.manifests("dataset")] == [
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]
    assert store.manifests("never made") == []


def test_whoever_commits_second_gets_what_is_there(store: Store) -> None:
    assert store.commit("a.json", {"by": "first"}) == {"by": "first"}
    assert store.commit("a.json", {"by": "second"}) == {"by": "first"}
    assert store.read_json("a.json") == {"by": "first"}
    assert store.read_json("absent.json") is None


def test_messages_show_no_secret() -> None:
    store = Store(f"memory://user:hunter2@{uuid.uuid4().hex}/store")
    with pytest.raises(StoreError, match="has no dataset/0123") as caught:
        store.named("dataset/0123")
    assert "hunter2" not in str(caught.value)


def test_tables_are_named_as_their_classes_in_small_letters() -> None:
    assert [table_name(table) for table in (Images, LabeledImages)] == ["images", "labeled_images"]


# --- schema ----------------------------------------------------------------------------------------------------------


def _with_schema(store: Store, **entries: Any) -> None:
    """Puts the manifest of an empty artifact that says this of its schema."""
    manifest = {**dataclasses.asdict(RECIPE), "key": RECIPE.key, **made_by(), "tables": []}
    del manifest["schema_version"]
    store.folder.create(_manifest_name(), json.dumps(manifest | entries).encode())


@pytest.mark.parametrize("entries", [{}, {"schema_version": 1}, {"schema_version": 1, "color": "blue"}])
def test_manifests_of_this_schema_and_older_ones_are_read_whatever_else_they_say(
    entries: dict[str, Any], tmp_path: Path
) -> None:
    store = Store(str(tmp_path))
    _with_schema(store, **entries)
    assert store.find(RECIPE) is not None


def test_new_manifests_say_their_schema(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest = store.manifest(store.make(RECIPE, lambda: []).name)
    assert manifest is not None
    assert manifest["schema_version"] == 1


def test_manifests_of_a_newer_schema_are_refused_whatever_they_look_like(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    _with_schema(store, schema_version=3, refseg_version="9.9", tables={"in": "another way"})
    said = r"manifest\.json: was written by refseg 9\.9 in version 3 of the store's schema; .* reads versions up to 2\."
    with pytest.raises(StoreError, match=said):
        store.find(RECIPE)
    (problem,) = verify_store(store).problems
    assert "Use a newer refseg" in problem.what


# --- benchmarks ------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_benchmark_are_listed_verified_and_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = store.make(
        Recipe(*BENCHMARK, version=1, inputs={"run 0": "metrics/0123"}), lambda: [BenchmarkNumbers.empty()]
    )
    store.folder.create("benchmarks/0123/benchmark_numbers.parquet", b"left by a process that was killed")
    assert [artifact.name for artifact in store_status(store).artifacts] == [made.name]
    assert verify_store(store).num_parts == 1
    assert {one.name for one in find_garbage(store, min_age_hours=0)} == {"benchmarks/0123/benchmark_numbers.parquet"}
    store.folder.delete(f"{made.name}/benchmark_numbers.parquet")
    assert [problem.what for problem in verify_store(store).problems] == ["is missing"]


def test_each_step_has_a_name_of_its_own() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert "labels" not in ARTIFACT_FOLDERS
