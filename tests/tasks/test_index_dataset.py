"""Datasets are indexed: from annotations or a listing, once for the same content, with no secret kept."""

import json
import os
from pathlib import Path

import pytest

from refseg_core.errors import DatasetError, StoreError
from refseg_core.tables import Annotations, Categories, FederatedLabels, Images
from tasks.datasets.indexed import load_dataset
from tasks.index_dataset import index_dataset
from tasks.specs import DatasetSource
from tests.support.projects.project import read_coco, write_coco
from tests.support.projects.steps import Steps, make_federated

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_an_annotation_file_becomes_images_annotations_and_categories(steps: Steps) -> None:
    dataset = steps.dataset()
    assert dataset.num_rows == {"images": 2, "annotations": 4, "categories": 2}
    assert steps.store.load(dataset, Images).file_name.tolist() == ["r0.png", "r1.png"]
    assert steps.store.load(dataset, Categories).name.tolist() == ["box", "bar"]
    assert steps.store.load(dataset, Annotations).category_id.tolist() == [3, 8, 3, 8]


def test_a_folder_becomes_images_with_sizes_and_versions(steps: Steps) -> None:
    dataset = steps.dataset(DatasetSource(images=steps.config.targets.images))
    images = steps.store.load(dataset, Images)
    assert images.image_id.tolist() == images.file_name.tolist() == [f"t{number}.png" for number in range(5)]
    folder = Path(steps.config.targets.images)
    assert images.size.tolist() == [(folder / name).stat().st_size for name in images.file_name]
    assert all(images.version)
    assert dataset.num_rows == {"images": 5, "annotations": 0, "categories": 0}


@pytest.mark.parametrize("annotations", ["targets.json", None])
def test_a_limit_takes_the_first_images_with_their_annotations(steps: Steps, annotations: str | None) -> None:
    given = None if annotations is None else str(steps.project.folder / annotations)
    source = DatasetSource(images=steps.config.targets.images, annotations=given)
    whole, first = steps.dataset(source), steps.dataset(source.model_copy(update={"limit": 2}))
    assert steps.store.load(first, Images).equals(steps.store.load(whole, Images)[:2])
    assert first.num_rows["annotations"] == (0 if given is None else 4)
    assert first.key != whole.key
    assert steps.dataset(source.model_copy(update={"limit": 9})).num_rows == whole.num_rows


def test_files_that_are_no_images_are_not_listed(steps: Steps) -> None:
    folder = Path(steps.config.targets.images)
    (folder / "notes.txt").write_text("no image")
    (folder / "deep").mkdir()
    (folder / "t0.png").rename(folder / "deep" / "T0.PNG")
    dataset = steps.dataset(DatasetSource(images=str(folder)))
    names = steps.store.load(dataset, Images).file_name.tolist()
    assert names == ["deep/T0.PNG", "t1.png", "t2.png", "t3.png", "t4.png"]


def test_images_whose_names_cannot_be_used_are_left_out_and_told(steps: Steps) -> None:
    folder = Path(steps.config.targets.images)
    whole = steps.dataset(DatasetSource(images=str(folder)))
    picture = (folder / "t0.png").read_bytes()
    for name in (b"bad\xff.png", b"a\tb.png", b"a\nb.png", b"c\\d.png"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(picture)
    dataset = steps.dataset(DatasetSource(images=str(folder)))
    assert steps.store.load(dataset, Images).equals(steps.store.load(whole, Images))
    oddities = load_dataset(steps.store, dataset).oddities
    assert [str(oddity) for oddity in oddities] == ["4 files whose names cannot be used: left out; rename them"]
    assert oddities[0].examples == (
        "a\\tb.png has control characters",
        "a\\nb.png has control characters",
        "bad\\udcff.png is not valid Unicode",
    )
    for file in folder.glob("t*.png"):
        file.unlink()
    with pytest.raises(DatasetError, match=r"no images.* 4 files whose names cannot be used.*a\\tb.png"):
        steps.dataset(DatasetSource(images=str(folder)))


def test_the_same_content_is_the_same_dataset_and_another_is_another(steps: Steps) -> None:
    listed = DatasetSource(images=steps.config.targets.images)
    first = steps.dataset(), steps.dataset(listed)
    assert (steps.dataset(), steps.dataset(listed)) == first
    steps.project.add_target("t9.png", 9)
    write_coco(steps.project.folder / "references.json", ["r0.png"], with_masks=True)
    assert steps.dataset() != first[0]
    assert steps.dataset(listed) != first[1]


def test_what_lvis_says_of_categories_is_a_fourth_table_and_others_keep_their_keys(steps: Steps) -> None:
    plain = steps.dataset()
    assert steps.manifest(plain)["version"] == 1
    make_federated(steps.project.folder / "references.json")
    dataset = steps.dataset()
    assert steps.manifest(dataset)["version"] == 2
    # The negatives are annotated, which is odd.
    assert dataset.num_rows == plain.num_rows | {"federated_labels": 4, "dataset_oddities": 1}
    assert steps.store.load(dataset, FederatedLabels).kind.tolist() == ["negative", "not_exhaustive"] * 2


def test_masks_of_another_file_make_a_dataset_of_their_own_by_their_content_and_how_they_are_found(
    steps: Steps,
) -> None:
    boxes = DatasetSource(images=steps.config.references.images, annotations=str(steps.project.folder / "boxes.json"))
    full = steps.project.folder / "references.json"
    source = boxes.model_copy(update={"masks_from": str(full)})
    borrowed = steps.dataset(source)
    annotations = steps.store.load(borrowed, Annotations)
    assert annotations.equals(steps.store.load(steps.dataset(), Annotations))
    manifest = steps.manifest(borrowed)
    assert manifest["settings"]["masks_from"] == str(full)
    assert set(manifest["inputs"]) == {"content", "masks"}
    assert set(steps.manifest(steps.dataset(boxes))["settings"]) == {"images", "annotations", "image_ids"}

    content = read_coco(full)
    content["annotations"].insert(0, content["annotations"][0] | {"id": 99})
    full.write_text(json.dumps(content))
    original = index_dataset.fn(steps.store, source, conventions="original")
    assert len({steps.dataset(boxes).key, borrowed.key, steps.dataset(source).key, original.key}) == 4
    assert steps.store.load(original, Annotations).equals(annotations), "here an id is a position"


def test_chosen_images_are_a_dataset_of_their_own(steps: Steps) -> None:
    source = steps.config.targets.source.model_copy(update={"image_ids": ("4", "2")})
    dataset = steps.dataset(source)
    assert steps.store.load(dataset, Images).image_id.tolist() == ["2", "4"]
    assert dataset != steps.dataset(steps.config.targets.source)
    with pytest.raises(DatasetError, match="77"):
        steps.dataset(source.model_copy(update={"image_ids": ("2", "77")}))


def test_a_folder_without_images_is_an_error_that_says_what_is_expected(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: no images.*\.jpg"):
        steps.dataset(DatasetSource(images=str(tmp_path / "empty")))


@pytest.mark.parametrize("place", ["images", "annotations"])
def test_what_is_absent_is_named(place: str, steps: Steps) -> None:
    source = DatasetSource(images=steps.config.targets.images).model_copy(update={place: "/nowhere/at/all"})
    with pytest.raises(StoreError, match="/nowhere/at/all: not found"):
        steps.dataset(source)


def test_a_manifest_of_a_dataset_shows_where_it_came_from_but_no_secret(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (steps.project.folder / "references.json").read_bytes()
    for module in ("tasks.datasets.annotation_files", "tasks.index_dataset"):
        monkeypatch.setattr(f"{module}.read_uri", lambda _: data)
    source = DatasetSource(
        images="memory://user:hunter2@host/images",
        annotations="https://user:hunter2@host/refs.json?X-Amz-Signature=hunter2",
    )
    manifest = steps.manifest(steps.dataset(source))
    assert manifest["settings"]["images"] == "memory://host/images"
    assert manifest["settings"]["annotations"] == "https://host/refs.json"
    for file in steps.store.folder.list_files():
        assert b"hunter2" not in steps.store.folder.read(file.name)
