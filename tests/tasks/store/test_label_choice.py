"""People who choose labels see which there are, and in what they differ from those at hand."""

import pytest
from click.testing import CliRunner

from flows.cli.main import main
from refseg_core.errors import StoreError
from tasks.store.label_choice import other_labels
from tasks.store.label_store import open_labels
from tests.support.label_stores import LabelStore


@pytest.fixture
def labels() -> LabelStore:
    labels = LabelStore()
    labels.night("a")
    return labels


def test_labels_of_which_there_are_no_others_have_none(labels: LabelStore) -> None:
    assert other_labels(labels.store, labels.run.key) == []


def test_other_labels_are_named_with_what_differs(labels: LabelStore) -> None:
    other = LabelStore(labels.store, settings={"points_per_side": 16})
    other.night("a")
    (found,) = other_labels(labels.store, labels.run.key)
    assert found.startswith(f"{other.run.key} (begun 2")
    assert "points_per_side 16 instead of 8" in found
    (back,) = other_labels(labels.store, other.run.key)
    assert "points_per_side 8 instead of 16" in back


def test_nested_settings_are_named_by_their_path_and_long_ones_that_look_alike_without_values() -> None:
    store = LabelStore().store
    parts = {**{f"part_{number}": True for number in range(30)}, "z": {"deep": 1}}
    first = LabelStore(store, settings={"parts": parts, "names": ["x" * 300, "a"]})
    second = LabelStore(store, settings={"parts": parts | {"z": {"deep": 2}}, "names": ["x" * 300, "a", *"bcdefgh"]})
    long = LabelStore(store, settings={"parts": parts, "names": [*["x"] * 9, "a"]})
    longer = LabelStore(store, settings={"parts": parts, "names": [*["x"] * 9, "b"]})
    for labels in (first, second, long, longer):
        labels.night("a")
    found = {line[:16]: line for line in other_labels(store, first.run.key)}
    assert "parts.z.deep 2 instead of 1" in found[second.run.key[:16]]
    assert "part_0" not in found[second.run.key[:16]]
    found = {line[:16]: line for line in other_labels(store, long.run.key)}
    assert "; another names)" in found[longer.run.key[:16]]


def test_labels_of_other_prototypes_are_said_to_be(labels: LabelStore) -> None:
    other = LabelStore(labels.store, recipe_version=2)
    other.night("a")
    (found,) = other_labels(labels.store, labels.run.key)
    assert "other prototypes" in found
    assert "version 2 of the computation instead of 1" in found


def test_labels_that_do_not_exist_have_no_others(labels: LabelStore) -> None:
    with pytest.raises(StoreError, match="has no labels 'unknown'"):
        other_labels(labels.store, "unknown")


def test_the_beginning_of_a_key_is_enough_where_no_other_begins_so(labels: LabelStore) -> None:
    LabelStore(labels.store, recipe_version=2).night("a")
    key = labels.run.key
    for given in (key, key[:7], f"labels/{key[:7]}", f"labels/{key}/"):
        assert open_labels(labels.store, given).key == key
    labels.store.folder.create(f"labels/{key[:8]}{'0' * 8}/leftover", b"")
    with pytest.raises(StoreError, match=rf"'{key[:7]}' begins several of its labels: .*{key}.* Give more"):
        open_labels(labels.store, key[:7])
    with pytest.raises(StoreError, match="has no labels 'fedcba'"):
        open_labels(labels.store, "fedcba")


def test_commands_that_take_the_newest_labels_name_the_others(
    labels: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LabelStore(labels.store, settings={"points_per_side": 16})
    other.night("a")
    keys = {labels.run.key, other.run.key}
    monkeypatch.setattr("tasks.outputs.show_labels.show_labels", lambda *_, **__: 0)
    said = CliRunner().invoke(main, ["show", labels.store.uri, "--out", "memory://pictures"]).stderr
    assert all(key in said for key in keys)
    assert "--labels KEY takes others:" in said
    monkeypatch.setattr("tasks.store.label_store.StoredLabels.purpose", lambda _: "pilot")
    alone = LabelStore()
    alone.night("a")
    said = CliRunner().invoke(main, ["show", alone.store.uri, "--out", "memory://pictures"]).stderr
    assert "the newest of a pilot, since there are none of a run." in said
    assert "--labels KEY" not in said
