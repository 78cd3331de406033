"""Labels are planned once, committed shard by shard, and found again by the next run."""

import contextlib
import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.errors import StoreError
from refseg_core.settings import Purpose
from refseg_core.tables import CategorySimilarities, Detections, Images, LabeledImages
from tasks.store import label_store as labels_module
from tasks.store import shard_plans as plans_module
from tasks.store.label_store import StoredLabels, newest_labels, open_labels
from tasks.store.parquet import table_from_parquet, table_to_parquet
from tasks.store.shard_plans import Shard, Wanted
from tasks.store.store import Artifact, Recipe, Store, made_by
from tasks.store.verify import verify_store
from tests.support.samples import images_table, labels_of, similarities_of, table_rows

pytest_plugins = ["tests.support.servers.stores"]

RECIPE = Recipe("label_shard", "labels", version=1, settings={"images": "s3://bucket/images", "thresh": 0.4})
NAMES = tuple("abcdefg")
_PLANNERS = 4

anywhere = pytest.mark.parametrize("empty_uri", ["path", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)


@pytest.fixture
def run() -> StoredLabels:
    return _new_run()


@pytest.fixture
def run_anywhere(empty_uri: str) -> StoredLabels:
    return StoredLabels.open(Store(empty_uri), RECIPE)


def _new_run() -> StoredLabels:
    return StoredLabels.open(Store(f"memory://{uuid.uuid4().hex}"), RECIPE)


def _identities(images: Images | LabeledImages) -> list[tuple[str, str]]:
    return list(zip(images.image_id, images.version, strict=True))


def _planned(run: StoredLabels) -> list[list[tuple[str, str]]]:
    """The images of each plan."""
    plans: dict[int, list[tuple[str, str]]] = {}
    for part in run.plans.parts():
        plans.setdefault(part.shards[0].plan, []).extend(_identities(part.images))
    return list(plans.values())


def _contents(run: StoredLabels, shards: list[Shard]) -> list[list[str]]:
    return [list(run.plans.images_of(shard).image_id) for shard in shards]


def _label(run: StoredLabels, shard: Shard, *, seconds: float = 0.5) -> None:
    run.commit(shard, *labels_of(run.plans.images_of(shard), seconds=seconds))


def _read(run: StoredLabels, images: Images | None = None) -> tuple[Detections, LabeledImages]:
    parts = list(run.read(images))
    return Detections.concatenate([part for part, _ in parts]), LabeledImages.concatenate([part for _, part in parts])


# --- planning --------------------------------------------------------------------------------------------------------


@anywhere
def test_a_plan_cuts_the_images_into_shards_in_their_order(run_anywhere: StoredLabels) -> None:
    shards = run_anywhere.plan(images_table(*NAMES), 3)
    assert _contents(run_anywhere, shards) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert [shard.name for shard in shards] == ["0000-00000", "0000-00001", "0000-00002"]
    assert [len(shard) for shard in shards] == [3, 3, 1]


@anywhere
def test_planning_again_gives_the_same_shards(run_anywhere: StoredLabels) -> None:
    shards = run_anywhere.plan(images_table(*NAMES), 3)
    before = run_anywhere.store.folder.list_files()
    again = StoredLabels.open(Store(run_anywhere.store.uri), RECIPE)
    assert again.plan(images_table(*NAMES), 3) == shards
    assert again.store.folder.list_files() == before


def test_planning_nothing_plans_nothing(run: StoredLabels) -> None:
    assert run.plan(Images.empty(), 3) == []
    assert _planned(run) == []


def test_new_images_make_a_new_plan_with_only_them(run: StoredLabels) -> None:
    first = run.plan(images_table("b", "d"), 2)
    both = run.plan(images_table("a", "b", "c", "d", "e"), 2)
    assert both[: len(first)] == first
    assert _contents(run, both[len(first) :]) == [["a", "c"], ["e"]]
    assert [shard.plan for shard in both] == [0, 1, 1]


def test_an_image_whose_version_changed_is_planned_again(run: StoredLabels) -> None:
    run.plan(images_table("a", "b", "c"), 1)
    shards = run.plan(images_table("a", "b", "c", b="2"), 1)
    assert _contents(run, shards) == [["a"], ["c"], ["b"]]
    assert [list(run.plans.images_of(shard).version) for shard in shards] == [["1"], ["1"], ["2"]]


def test_shards_of_images_that_nobody_asks_for_are_left_out(run: StoredLabels) -> None:
    run.plan(images_table(*NAMES), 2)
    shards = run.plan(images_table("c", "g"), 2)
    assert _contents(run, shards) == [["c", "d"], ["g"]]


def test_another_number_of_images_per_shard_changes_no_old_plan(run: StoredLabels) -> None:
    shards = run.plan(images_table(*NAMES), 3)
    assert run.plan(images_table(*NAMES), 1) == shards
    later = run.plan(images_table(*NAMES, "h", "i"), 1)
    assert later[: len(shards)] == shards
    assert _contents(run, later[len(shards) :]) == [["h"], ["i"]]


@anywhere
def test_a_plan_that_a_killed_planner_left_half_written_is_no_plan(run_anywhere: StoredLabels) -> None:
    run_anywhere.plans.put_part(images_table("a", "b", "gone"))
    assert _planned(run_anywhere) == []
    shards = run_anywhere.plan(images_table("a", "b", "new"), 2)
    assert _contents(run_anywhere, shards) == [["a", "b"], ["new"]]


def test_a_plan_of_many_images_is_cut_into_parts_that_shards_do_not_cross(
    run: StoredLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a worker holds a part of the plan, however many images there are."""
    monkeypatch.setattr(plans_module, "_IMAGES_PER_PART", 5)
    shards = run.plan(images_table(*NAMES), 2)
    assert _contents(run, shards) == [["a", "b"], ["c", "d"], ["e", "f"], ["g"]]
    assert [len(part.images) for part in run.plans.parts()] == [4, 3]
    assert [shard.name for shard in shards] == [f"0000-0000{number}" for number in range(4)]
    assert run.plan(images_table(*NAMES), 2) == shards


@anywhere
def test_racing_planners_plan_each_image_once_and_agree(empty_uri: str) -> None:
    wanted = [images_table(*NAMES[number : number + 4]) for number in range(_PLANNERS)]
    barrier = threading.Barrier(_PLANNERS)

    def plan(number: int) -> list[Shard]:
        run = StoredLabels.open(Store(empty_uri), RECIPE)
        barrier.wait()
        return run.plan(wanted[number], number + 1)

    with ThreadPoolExecutor(_PLANNERS) as planners:
        planned = list(planners.map(plan, range(_PLANNERS)))
    run = StoredLabels.open(Store(empty_uri), RECIPE)
    assert sorted(name for plan in _planned(run) for name, _ in plan) == sorted(NAMES)
    for images, shards in zip(wanted, planned, strict=True):
        assert {name for content in _contents(run, shards) for name in content} >= set(images.image_id)
        assert run.plan(images, 99) == shards


_VERSIONS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("12"), max_size=len(NAMES))


@given(st.lists(st.tuples(_VERSIONS, st.integers(1, 4)), min_size=1, max_size=5))
@settings(max_examples=12)
def test_every_image_lies_in_exactly_one_shard_in_each_of_its_versions(calls: list[tuple[dict[str, str], int]]) -> None:
    run = _new_run()
    seen: set[tuple[str, str]] = set()
    for versions, images_per_shard in calls:
        images = images_table(*versions, **versions)
        shards = run.plan(images, images_per_shard)
        seen |= set(versions.items())
        planned = [identity for plan in _planned(run) for identity in plan]
        assert sorted(planned) == sorted(seen)
        held = [set(_identities(run.plans.images_of(shard))) for shard in shards]
        assert all(content & set(versions.items()) for content in held)
        assert set().union(*held) >= set(versions.items())


# --- committing ------------------------------------------------------------------------------------------------------


@anywhere
def test_a_shard_is_labeled_when_it_is_committed(run_anywhere: StoredLabels) -> None:
    first, second = run_anywhere.plan(images_table("a", "b", "c"), 2)
    assert run_anywhere.rest_of(first) == first
    _label(run_anywhere, first)
    assert run_anywhere.rest_of(first) is None
    assert run_anywhere.rest_of(second) == second
    detections, labeled = _read(run_anywhere)
    expected = labels_of(images_table("a", "b"))
    assert detections.equals(expected[0])
    assert labeled.equals(expected[1])


def test_a_run_that_was_never_planned_has_no_labels(run: StoredLabels) -> None:
    assert list(run.read()) == []
    assert list(run.read(images_table("a"))) == []


def _put_detections(
    run: StoredLabels,
    shard: Shard,
    detections: Detections,
    labeled: LabeledImages,
    similarities: CategorySimilarities | None = None,
) -> None:
    """What a writer leaves that is killed after its first part."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "put_table", _killed)
        run.commit(shard, detections, labeled, similarities)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_parts_without_manifest_are_not_labels_and_are_completed(run: StoredLabels) -> None:
    (shard,) = run.plan(images_table("a", "b"), 2)
    _put_detections(run, shard, *labels_of(images_table("a", "b"), seconds=1))
    assert run.rest_of(shard) == shard
    assert list(run.read()) == []
    _label(run, shard, seconds=2)
    assert run.rest_of(shard) is None
    detections, labeled = _read(run)
    expected = labels_of(images_table("a", "b"), seconds=2)
    assert detections.equals(expected[0])
    assert labeled.equals(expected[1])


def test_where_another_attempt_left_other_detections_both_tables_tell_of_that_attempt(run: StoredLabels) -> None:
    """Another device may find something else in the same images."""
    images = images_table("a", "b")
    (shard,) = run.plan(images, 2)
    detections, labeled = labels_of(images, detections_each=3)
    labeled = labeled.replace(num_proposals=np.array([7, 8]))
    _put_detections(run, shard, detections, labeled)
    run.commit(shard, *labels_of(images, detections_each=1, seconds=9))
    found, of_images = _read(run)
    assert found.equals(detections)
    assert of_images.num_detections.tolist() == [3, 3]
    assert of_images.num_proposals.tolist() == [7, 8]
    assert of_images.seconds.tolist() == [9, 9]


def _similarities(run: StoredLabels, shard: Shard) -> CategorySimilarities:
    part = next(part for part in run.shard_manifest(shard)["tables"] if part["table"] == "category_similarities")  # type: ignore[index]
    return run.store.read_part(f"{run.root}/category_similarities", part, CategorySimilarities)


def test_similarities_are_a_part_of_the_shard_and_labels_are_read_as_without(run: StoredLabels) -> None:
    images = images_table("a", "b")
    (shard,) = run.plan(images, 2)
    run.commit(shard, *labels_of(images), similarities_of(images))
    assert _similarities(run, shard).equals(similarities_of(images))
    assert _read(run)[0].equals(labels_of(images)[0])


@pytest.mark.parametrize("similarity", [0.5, None])
def test_where_another_attempt_left_detections_the_similarities_are_that_attempts(
    run: StoredLabels, similarity: float | None
) -> None:
    """Also where that attempt has none, as those of older versions."""
    images = images_table("a", "b")
    (shard,) = run.plan(images, 2)
    theirs = None if similarity is None else similarities_of(images, similarity)
    _put_detections(run, shard, *labels_of(images), theirs)
    run.commit(shard, *labels_of(images), similarities_of(images, 0.75))
    if theirs is None:
        assert len(run.shard_manifest(shard)["tables"]) == 2  # type: ignore[index]
    else:
        assert _similarities(run, shard).equals(theirs)


@anywhere
def test_committing_a_shard_again_changes_nothing(run_anywhere: StoredLabels) -> None:
    (shard,) = run_anywhere.plan(images_table("a", "b"), 2)
    _label(run_anywhere, shard, seconds=1)
    before = {file.name: run_anywhere.store.folder.read(file.name) for file in run_anywhere.store.folder.list_files()}
    _label(run_anywhere, shard, seconds=2)
    assert before == {
        file.name: run_anywhere.store.folder.read(file.name) for file in run_anywhere.store.folder.list_files()
    }


def test_a_shard_without_detections_is_labeled_too(run: StoredLabels) -> None:
    (shard,) = run.plan(images_table("a", "b"), 2)
    run.commit(shard, *labels_of(images_table("a", "b"), detections_each=0))
    detections, labeled = _read(run, images_table("b"))
    assert len(detections) == 0
    assert labeled.image_id.tolist() == ["b"]


def test_the_parts_of_a_table_lie_in_one_folder_that_reads_as_one_table(run: StoredLabels) -> None:
    for shard in run.plan(images_table(*NAMES), 2):
        _label(run, shard)
    names = [file.name for file in run.store.folder.list_files()]
    for folder in ("detections", "labeled_images"):
        inside = [name for name in names if name.startswith(f"{run.root}/{folder}/")]
        assert len(inside) == 4
        assert all(name.endswith(".parquet") for name in inside)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_labels_are_read_for_the_given_images_only(run: StoredLabels) -> None:
    for shard in run.plan(images_table(*NAMES), 3):
        _label(run, shard)
    detections, labeled = _read(run, images_table("b", "g", "unknown"))
    assert labeled.image_id.tolist() == ["b", "g"]
    assert detections.image_id.tolist() == ["b", "g"]


def test_labels_are_read_for_the_given_versions_only(run: StoredLabels) -> None:
    old, new = images_table("a", "b"), images_table("a", "b", b="2")
    for images in (old, new):
        for shard in run.plan(images, 2):
            _label(run, shard)
    for images in (old, new):
        detections, labeled = _read(run, images)
        assert sorted(_identities(labeled)) == sorted(_identities(images))
        assert sorted(detections.image_id) == ["a", "b"]
    assert len(_read(run)[1]) == 3


def test_each_shard_is_read_on_its_own_in_order(run: StoredLabels) -> None:
    for shard in run.plan(images_table(*NAMES), 3):
        _label(run, shard)
    assert [labeled.image_id.tolist() for _, labeled in run.read()] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


@given(st.sets(st.integers(0, 6)), st.sets(st.sampled_from(NAMES)), st.integers(1, 7))
@settings(max_examples=12)
def test_what_is_read_is_what_was_committed_of_what_is_asked_for(
    committed: set[int], wanted: set[str], images_per_shard: int
) -> None:
    run = _new_run()
    shards = run.plan(images_table(*NAMES), images_per_shard)
    done = [shard for shard in shards if shard.number in committed]
    for shard in done:
        _label(run, shard)
    there = [name for content in _contents(run, done) for name in content if name in wanted]
    detections, labeled = _read(run, images_table(*sorted(wanted)))
    expected = labels_of(images_table(*there))
    assert table_rows(detections) == table_rows(expected[0])
    assert table_rows(labeled) == table_rows(expected[1])


# --- runs ------------------------------------------------------------------------------------------------------------


def test_runs_of_other_recipes_share_nothing(run: StoredLabels) -> None:
    other = StoredLabels.open(run.store, Recipe("label_shard", "labels", version=2))
    run.plan(images_table("a"), 1)
    assert other.key != run.key
    assert _planned(other) == []


def test_a_run_remembers_what_decides_its_labels(run: StoredLabels) -> None:
    recipe = open_labels(run.store, run.key).recipe()
    assert recipe is not None
    assert recipe["settings"] == RECIPE.settings
    assert recipe["key"] == RECIPE.key
    assert StoredLabels.open(run.store, RECIPE).recipe() == recipe


def test_labels_that_do_not_exist_are_an_error_that_names_those_that_do(run: StoredLabels) -> None:
    with pytest.raises(StoreError, match=rf"has no labels 'unknown'; it has {RECIPE.key}"):
        open_labels(run.store, "unknown")
    with pytest.raises(StoreError, match="it has none"):
        open_labels(Store("memory://nothing-here"), "unknown")


def test_the_newest_labels_are_those_begun_last(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    with pytest.raises(StoreError, match=rf"{store.uri}: holds no labels"):
        newest_labels(store)
    times = {1: "2026-01-02T00:00:00+00:00", 2: "2026-01-03T00:00:00+00:00", 3: "2026-01-01T00:00:00+00:00"}
    runs = {}
    for version, created in times.items():
        monkeypatch.setattr(labels_module, "made_by", lambda created=created: made_by() | {"created": created})
        runs[version] = StoredLabels.open(store, Recipe("label_shard", "labels", version=version))
    newest, others = newest_labels(store)
    assert newest.key == runs[2].key
    assert others == 2


@pytest.mark.parametrize("purpose", ["trial", "pilot", "study"])
def test_labels_of_a_run_are_taken_before_newer_ones_for_something_else(purpose: Purpose) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    pilot = StoredLabels.open(store, Recipe("label_shard", "labels", version=1))
    pilot.request(_dataset(pilot, images_table("a")), purpose)
    assert (newest_labels(store)[0].key, newest_labels(store)[0].purpose()) == (pilot.key, purpose)
    run = StoredLabels.open(store, Recipe("label_shard", "labels", version=2))
    run.request(_dataset(run, images_table("a", "b")))
    later = StoredLabels.open(store, Recipe("label_shard", "labels", version=3))
    later.request(_dataset(later, images_table("c")), purpose)
    assert (newest_labels(store)[0].key, newest_labels(store)[1]) == (run.key, 2)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: open_labels(store, "unknown"),
        newest_labels,
        lambda store: StoredLabels(store, "unknown").recipe_or_error(),
    ],
    ids=["open_labels", "newest_labels", "recipe_or_error"],
)
def test_messages_show_no_secret(ask: Callable[[Store], object]) -> None:
    with pytest.raises(StoreError, match="no labels") as caught:
        ask(Store(f"memory://user:hunter2@{uuid.uuid4().hex}/store"))
    assert "hunter2" not in str(caught.value)


# --- requests --------------------------------------------------------------------------------------------------------


def _dataset(run: StoredLabels, images: Images) -> Artifact:
    recipe = Recipe("index_dataset", "dataset", version=1, inputs={"content": str(_identities(images))})
    return run.store.make(recipe, lambda: [images])


def test_the_images_of_a_run_are_those_of_the_dataset_that_was_asked_for_last(run: StoredLabels) -> None:
    assert len(run.images()) == 0
    first, second = images_table("c", "a"), images_table("a", "b", a="2")
    for images in (first, second, second, first):
        run.request(_dataset(run, images))
        assert run.images().equals(images)
    assert len(list(run.store.numbered(f"{run.root}/requests"))) == 3


def test_images_asked_for_by_a_pilot_are_those_of_the_labels_only_until_a_run_asks(run: StoredLabels) -> None:
    pilot, whole, later = images_table("a"), images_table("a", "b"), images_table("c")
    run.request(_dataset(run, pilot), "pilot")
    assert (run.images().image_id.tolist(), run.purpose()) == (["a"], "pilot")
    for _ in range(2):
        run.request(_dataset(run, whole))
        run.request(_dataset(run, later), "pilot")
    assert (run.images().image_id.tolist(), run.purpose()) == (["a", "b"], "run")
    assert run.last_requests() == {"run": _dataset(run, whole).name, "pilot": _dataset(run, later).name}
    assert len(run.requests()) == 3


# --- what is pending -------------------------------------------------------------------------------------------------


@anywhere
def test_shards_are_pending_until_they_are_committed(run_anywhere: StoredLabels) -> None:
    shards = run_anywhere.plan(images_table("a", "b", "c"), 1)
    assert run_anywhere.pending(shards) == shards
    _label(run_anywhere, shards[1])
    assert run_anywhere.pending(shards) == [shards[0], shards[2]]


def test_a_listing_does_not_decide_what_is_labeled(run: StoredLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale one may show what was removed, and miss what was committed; then it is asked for again later."""
    first, second = run.plan(images_table("a", "b"), 1)
    _label(run, second)
    monkeypatch.setattr(Store, "listed", lambda *_: [f"{first.name}.json"])
    assert run.pending([first, second]) == [first, second]
    assert run.rest_of(second) is None


# --- shards that were committed in segments --------------------------------------------------------------------------


def _label_first(run: StoredLabels, shard: Shard, number: int, *, seconds: float = 0.5) -> Shard | None:
    """What a run does that is stopped after so many images of the shard."""
    return run.commit(shard, *labels_of(run.plans.images_of(shard.first(number)), seconds=seconds))


def _rest(run: StoredLabels, shard: Shard) -> Shard:
    rest = run.rest_of(shard)
    assert rest is not None
    return rest


@anywhere
def test_the_first_images_of_a_shard_are_labels_and_the_rest_is_still_to_do(run_anywhere: StoredLabels) -> None:
    run = run_anywhere
    shards = run.plan(images_table(*NAMES), 5)
    assert _label_first(run, shards[0], 2) == _rest(run, shards[0])
    assert _read(run)[1].image_id.tolist() == ["a", "b"]
    assert _contents(run, run.pending(shards)) == [["c", "d", "e"], ["f", "g"]]
    assert _label_first(run, _rest(run, shards[0]), 1) == _rest(run, shards[0])
    assert _contents(run, run.pending(shards)) == [["d", "e"], ["f", "g"]]
    for shard in run.pending(shards):
        _label(run, shard)
    assert run.pending(shards) == []
    assert run.plan(images_table(*NAMES), 5) == shards
    expected = labels_of(images_table(*NAMES))
    for found, table in zip(_read(run), expected, strict=True):
        assert found.equals(table)
    assert _read(run, images_table("e", "b"))[1].image_id.tolist() == ["b", "e"]


def test_folders_with_segments_read_as_one_table_in_the_plans_order(run: StoredLabels) -> None:
    (shard,) = run.plan(images_table(*NAMES), len(NAMES))
    _label_first(run, shard, 3)
    _label_first(run, _rest(run, shard), 3)
    _label(run, _rest(run, shard))
    names = sorted(file.name for file in run.store.folder.list_files() if "/labeled_images/" in file.name)
    assert [name.rpartition("/")[2] for name in names] == [
        "0000-00000.parquet",
        "0000-00000_00003.parquet",
        "0000-00000_00006.parquet",
    ]
    parts = [table_from_parquet(run.store.folder.read(name), LabeledImages) for name in names]
    assert LabeledImages.concatenate(parts).image_id.tolist() == list(NAMES)


def test_only_manifests_of_first_images_are_kept_from_older_versions(run: StoredLabels) -> None:
    """An older refseg would take the rest of the shard for labeled."""
    first, second = run.plan(images_table(*NAMES), 4)
    _label_first(run, first, 3)
    _label(run, _rest(run, first))
    _label(run, second)
    versions = [manifest["schema_version"] for (_, _, manifest) in run.shards_with_manifests(_all()) if manifest]
    assert versions == [2, 1, 1]


def _all() -> Wanted:
    return Wanted(images_table(*NAMES))


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 7), st.booleans(), st.booleans()), max_size=12), st.integers(1, 7))
@settings(max_examples=60)
def test_however_attempts_are_stopped_killed_and_late_every_image_is_labeled_once(
    attempts: list[tuple[int, bool, bool]], per_shard: int
) -> None:
    """An attempt finishes some images of a shard, or of what was its rest before the attempt before, and is perhaps
    killed after its first part."""
    run = _new_run()
    images = images_table(*NAMES)
    shards = run.plan(images, per_shard)
    stale = run.pending(shards)
    for number, is_killed, is_late in attempts:
        pending = run.pending(shards)
        shard = next(iter(stale if is_late else pending), None)
        stale = pending
        if shard is None:
            break
        some = labels_of(run.plans.images_of(shard.first(min(number, len(shard)))), seconds=number)
        if is_killed:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Store, "put_table", _killed)
                with contextlib.suppress(KeyboardInterrupt):
                    run.commit(shard, *some)
        else:
            run.commit(shard, *some)
    while left := run.pending(shards):
        _label(run, left[0])
    detections, labeled = _read(run)
    assert labeled.image_id.tolist() == list(NAMES)
    assert detections.equals(labels_of(images)[0])
    assert verify_labels(run) == []


def verify_labels(run: StoredLabels) -> list[str]:
    """What is wrong with the labels, but for what they were made from, which these have not."""
    return [problem.what for problem in verify_store(run.store).problems if "/requests/" not in problem.name]


def test_a_whole_attempt_after_one_that_was_stopped_keeps_what_that_one_committed(run: StoredLabels) -> None:
    """As of a worker that was taken for lost: it labeled the whole shard and comes second."""
    (shard,) = run.plan(images_table("a", "b", "c"), 3)
    _label_first(run, shard, 2, seconds=1)
    rest = run.commit(shard, *labels_of(images_table("a", "b", "c"), seconds=9))
    assert rest == _rest(run, shard)
    assert _read(run)[1].seconds.tolist() == [1, 1]


def test_a_stopped_attempt_completes_the_whole_one_that_was_killed(run: StoredLabels) -> None:
    images = images_table("a", "b", "c")
    (shard,) = run.plan(images, 3)
    _put_detections(run, shard, *labels_of(images, detections_each=2))
    assert _label_first(run, shard, 1, seconds=9) is None
    detections, labeled = _read(run)
    assert detections.equals(labels_of(images, detections_each=2)[0])
    assert labeled.image_id.tolist() == ["a", "b", "c"]
    assert labeled.seconds.tolist() == [9, 9, 9]


def test_a_stopped_attempt_leaves_the_part_of_an_older_version_to_a_whole_one(run: StoredLabels) -> None:
    """Older parts of detections do not say of which images they are."""
    images = images_table("a", "b", "c")
    (shard,) = run.plan(images, 3)
    detections, _ = labels_of(images, detections_each=2)
    run.store.folder.create(f"{run.root}/detections/{shard.name}.parquet", table_to_parquet(detections))
    assert _label_first(run, shard, 1) == shard
    assert run.pending([shard]) == [shard]
    _label(run, shard)
    assert _read(run)[0].equals(detections)


@pytest.mark.parametrize("number", [0, 4])
def test_a_manifest_that_counts_other_images_than_its_shard_has_is_damaged(run: StoredLabels, number: int) -> None:
    (shard,) = run.plan(images_table("a", "b", "c"), 3)
    _label(run, shard)
    name = f"{run.root}/shards/{shard.name}.json"
    manifest = json.loads(run.store.folder.read(name))
    manifest["images"] = {"ok": number, "empty": 0, "unreadable": 0}
    run.store.folder.replace(name, json.dumps(manifest).encode())
    with pytest.raises(StoreError, match=rf"0000-00000.json: damaged: counts {number} images, where the plan has 3"):
        run.pending([shard])
