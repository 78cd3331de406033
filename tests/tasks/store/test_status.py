"""The status of a store is read from its manifests: what is done, missing and failed, and who made it of what."""

import json
import re
from dataclasses import asdict, replace
from importlib.metadata import version

import pytest

from flows.reports.store_report import report_status
from flows.terminal import results
from refseg_core.settings.labeling_methods import LABELING_METHODS
from tasks.store.status import FailedImage, LabelsStatus, store_status
from tests.support.label_stores import LabelStore


@pytest.fixture
def labels() -> LabelStore:
    return LabelStore()


def _status(labels: LabelStore) -> LabelsStatus:
    (status,) = store_status(labels.store).labels
    return status


def _printed(labels: LabelStore, *, all_failed: bool = False, full: bool = False) -> str:
    with results.capture() as captured:
        report_status(labels.store.uri, store_status(labels.store), all_failed=all_failed, full=full)
    return captured.get()


def test_an_empty_store_holds_nothing(labels: LabelStore) -> None:
    assert store_status(labels.store).artifacts == store_status(labels.store).labels == ()
    assert "holds nothing of refseg" in _printed(labels)


def test_artifacts_come_in_the_order_of_the_steps_with_rows_sizes_and_makers(labels: LabelStore) -> None:
    labels.night("a", "b")
    artifacts = store_status(labels.store).artifacts
    assert [artifact.step for artifact in artifacts] == [
        "index_dataset",
        "index_dataset",
        "sample_references",
        "fill_memory_bank",
        "postprocess_memory_bank",
    ]
    (dataset,) = (one for one in artifacts if one.num_rows == {"images": 2})
    bank, prototypes = artifacts[-2:]
    assert dataset.size == len(labels.store.folder.read(f"{dataset.name}/images.parquet"))
    assert dataset.refseg_version == version("refseg")
    assert "@" in dataset.created_by
    assert prototypes.inputs == {"memory_bank": bank.name}


def test_what_is_labeled_and_what_is_missing_is_counted(labels: LabelStore) -> None:
    shards = labels.begin_night("a", "b", "c", "d", "e")
    status = _status(labels)
    assert (status.num_images, status.num_labeled, status.num_shards) == (5, 0, 3)
    assert status.missing_shards == ("0000-00000", "0000-00001", "0000-00002")
    assert not status.is_complete
    assert status.last_commit is None
    labels.commit(shards[1])
    status = _status(labels)
    assert status.missing_shards == ("0000-00000", "0000-00002")
    assert (status.num_labeled, status.num_detections) == (2, 2)
    assert status.last_commit is not None
    for shard in (shards[0], shards[2]):
        labels.commit(shard)
    assert _status(labels).is_complete
    assert _status(labels).images == {"ok": 5, "empty": 0, "unreadable": 0}


def test_failed_images_are_listed_with_their_reasons(labels: LabelStore) -> None:
    labels.night("a", "b", "c", unreadable=["b"])
    status = _status(labels)
    assert status.is_complete
    assert status.images == {"ok": 2, "empty": 0, "unreadable": 1}
    assert status.failed == (FailedImage("b", "not an image"),)
    assert "failed   b: not an image" in _printed(labels)


def test_guided_labels_tell_how_much_was_prompted(labels: LabelStore) -> None:
    labels.night("a", "b", "c", "d", unreadable=["b"])
    assert _status(labels).prompted == "25.0% of the points prompted, 0 of 3 images skipped"
    labels.night("c", "d", "e", skipped=["e"])
    assert _status(labels).prompted == "16.7% of the points prompted, 1 of 3 images skipped"
    assert "guided   16.7% of the points prompted, 1 of 3 images skipped" in _printed(labels)


def test_guided_labels_of_before_manifests_counted_prompts_tell_it_too(labels: LabelStore) -> None:
    labels.night("a", "b", "c", "d", skipped=["a"])
    for shard in labels.run.store.listed(f"{labels.run.root}/shards", ".json"):
        name = f"{labels.run.root}/shards/{shard}"
        manifest = json.loads(labels.store.folder.read(name))
        del manifest["prompts"]
        labels.store.folder.replace(name, json.dumps(manifest).encode())
    assert _status(labels).prompted == "18.8% of the points prompted, 1 of 4 images skipped"


def test_paths_that_prompt_everywhere_tell_nothing_of_prompts() -> None:
    labels = LabelStore(is_guided=False)
    labels.night("a")
    assert _status(labels).prompted is None
    assert "guided" not in _printed(labels)


def test_only_images_that_are_asked_for_now_count(labels: LabelStore) -> None:
    labels.night("a", "b", "c", "d", unreadable=["a"])
    labels.night("b", "c", c="2")
    status = _status(labels)
    assert status.num_images == status.num_labeled == 2
    assert status.num_detections == 2
    assert status.failed == ()
    assert status.dataset == labels.dataset(labels.run.images()).name


def test_labels_of_every_recipe_are_told(labels: LabelStore) -> None:
    labels.night("a")
    other = LabelStore(labels.store, recipe_version=2)
    other.begin_night("a")
    status = store_status(labels.store).labels
    assert {(one.key, one.is_complete) for one in status} == {(labels.run.key, True), (other.run.key, False)}


def test_people_see_what_is_missing_and_only_the_first_failures(labels: LabelStore) -> None:
    names = [f"image {number}" for number in range(40)]
    labels.night(*names, unreadable=names[:30])
    labels.begin_night(*names, "new")
    printed = _printed(labels)
    assert f"labels/{labels.run.key[:7]}: incomplete" in printed
    assert "images   40 of 41" in printed
    assert "missing  0001-00000" in printed
    assert printed.count("not an image") == 10
    assert "and 20 more; --failed lists all" in printed
    assert _printed(labels, all_failed=True).count("not an image") == 30


def test_keys_and_hashes_are_as_short_as_tells_them_apart_unless_all_of_them_is_wanted(labels: LabelStore) -> None:
    labels.night("a")
    key, dataset = labels.run.key, str(_status(labels).dataset)
    short, full = _printed(labels), _printed(labels, full=True)
    assert f"labels/{key[:7]}: complete" in short
    assert f"in {dataset[: len('dataset/') + 7]}: 1 ok" in short
    assert not re.search("[0-9a-f]{13}", short.replace(labels.store.uri, ""))
    assert f"labels/{key}: complete" in full
    assert f"in {dataset}: 1 ok" in full


def test_what_was_made_from_content_is_shown_by_its_hash(labels: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    labels.night("a")
    monkeypatch.setattr(results, "width", 60)  # too narrow for a table, which would break lines
    status = store_status(labels.store)
    made = replace(status.artifacts[0], inputs={"images": "ab" * 32, "memory_bank": f"memory_bank/{'cd' * 8}"})
    for full, said in (
        (False, "images abababababab, memory_bank/cdcdcdc"),
        (True, f"images {'ab' * 32}, memory_bank/{'cd' * 8}"),
    ):
        with results.capture() as captured:
            report_status("s3://bucket/store", replace(status, artifacts=(made,)), all_failed=False, full=full)
        assert said in captured.get()


def test_keys_that_begin_alike_are_shown_with_the_character_that_differs(labels: LabelStore) -> None:
    labels.night("a")
    status = store_status(labels.store)
    alike = [replace(status.labels[0], key=f"0123456789{end}00000") for end in "ab"]
    with results.capture() as captured:
        report_status(labels.store.uri, replace(status, labels=tuple(alike)), all_failed=False)
    assert "labels/0123456789a: " in captured.get() and "labels/0123456789b: " in captured.get()


def test_method_and_path_are_told_of_older_labels_and_of_newer_ones() -> None:
    older, parts = LabelStore(is_guided=False), LABELING_METHODS["accurate"].parts
    older.night("a")
    assert "method   published on path exact" in _printed(older)
    for made, expected in ((parts, "accurate"), (replace(parts, max_second_looks=7), "parts of its own")):
        newer = LabelStore(settings={"path": "guided", "parts": asdict(made)})
        newer.night("a")
        assert f"method   {expected} on path guided" in _printed(newer)


def test_a_shard_whose_first_images_are_labeled_is_partly_missing() -> None:
    labels = LabelStore(images_per_shard=4)
    rest = labels.stop_night("a", "b", "c", "d", after=3)
    status = _status(labels)
    assert (status.num_images, status.num_labeled, status.num_shards) == (4, 3, 2)
    assert status.missing_shards == (rest.name,) == ("0000-00000_00003",)
    assert status.prompted == "25.0% of the points prompted, 0 of 3 images skipped"
    labels.begin_night("b")
    assert _status(labels).is_complete


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("width", [60, 100, 160])
def test_keys_and_times_are_whole_however_narrow_the_terminal(
    labels: LabelStore, width: int, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels.night("a", "b")
    monkeypatch.setattr(results, "width", width)
    printed = _printed(labels, full=full)
    for artifact in store_status(labels.store).artifacts:
        key = artifact.name.rpartition("/")[2][: None if full else 7]
        row = next(line for line in printed.splitlines() if re.search(rf"\b{key}\b", line))
        assert artifact.created in row
