"""Nothing is removed that anybody needs, and nothing at all that was not listed first."""

import pytest

from flows.cli.main import main
from refseg_core.errors import StoreError
from tasks.store.garbage import Garbage, find_garbage, remove
from tasks.store.status import store_status
from tasks.store.store import Recipe
from tasks.store.verify import verify_store
from tests.support.label_stores import LabelStore
from tests.support.samples import images_table

_LEFTOVERS = (
    "detections/0000-00009.parquet",
    "plans/parts/0123456789abcdef.parquet",
    "detections/.0000-00000.parquet.ff",
)


@pytest.fixture
def labels() -> LabelStore:
    labels = LabelStore()
    labels.night("a", "b", "c", "d", "e")
    return labels


def _names(garbage: list[Garbage]) -> set[str]:
    return {one.name for one in garbage}


def _labels_of_last_night(labels: LabelStore) -> list[str]:
    return sorted(labels.labels()[1].image_id)


def test_a_store_in_use_has_no_garbage(labels: LabelStore) -> None:
    labels.gone()
    labels.store.folder.create("pictures/a.jpg", b"of somebody else")
    assert find_garbage(labels.store, min_age_hours=0, gone=True) == []


def test_what_killed_processes_left_is_garbage_once_it_is_old(labels: LabelStore) -> None:
    left = {f"{labels.run.root}/{name}" for name in _LEFTOVERS} | {"dataset/0123/images.parquet"}
    for name in left:
        labels.store.folder.create(name, b"left")
    assert find_garbage(labels.store) == []
    garbage = find_garbage(labels.store, min_age_hours=0)
    assert _names(garbage) == left
    assert {(one.why, one.size) for one in garbage} == {("leftover", 4)}


def test_what_was_being_written_anywhere_is_garbage_once_it_is_old_and_nothing_else_that_is_hidden(
    labels: LabelStore,
) -> None:
    left = {f"reference_edits/0123/.0000.json.{'a' * 32}", f".notes.{'0f' * 16}"}
    for name in (*left, "reference_edits/0123/0000.json", ".notes", f".notes.{'z' * 32}", "reviews/ab/.hidden.ff"):
        labels.store.folder.create(name, b"left")
    assert find_garbage(labels.store) == []
    garbage = find_garbage(labels.store, min_age_hours=0)
    assert _names(garbage) == left
    remove(labels.store, garbage)
    assert find_garbage(labels.store, min_age_hours=0) == []


def test_labels_are_dropped_by_the_beginning_of_their_key(labels: LabelStore) -> None:
    other = LabelStore(labels.store, recipe_version=2)
    other.night("a")
    whole = find_garbage(labels.store, labels=[labels.run.key])
    assert whole
    assert find_garbage(labels.store, labels=[labels.run.key[:7]]) == whole


def test_listings_of_earlier_nights_are_unused_and_todays_is_not(labels: LabelStore) -> None:
    yesterday = labels.run.requested()
    gone_yesterday = labels.gone()
    labels.night("a", "b", "c", "d", "e", "f")
    labels.gone()
    assert yesterday is not None
    garbage = find_garbage(labels.store, min_age_hours=0)
    assert {name.rpartition("/")[0] for name in _names(garbage)} == {yesterday.name, gone_yesterday.name}
    assert {one.why for one in garbage} == {"unused"}
    remove(labels.store, garbage)
    assert verify_store(labels.store).problems == []
    assert _labels_of_last_night(labels) == ["a", "b", "c", "d", "e", "f"]


def test_what_a_pilot_asked_for_stays_although_a_run_asked_for_more(labels: LabelStore) -> None:
    labels.run.request(labels.dataset(images_table("a")), "pilot")
    labels.night("a", "b", "c", "d", "e", "f")
    labels.run.request(labels.dataset(images_table("b")), "study")
    labels.night("a", "b", "c", "d", "e", "f")
    asked_for = {labels.dataset(images_table(*names)).name for names in ("a", "b", "abcdef")}
    garbage = find_garbage(labels.store, min_age_hours=0)
    assert not asked_for & {name.rpartition("/")[0] for name in _names(garbage)}
    assert garbage


def test_unused_artifacts_that_are_young_stay_since_a_run_may_be_making_them(labels: LabelStore) -> None:
    labels.dataset(images_table("new"))
    assert find_garbage(labels.store) == []


def test_shards_of_gone_images_are_garbage_only_when_asked_for_and_only_as_a_whole(labels: LabelStore) -> None:
    labels.night("b", "e")
    assert find_garbage(labels.store) == []
    garbage = find_garbage(labels.store, gone=True)
    assert {one.why for one in garbage} == {"gone"}
    assert len(garbage) == 4  # a manifest and three parts
    assert all("0000-00001" in one.name for one in garbage)
    remove(labels.store, garbage)
    assert verify_store(labels.store).problems == []
    assert _labels_of_last_night(labels) == ["b", "e"]
    assert labels.night("b", "c", "d", "e") == ["c", "d"]  # what comes back is labeled again


def test_whole_labels_are_garbage_only_by_their_key_with_what_only_they_were_made_from(labels: LabelStore) -> None:
    other = LabelStore(labels.store, recipe_version=2)
    other.night("a", "b")
    assert find_garbage(labels.store, min_age_hours=0) == []
    garbage = find_garbage(labels.store, min_age_hours=0, labels=[other.run.key])
    other_root, other_prototypes = other.run.root, other.prototypes().name
    remove(labels.store, garbage)
    assert not [name for name in labels.names() if name.startswith((other_root, other_prototypes))]
    assert [status.key for status in store_status(labels.store).labels] == [labels.run.key]
    assert verify_store(labels.store).problems == []
    assert _labels_of_last_night(labels) == ["a", "b", "c", "d", "e"]


def test_a_key_that_the_store_does_not_have_is_an_error(labels: LabelStore) -> None:
    with pytest.raises(StoreError, match="has no labels 'unknown'"):
        find_garbage(labels.store, labels=["unknown"])


def test_what_metrics_were_made_from_is_needed(labels: LabelStore) -> None:
    truth = labels.dataset(images_table("truth"))
    inputs = {"dataset": truth.name, "labels": labels.run.root, "prototypes": labels.prototypes().name}
    labels.store.make(Recipe("evaluate", "metrics", version=1, inputs=inputs), lambda: [])
    assert find_garbage(labels.store, min_age_hours=0) == []


def test_manifests_go_before_the_parts_they_name_and_whole_labels_from_shards_to_requests(
    labels: LabelStore,
) -> None:
    labels.night("f")
    removed = [one.name for one in find_garbage(labels.store, min_age_hours=0, labels=[labels.run.key])]
    of_labels = [name.removeprefix(f"{labels.run.root}/") for name in removed if name.startswith(labels.run.root)]
    folders = ["shards", "detections", "labeled_images", "category_similarities"]
    folders += ["plans", "plans/parts", "", "requests"]
    assert list(dict.fromkeys(name.rpartition("/")[0] for name in of_labels)) == folders
    assert of_labels.index("plans/0001.json") < of_labels.index("plans/0000.json")
    of_others = [name.rpartition("/") for name in removed if not name.startswith(labels.run.root)]
    manifests = {folder: place for place, (folder, _, name) in enumerate(of_others) if name == "manifest.json"}
    assert all(manifests[folder] <= place for place, (folder, _, _) in enumerate(of_others))


def test_a_removal_that_was_stopped_leaves_a_whole_store_and_is_finished_by_the_next(labels: LabelStore) -> None:
    labels.night("e")
    garbage = find_garbage(labels.store, gone=True)
    for stop in range(len(garbage)):
        remove(labels.store, garbage[:stop])
        assert verify_store(labels.store).problems == []
    remove(labels.store, garbage)
    remove(labels.store, garbage)
    assert find_garbage(labels.store, min_age_hours=0, gone=True) == find_garbage(labels.store, min_age_hours=0)


def test_the_command_removes_nothing_without_yes(labels: LabelStore, capsys: pytest.CaptureFixture[str]) -> None:
    labels.store.folder.create("dataset/0123/images.parquet", b"left")
    before = labels.names()
    arguments = ["gc", labels.store.uri, "--min-age", "0"]
    main(arguments, standalone_mode=False)
    assert labels.names() == before
    listed = capsys.readouterr().out
    assert "dataset/0123/images.parquet" in listed
    assert "Nothing was removed" in listed
    main([*arguments, "--yes"], standalone_mode=False)
    assert before - labels.names() == {"dataset/0123/images.parquet"}
    assert "Removed 1 object" in capsys.readouterr().out


@pytest.mark.parametrize("is_complete", [True, False])
def test_segments_of_a_shard_are_needed_as_long_as_one_of_its_images_is(is_complete: bool) -> None:
    labels = LabelStore(images_per_shard=3)
    labels.stop_night("a", "b", "c", after=1)
    if is_complete:
        labels.night("a", "b", "c")
    labels.begin_night("c")
    assert find_garbage(labels.store, min_age_hours=0, gone=True) == find_garbage(labels.store, min_age_hours=0)
    assert not [one for one in find_garbage(labels.store, min_age_hours=0) if one.name.startswith("labels/")]


def test_a_gone_shard_goes_from_its_last_segment_to_its_first_however_often_that_is_stopped() -> None:
    """The first one tells where the next begins, which would otherwise seem to lie nowhere."""
    labels = LabelStore(images_per_shard=3)
    for _ in range(2):
        labels.stop_night("a", "b", "c", after=1)
    labels.night("a", "b", "c")
    labels.begin_night("d")
    garbage = find_garbage(labels.store, gone=True)
    assert len([one for one in garbage if one.why == "gone"]) == 3 * 4
    for stop in range(len(garbage)):
        remove(labels.store, garbage[:stop])
        assert verify_store(labels.store).problems == []
    remove(labels.store, garbage)
    assert labels.night("a", "b", "c") == ["a", "b", "c"]  # in the shard that they were planned in
    assert _labels_of_last_night(labels) == ["a", "b", "c"]
