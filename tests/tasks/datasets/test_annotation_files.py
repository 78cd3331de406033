"""Every format gives the tables that COCO json of the same instances gives; recognized by what lies there."""

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError, RefsegError
from refseg_core.tables import Annotations, Categories, Images
from tasks.datasets.annotation_files import read_annotations
from tasks.datasets.indexed import is_federated
from tasks.index_dataset import index_dataset
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.store.store import Store
from tests.support.annotation_files import (
    CATEGORIES,
    HEIGHT,
    IMAGES,
    INSTANCES,
    WIDTH,
    WRITERS,
    Instance,
    Kind,
    coco_document,
    write_all_images,
    write_labelme,
    write_maps,
    write_masks,
    write_yolo,
)
from tests.support.samples import table_rows

pytest_plugins = ["tests.support.servers.stores"]

KINDS: dict[str, tuple[Kind, ...]] = {
    "voc": ("boxes", "polygons"),
    "yolo": ("boxes", "polygons"),
    "labelme": ("boxes", "polygons", "masks"),
    "cvat": ("boxes", "polygons", "masks"),
    "masks": ("masks",),
}
CASES = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]


def source_of(folder: Path, format_name: str, **changes: object) -> DatasetSource:
    annotations = folder / "annotations"
    place = annotations / "labels" if format_name == "yolo" else annotations
    return DatasetSource.model_validate({"images": str(folder / "images"), "annotations": str(place)} | changes)


def written(folder: Path, format_name: str, kind: Kind) -> DatasetSource:
    write_all_images(folder / "images")
    WRITERS[format_name](folder / "annotations", INSTANCES, kind)
    return source_of(folder, format_name)


def read(source: DatasetSource) -> Dataset:
    return read_annotations(source, None).dataset


def assert_same(dataset: Dataset, expected: Dataset) -> None:
    assert table_rows(dataset.images) == table_rows(expected.images)
    assert table_rows(dataset.categories) == table_rows(expected.categories)
    without = ["annotation_id"]
    assert table_rows(dataset.annotations, without=without) == table_rows(expected.annotations, without=without)
    assert len(set(dataset.annotations.annotation_id)) == len(dataset.annotations)


@pytest.mark.parametrize(("format_name", "kind"), CASES)
def test_every_format_gives_the_tables_of_the_same_coco_file(format_name: str, kind: Kind, tmp_path: Path) -> None:
    source = written(tmp_path, format_name, kind)
    read_from = read_annotations(source, None)
    assert read_from.kind == format_name
    is_sparse = format_name in ("yolo", "masks")  # where an image without instances has no file, nor a known size
    document = coco_document(
        INSTANCES,
        kind,
        first_id=0 if format_name == "yolo" else 1,
        known_sizes=[name for name in IMAGES if not is_sparse or any(one.image == name for one in INSTANCES)],
    )
    assert_same(read_from.dataset, parse_coco(document, source="x"))


corners = st.tuples(st.integers(0, 31), st.integers(0, 63), st.integers(32, HEIGHT), st.integers(64, WIDTH))
drawn_instances = st.lists(st.tuples(st.sampled_from(["a.png", "sub/b.png"]), st.sampled_from(CATEGORIES), corners))


@pytest.mark.slow
@pytest.mark.parametrize(("format_name", "kind"), CASES)
@given(drawn=drawn_instances)
@settings(max_examples=20)
def test_any_instances_come_back_as_from_coco(format_name: str, kind: Kind, drawn: list[Any]) -> None:
    instances = tuple(
        Instance(image, category, (left, top, right, top, right, bottom, left, bottom))
        for image, category, (top, left, bottom, right) in sorted(drawn)
    )
    with TemporaryDirectory() as name:
        write_all_images(Path(name) / "images")
        WRITERS[format_name](Path(name) / "annotations", instances, kind)
        source = source_of(Path(name), format_name, format=format_name)
        if format_name in ("yolo", "masks") and not instances:  # nothing is written
            return
        dataset = read(source)
    expected = parse_coco(coco_document(instances, kind), source="x")
    without = ["annotation_id", "category_id"]
    assert table_rows(dataset.annotations, without=without) == table_rows(expected.annotations, without=without)
    names = [dict(zip(one.categories.category_id, one.categories.name, strict=True)) for one in (dataset, expected)]
    read_ids, ids = dataset.annotations.category_id.tolist(), expected.annotations.category_id.tolist()
    assert [names[0][one] for one in read_ids] == [names[1][one] for one in ids]


def test_a_map_holds_one_instance_of_each_value(tmp_path: Path) -> None:
    write_all_images(tmp_path / "images")
    one_each = [one for one in INSTANCES if one is not INSTANCES[2]]
    write_maps(tmp_path / "annotations", one_each, "masks")
    dataset = read(source_of(tmp_path, "masks"))
    assert_same(dataset, parse_coco(coco_document(one_each, "masks"), source="x"))
    (tmp_path / "annotations" / "classes.txt").unlink()
    assert read(source_of(tmp_path, "masks")).categories.name.tolist() == ["1", "2"]


@pytest.mark.parametrize(("format_name", "kind"), CASES)
@pytest.mark.slow
def test_ids_and_keys_are_the_same_again_and_follow_the_content(format_name: str, kind: Kind, tmp_path: Path) -> None:
    source = written(tmp_path, format_name, kind)
    store = Store(str(tmp_path / "store"))
    first = index_dataset.fn(store, source)
    assert index_dataset.fn(store, source).key == first.key
    table = store.load(first, Annotations)
    assert all("#" in one for one in table.annotation_id)
    WRITERS[format_name](tmp_path / "annotations", INSTANCES[:-1], kind)
    for file in (tmp_path / "annotations").rglob("sub/b*"):
        if format_name == "masks" and "box" in file.parts:
            file.unlink()
    second = index_dataset.fn(store, source)
    assert second.key != first.key
    assert second.num_rows["annotations"] == len(INSTANCES) - 1


def test_the_recipe_of_a_coco_file_does_not_name_its_format(tmp_path: Path) -> None:
    write_all_images(tmp_path / "images")
    file = tmp_path / "annotations.json"
    file.write_bytes(coco_document(INSTANCES, "boxes"))
    keys = set()
    for format_name in ("auto", "coco"):
        source = DatasetSource(images=str(tmp_path / "images"), annotations=str(file), format=format_name)  # type: ignore[arg-type]
        dataset = index_dataset.fn(Store(str(tmp_path / "store")), source)
        keys.add(dataset.key)
        manifest = Store(str(tmp_path / "store")).manifest(dataset.name)
    assert manifest is not None
    assert set(manifest["settings"]) == {"images", "annotations", "image_ids"}
    assert set(manifest["inputs"]) == {"content"}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "lists", [{}, {"neg_category_ids": [], "not_exhaustive_category_ids": []}], ids=["coco", "lvis"]
)
def test_a_coco_file_that_the_store_holds_is_not_parsed_again(
    lists: dict[str, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all_images(tmp_path / "images")
    file = tmp_path / "annotations.json"
    document = json.loads(coco_document(INSTANCES, "boxes"))
    document["images"] = [image | lists for image in document["images"]]
    file.write_text(json.dumps(document))
    source = DatasetSource(images=str(tmp_path / "images"), annotations=str(file))
    first = index_dataset.fn(Store(str(tmp_path / "store")), source)
    assert is_federated(first) == bool(lists)
    monkeypatch.setattr("refseg_core.datasets.coco.parser.parse_coco", _parse_nothing)
    assert index_dataset.fn(Store(str(tmp_path / "store")), source) == first
    for changed in (source.model_copy(update={"with_versions": True}), source.model_copy(update={"images": "else"})):
        with pytest.raises(AssertionError, match="parsed"):
            index_dataset.fn(Store(str(tmp_path / "store")), changed)
    file.write_text(file.read_text() + " ")
    with pytest.raises(AssertionError, match="parsed"):
        index_dataset.fn(Store(str(tmp_path / "store")), source)


def _parse_nothing(*_: Any, **__: Any) -> Dataset:
    raise AssertionError("parsed")


class TestTelling:
    def test_it_says_what_it_took_the_files_for(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        read(written(tmp_path, "yolo", "boxes"))
        assert "taken for YOLO text files (2 files); set format to say otherwise" in caplog.text

    def test_files_of_several_formats_are_refused_naming_the_key(self, tmp_path: Path) -> None:
        source = written(tmp_path, "labelme", "boxes")
        (tmp_path / "annotations" / "x.xml").write_bytes(b"<annotation/>")
        with pytest.raises(
            DatasetError, match=r"several formats: a.json \(coco or labelme\?\), x.xml \(voc or cvat\?\)"
        ) as caught:
            read(source)
        assert "references.format or targets.format" in str(caught.value)
        assert "A dataset has one format: convert the files to one, or" in str(caught.value)
        dataset = read(source_of(tmp_path, "labelme", format="labelme"))
        assert len(dataset.annotations) == len(INSTANCES)
        (told,) = [one for one in dataset.oddities if "annotations of another format: not read" in one.what]
        assert told.examples == ("x.xml",)

    def test_a_folder_without_annotations_is_refused(self, tmp_path: Path) -> None:
        write_all_images(tmp_path / "images")
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "README.txt").write_bytes(b"?")
        with pytest.raises(DatasetError, match="holds no annotations"):
            read(source_of(tmp_path, "voc"))

    def test_a_format_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        written(tmp_path, "labelme", "boxes")
        with pytest.raises(DatasetError, match=r"holds no PASCAL VOC XML: expected files ending in \.xml"):
            read(source_of(tmp_path, "labelme", format="voc"))

    def test_a_coco_file_may_be_named_by_its_folder_or_without_suffix(self, tmp_path: Path) -> None:
        write_all_images(tmp_path / "images")
        (tmp_path / "annotations").mkdir()
        for name in ("_annotations.coco.json", "instances"):
            (tmp_path / "annotations" / name).write_bytes(coco_document(INSTANCES, "boxes"))
        assert read_annotations(source_of(tmp_path, "coco"), None).kind == "coco"
        by_name = source_of(tmp_path, "coco", annotations=str(tmp_path / "annotations" / "instances"))
        assert len(read(by_name).annotations) == len(INSTANCES)
        (tmp_path / "annotations" / "other.json").write_bytes(b'{"images": []}')
        with pytest.raises(DatasetError, match=r"holds 2 files ending in \.json"):
            read(source_of(tmp_path, "coco"))

    def test_one_file_of_many_is_answered_with_its_folder(self, tmp_path: Path) -> None:
        written(tmp_path, "labelme", "boxes")
        file = tmp_path / "annotations" / "a.json"
        with pytest.raises(DatasetError, match="Name the folder"):
            read(source_of(tmp_path, "labelme", annotations=str(file), format="labelme"))

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RefsegError, match="nowhere: not found"):
            read(DatasetSource(images=str(tmp_path), annotations=str(tmp_path / "nowhere")))

    def test_folders_are_told_wherever_they_lie(self, empty_uri: str, tmp_path: Path) -> None:
        written(tmp_path, "yolo", "polygons")
        folder = Folder(empty_uri)
        for file in tmp_path.rglob("*"):
            if file.is_file():
                folder.create(f"copy/{file.relative_to(tmp_path)}", file.read_bytes())
        there = DatasetSource(images=folder.join("copy/images"), annotations=folder.join("copy/annotations/labels"))
        assert_same(read(there), read(source_of(tmp_path, "yolo")))

    def test_masks_are_borrowed_for_coco_only(self, tmp_path: Path) -> None:
        (tmp_path / "masks.json").write_bytes(coco_document(INSTANCES, "masks"))
        source = written(tmp_path, "voc", "boxes").model_copy(update={"masks_from": str(tmp_path / "masks.json")})
        with pytest.raises(DatasetError, match=r"masks_from completes COCO json, and .*annotations is voc"):
            index_dataset.fn(Store(str(tmp_path / "store")), source)


class TestImages:
    def test_annotations_may_lie_among_the_images(self, tmp_path: Path) -> None:
        write_all_images(tmp_path / "annotations")
        write_labelme(tmp_path / "annotations", INSTANCES, "polygons")
        dataset = read(source_of(tmp_path, "labelme", images=str(tmp_path / "annotations")))
        assert_same(dataset, parse_coco(coco_document(INSTANCES, "polygons"), source="x"))

    def test_masks_may_lie_in_a_folder_below_the_images(self, tmp_path: Path) -> None:
        write_all_images(tmp_path / "data" / "images")
        write_masks(tmp_path / "data" / "masks", INSTANCES, "masks")
        source = DatasetSource(images=str(tmp_path / "data"), annotations=str(tmp_path / "data" / "masks"))
        assert read(source).images.image_id.tolist() == ["images/a.png", "images/c.png", "images/sub/b.png"]

    def test_labels_go_with_the_images_of_their_own_split(self, tmp_path: Path) -> None:
        for split in ("train", "valid"):
            write_all_images(tmp_path / split / "images")
            write_yolo(tmp_path / split, INSTANCES, "boxes")
        (tmp_path / "train" / "data.yaml").rename(tmp_path / "data.yaml")
        dataset = read(DatasetSource(images=str(tmp_path), annotations=str(tmp_path), format="yolo"))
        assert len(dataset.images) == 2 * len(IMAGES)
        assert dataset.annotations.image_id[0] == "train/images/a.png"
        assert len(dataset.annotations) == 2 * len(INSTANCES)

    def test_files_without_an_image_or_with_several_are_named_together(self, tmp_path: Path) -> None:
        source = written(tmp_path, "yolo", "boxes")
        write_all_images(tmp_path / "images", ["a.jpg"])
        (tmp_path / "annotations" / "labels" / "z.txt").write_bytes(b"")
        with pytest.raises(DatasetError, match="2 problems") as caught:
            read(source)
        assert "Found: z.txt" in str(caught.value)
        assert "Found: a.txt with a.jpg, a.png" in str(caught.value)

    def test_files_whose_names_cannot_be_used_are_left_out_and_told(self, tmp_path: Path) -> None:
        source = written(tmp_path, "yolo", "boxes")
        whole = read(source)
        for place, suffix in ((tmp_path / "annotations" / "labels", "txt"), (tmp_path / "images", "png")):
            for name in ("a\tb", "a\udcff"):
                (place / f"{name}.{suffix}").write_bytes((place / f"a.{suffix}").read_bytes())
        dataset = read(source)
        assert_same(dataset, whole)
        told = [oddity for oddity in dataset.oddities if "names cannot be used" in oddity.what]
        assert [oddity.examples for oddity in told] == [
            (f"a\\tb.{suffix} has control characters", f"a\\udcff.{suffix} is not valid Unicode")
            for suffix in ("txt", "png")
        ]

    def test_sizes_that_no_file_tells_are_those_of_the_annotated_images(self, tmp_path: Path) -> None:
        source = written(tmp_path, "voc", "boxes")
        for file in (tmp_path / "annotations").rglob("*.xml"):
            file.write_text(file.read_text().replace(f"<width>{WIDTH}</width>", "<width>0</width>"))
        (tmp_path / "images" / "sub" / "b.png").write_bytes(b"no image")
        images = read(source).images
        assert images.file_name.tolist() == sorted(IMAGES)
        assert images.height.tolist() == [HEIGHT, HEIGHT, 0]
        assert images.width.tolist() == [WIDTH, 0, 0]

    def test_a_listing_of_targets_gives_their_versions(self, tmp_path: Path) -> None:
        source = written(tmp_path, "voc", "boxes").model_copy(update={"with_versions": True})
        store = Store(str(tmp_path / "store"))
        images = store.load(index_dataset.fn(store, source), Images)
        assert all(images.version)
        assert np.all(images.size > 0)


class TestClasses:
    def test_a_list_of_classes_gives_their_order(self, tmp_path: Path) -> None:
        source = written(tmp_path, "voc", "boxes")
        (tmp_path / "classes.txt").write_bytes(b"__ignore__\n_background_\nbox\nbar\nboat\n")
        store = Store(str(tmp_path / "s"))
        categories = store.load(index_dataset.fn(store, source), Categories)
        assert categories.name.tolist() == ["box", "bar", "boat"]
        assert categories.category_id.tolist() == [1, 2, 3]

    def test_labels_that_the_list_lacks_are_named(self, tmp_path: Path) -> None:
        source = written(tmp_path, "labelme", "boxes")
        (tmp_path / "annotations" / "labels.txt").write_bytes(b"box\nboat\n")
        with pytest.raises(DatasetError, match=r"not in the list of categories.*a.json#1 with 'bar'"):
            read(source)

    @pytest.mark.parametrize("format_name", ["voc", "yolo", "labelme"])
    def test_names_that_occur_twice_are_refused(self, format_name: str, tmp_path: Path) -> None:
        source = written(tmp_path, format_name, "boxes")
        if format_name == "yolo":
            (tmp_path / "annotations" / "data.yaml").write_bytes(b"names: [bar, bar, box]")
        else:
            (tmp_path / "annotations" / "classes.txt").write_bytes(b"box\nbar\nbar\n")
        with pytest.raises(DatasetError, match=r"category name is used more than once: .* Found: bar"):
            read(source)

    @pytest.mark.parametrize(
        "document", [b"names: [bar, box]", b"names: {0: bar, 1: box}", b"names: {'1': box, '0': bar}"]
    )
    def test_yolo_has_its_names_from_yaml(self, document: bytes, tmp_path: Path) -> None:
        source = written(tmp_path, "yolo", "boxes")
        (tmp_path / "annotations" / "data.yaml").write_bytes(document)
        assert read(source).categories.name.tolist() == list(CATEGORIES)

    @pytest.mark.parametrize("document", [b"nc: 2", b"names: {1: bar}", b"[", b"names: [[a]]", b"a: 2020-99-99", b"4"])
    def test_yaml_without_names_is_refused(self, document: bytes, tmp_path: Path) -> None:
        source = written(tmp_path, "yolo", "boxes")
        (tmp_path / "annotations" / "data.yaml").write_bytes(document)
        with pytest.raises(DatasetError, match=r"data\.yaml: cannot be read as a list of categories"):
            read(source)

    def test_yolo_without_names_says_where_it_looked_for_which_files(self, tmp_path: Path) -> None:
        source = written(tmp_path, "yolo", "boxes")
        (tmp_path / "annotations" / "data.yaml").unlink()
        with pytest.raises(DatasetError, match=r"Looked in .* for one of data\.yaml, .*obj\.names"):
            read(source)
        (tmp_path / "annotations" / "obj.names").write_bytes(b"bar\nbox\n")
        assert read(source).categories.category_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("suffix", "damaged", "sound", "what"),
    [
        (".xml", "", "<annotation/>", "not XML that can be read: .* Found: a.xml"),
        (".json", "", '{"shapes": []}', "not json that can be read: .* Found: a.json"),
        (".json", "[1]", '{"shapes": []}', "no labelme annotation: .* Found: a.json"),
    ],
)
def test_a_damaged_first_file_is_named_and_does_not_hide_the_format(
    suffix: str, damaged: str, sound: str, what: str, tmp_path: Path
) -> None:
    write_all_images(tmp_path / "images", ("a.png", "b.png"))
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / f"a{suffix}").write_text(damaged)
    (folder / f"b{suffix}").write_text(sound)
    with pytest.raises(DatasetError, match=what):
        read_annotations(DatasetSource(images=str(tmp_path / "images"), annotations=str(folder)), None)


def test_an_empty_cvat_file_is_cvat(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?><annotations/>')
    source = DatasetSource(images=str(tmp_path), annotations=str(tmp_path / "a.xml"))
    assert read_annotations(source, None).kind == "cvat"


@pytest.mark.parametrize("kind", ["coco", "cvat"])
def test_what_is_no_annotation_file_is_named_with_its_place(tmp_path: Path, kind: str) -> None:
    (tmp_path / "null").write_text("")
    source = DatasetSource.model_validate(
        {"images": str(tmp_path), "annotations": str(tmp_path / "null"), "format": kind}
    )
    with pytest.raises(DatasetError) as error:
        read_annotations(source, None)
    assert str(error.value).startswith(f"{tmp_path}/null is not ")
