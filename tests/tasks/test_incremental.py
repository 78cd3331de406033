"""Night after night: only what is new or changed is labeled, and what is gone is known and kept."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.tables import GoneLabels, Images
from tasks.outputs.exports.labels import export_labels
from tasks.plan_shards import find_gone_labels, planned_under_other_ids
from tasks.storage.folder import Folder
from tests.support.label_stores import LabelStore
from tests.support.samples import images_table


@pytest.fixture
def labels() -> LabelStore:
    return LabelStore()


def _gone(labels: LabelStore) -> list[tuple[str, str, str]]:
    table = labels.store.load(labels.gone(), GoneLabels)
    return list(zip(table.image_id, table.version, table.reason, strict=True))


def test_a_second_night_labels_only_what_is_new(labels: LabelStore) -> None:
    assert labels.night("a", "b", "c") == ["a", "b", "c"]
    assert labels.night("a", "b", "c") == []
    assert labels.night("a", "b", "c", "d") == ["d"]


def test_images_that_come_back_under_other_ids_are_known_unless_they_changed(labels: LabelStore) -> None:
    labels.night("a", "b", "c", "d")
    now = images_table("a", "b", "c", "new", c="2")
    renamed = now.replace(
        image_id=np.array(["1", "2", "3", "4"], dtype=object),
        version=np.array(["1", "1 upright", "2", "1"], dtype=object),
    )
    labels.run.plan(renamed, 2)
    assert planned_under_other_ids(labels.run, renamed, 1) == ["a", "b"]
    more = Images.concatenate([renamed, images_table("5")])
    labels.run.plan(more, 2)
    assert planned_under_other_ids(labels.run, more, 2) == []


def test_an_image_that_changed_is_labeled_again_and_its_old_labels_are_known_as_gone(labels: LabelStore) -> None:
    labels.night("a", "b", "c")
    assert labels.night("a", "b", "c", b="2") == ["b"]
    assert _gone(labels) == [("b", "1", "changed")]
    assert sorted(labels.labels()[1].image_id) == ["a", "b", "c"]


def test_an_image_that_changed_back_is_not_labeled_a_third_time(labels: LabelStore) -> None:
    labels.night("a")
    labels.night("a", a="2")
    assert labels.night("a") == []
    assert _gone(labels) == [("a", "2", "changed")]


def test_labels_of_removed_images_are_kept_known_as_gone_and_not_current(labels: LabelStore) -> None:
    labels.night("a", "b", "c")
    before = labels.names()
    assert labels.night("b") == []
    assert labels.names() >= before
    assert _gone(labels) == [("a", "1", "removed"), ("c", "1", "removed")]
    assert labels.labels()[1].image_id.tolist() == ["b"]


def test_an_image_that_comes_back_has_its_labels_again(labels: LabelStore) -> None:
    labels.night("a", "b")
    labels.night("b")
    assert labels.night("a", "b") == []
    assert _gone(labels) == []
    assert sorted(labels.labels()[1].image_id) == ["a", "b"]


def test_gone_labels_name_the_shard_that_holds_them(labels: LabelStore) -> None:
    labels.night("a", "b", "c")
    labels.night("a")
    table = labels.store.load(labels.gone(), GoneLabels)
    assert table.shard.tolist() == ["0000-00000", "0000-00001"]


def test_nothing_gone_is_an_empty_table(labels: LabelStore) -> None:
    labels.night("a")
    assert labels.gone().num_rows == {"gone_labels": 0}


_NIGHTS = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("12"), min_size=1), min_size=1, max_size=4
)


@pytest.mark.slow
@given(_NIGHTS, st.integers(1, 3))
@settings(max_examples=25)
def test_after_any_nights_every_image_of_the_last_is_labeled_once_and_the_rest_is_gone(
    nights: list[dict[str, str]], images_per_shard: int
) -> None:
    labels = LabelStore(images_per_shard=images_per_shard)
    ever: set[tuple[str, str]] = set()
    for versions in nights:
        new = set(versions.items()) - ever
        assert sorted(labels.night(*versions, **versions)) == sorted(name for name, _ in new)
        ever |= new
    detections, labeled = labels.labels()
    assert sorted(zip(labeled.image_id, labeled.version, strict=True)) == sorted(nights[-1].items())
    assert sorted(detections.image_id) == sorted(nights[-1])
    assert {(name, version) for name, version, _ in _gone(labels)} == ever - set(nights[-1].items())


def test_exports_hold_each_image_once_and_none_that_is_gone(labels: LabelStore, tmp_path: Path) -> None:
    labels.night("a", "b", "c")
    labels.night("b", "c", "d", c="2")
    out = Folder(str(tmp_path / "exports"))
    for form in ("coco", "coco-results", "parquet"):
        export_labels(labels.run, out.join(form), form=form)
    dataset = json.loads(out.read("coco"))
    assert sorted(image["file_name"] for image in dataset["images"]) == ["b", "c", "d"]
    assert len(dataset["annotations"]) == len(json.loads(out.read("coco-results"))) == 3
    table = pd.read_parquet(io.BytesIO(out.read("parquet")))
    assert sorted(table.image_id) == ["b", "c", "d"]


def test_finding_gone_labels_twice_makes_one_table(labels: LabelStore) -> None:
    labels.night("a", "b")
    labels.night("a")
    first = labels.gone()
    assert labels.gone() == first
    other = labels.dataset(images_table("b"))
    assert find_gone_labels.fn(labels.store, dataset=other, labels_key=labels.run.key) != first
