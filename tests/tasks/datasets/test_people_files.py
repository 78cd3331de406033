"""What people's files really look like: each is read right, or refused in one message, and every guess is told."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg_core.analysis.dataset_summary import find_oddities
from refseg_core.datasets.checks.boxes import APART, FRACTIONS, LOOK_LIKE_CORNERS, contradicting_boxes
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError
from refseg_core.masks.rle import decode_mask
from refseg_core.tables import Images
from tasks.datasets.annotation_files import read_annotations
from tasks.datasets.indexed import check_boxes, load_dataset
from tasks.index_dataset import index_dataset
from tasks.specs import DatasetSource
from tasks.store.store import Store
from tests.support.annotation_files import HEIGHT, WIDTH, write_all_images
from tests.support.samples import run_lengths

SQUARE = [[10, 10], [40, 10], [40, 30], [10, 30]]  # 30 x 20


def source_of(folder: Path, annotations: str = "x.json", **more: Any) -> DatasetSource:
    return DatasetSource(images=str(folder / "images"), annotations=str(folder / annotations), **more)


def write_coco(
    folder: Path, *annotations: dict[str, Any], names: tuple[str, ...] = ("a.png",), write: bool = True
) -> DatasetSource:
    """A COCO file of images by number from 1."""
    if write:
        write_all_images(folder / "images", names)
    document = {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, **annotation}
            for number, annotation in enumerate(annotations, start=1)
        ],
        "categories": [{"id": 1, "name": "boat"}],
    }
    (folder / "x.json").write_text(json.dumps(document))
    return source_of(folder)


def read(source: DatasetSource) -> Dataset:
    return read_annotations(source, None).dataset


def told(dataset: Dataset, words: str) -> tuple[int, tuple[str, ...]]:
    """The count and the examples of the one oddity with these words."""
    (found,) = [oddity for oddity in dataset.oddities if words in oddity.what]
    return found.count, found.examples


# --- a file that names another image than its own name does -----------------------------------------------------------


@pytest.mark.parametrize("format_name", ["labelme", "voc"])
def test_an_image_of_the_files_own_name_comes_before_the_one_that_it_names(format_name: str, tmp_path: Path) -> None:
    write_all_images(tmp_path / "images", ("a.png", "b.png"))
    (tmp_path / "annotations").mkdir()
    for name in ("a", "b"):  # renamed together with their images; inside, the names are swapped
        other = {"a": "b.png", "b": "a.png"}[name]
        left = {"a": 1, "b": 21}[name]
        if format_name == "labelme":
            shape = {"label": "x", "shape_type": "rectangle", "points": [[left - 1, 0], [left + 9, 10]]}
            content = json.dumps({"imagePath": other, "shapes": [shape], "imageHeight": HEIGHT, "imageWidth": WIDTH})
        else:
            box = f"<xmin>{left}</xmin><ymin>1</ymin><xmax>{left + 9}</xmax><ymax>10</ymax>"
            one = f"<object><name>x</name><bndbox>{box}</bndbox></object>"
            content = f"<annotation><filename>{other}</filename>{one}</annotation>"
        suffix = "json" if format_name == "labelme" else "xml"
        (tmp_path / "annotations" / f"{name}.{suffix}").write_text(content)
    dataset = read(source_of(tmp_path, "annotations"))
    boxes = dict(zip(dataset.annotations.image_id, dataset.annotations.box_xywh.tolist(), strict=True))
    assert boxes == {"a.png": [0, 0, 10, 10], "b.png": [20, 0, 10, 10]}
    count, examples = told(dataset, "with the name of another image")
    assert count == 2
    assert examples[0].endswith("names b.png, taken for a.png")


@pytest.mark.parametrize(("declared", "is_told"), [("old/b.png", True), ("old\\A.jpg", False), ("a", False)])
def test_a_name_of_an_image_that_is_not_there_is_told_unless_it_is_the_files_own(
    declared: str, is_told: bool, tmp_path: Path
) -> None:
    write_all_images(tmp_path / "images", ("a.png",))
    (tmp_path / "annotations").mkdir()
    shape = {"label": "x", "shape_type": "rectangle", "points": [[0, 0], [9, 9]]}
    (tmp_path / "annotations" / "a.json").write_text(json.dumps({"imagePath": declared, "shapes": [shape]}))
    dataset = read(source_of(tmp_path, "annotations"))
    assert dataset.annotations.image_id.tolist() == ["a.png"]
    assert dataset.readings == ()
    expected = [(f"a.json names {declared}, taken for a.png",)] if is_told else []
    assert [oddity.examples for oddity in dataset.oddities] == expected


# --- segmentations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segmentation", [SQUARE, [SQUARE], [SQUARE, [[50, 10], [60, 10], [60, 20], [50, 20]]]])
def test_polygons_of_points_are_read(segmentation: Any, tmp_path: Path) -> None:
    dataset = read(write_coco(tmp_path, {"segmentation": segmentation}, {"segmentation": [[1, 1, 9, 1, 9, 9]]}))
    assert decode_mask(dataset.annotations.mask_rle[0]).sum() == 600 + (100 if len(segmentation) == 2 else 0)
    assert told(dataset, "lists of points [x, y]") == (1, ("annotation 1",))


def test_polygons_of_two_points_are_counted_and_named(tmp_path: Path) -> None:
    few = {"bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 9]]}
    part = {"segmentation": [[10, 10, 40, 10, 40, 30, 10, 30], [1, 1], [2, 2, 3, 3]]}
    dataset = read(write_coco(tmp_path, few, part, {"bbox": [1, 1, 9, 9], "segmentation": [[1, 1], [9, 9]]}))
    assert [mask is not None for mask in dataset.annotations.mask_rle] == [False, True, False]
    assert told(dataset, "fewer than three points") == (3, ("annotation 1", "annotation 2", "annotation 3"))


@pytest.mark.parametrize("top", [0, 8])
def test_a_flat_list_of_run_lengths_is_read(top: int, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + 20, 30:60] = True
    lengths = run_lengths(mask)
    dataset = read(write_coco(tmp_path, {"bbox": [30, top, 30, 20], "segmentation": lengths}))
    np.testing.assert_array_equal(decode_mask(dataset.annotations.mask_rle[0]), mask)
    assert told(dataset, "flat list of run lengths") == (1, ("annotation 1",))


# --- boxes against masks and images -----------------------------------------------------------------------------------

CORNERS = {"bbox": [10, 10, 40, 30], "segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]}
RIGHT = {"bbox": [50, 5, 30, 20], "segmentation": [[50, 5, 80, 5, 80, 25, 50, 25]]}


def test_boxes_that_look_like_corners_are_refused_for_references_with_the_remedies(tmp_path: Path) -> None:
    source, store = write_coco(tmp_path, CORNERS, CORNERS, RIGHT), Store(str(tmp_path / "store"))
    with pytest.raises(DatasetError, match="2 boxes that look like x1, y1, x2, y2") as caught:
        check_boxes(store, index_dataset.fn(store, source))
    assert "annotation 1, bbox [10.0, 10.0, 40.0, 30.0], its mask lies in (10, 10, 30, 20)" in str(caught.value)
    assert "Set references.boxes to 'xyxy'" in str(caught.value)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [("xyxy", [[10, 10, 30, 20]] * 2), ("mask", [[10, 10, 30, 20]] * 2), ("xywh", [[10, 10, 40, 30]] * 2)],
)
def test_what_boxes_are_can_be_said(boxes: str, expected: list[Any], tmp_path: Path) -> None:
    write_coco(tmp_path, CORNERS, CORNERS)
    source, store = source_of(tmp_path, boxes=boxes), Store(str(tmp_path / "store"))
    dataset = index_dataset.fn(store, source)
    assert load_dataset(store, dataset).annotations.box_xywh.tolist() == expected
    plain = index_dataset.fn(store, source_of(tmp_path))
    assert (dataset.key == plain.key) == (boxes == "xywh")


def test_boxes_apart_from_masks_are_refused_but_few_and_crowds_are_not(tmp_path: Path) -> None:
    apart = {**CORNERS, "bbox": [90, 40, 20, 20]}
    store = Store(str(tmp_path / "store"))
    for odd in ([apart, apart, RIGHT], [RIGHT, apart, apart, apart]):
        with pytest.raises(DatasetError, match="lie apart from their masks"):
            check_boxes(store, index_dataset.fn(store, write_coco(tmp_path, *odd)))
    for right in ([apart] + [RIGHT] * 3, [{**CORNERS, "iscrowd": 1}] * 3 + [RIGHT], [RIGHT]):
        check_boxes(store, index_dataset.fn(store, write_coco(tmp_path, *right)))


def test_boxes_without_masks_that_leave_their_images_are_refused_if_they_fit_as_corners(tmp_path: Path) -> None:
    corners = [{"bbox": [x, 5, x + 30, 50]} for x in (70, 80, 90)]
    store = Store(str(tmp_path / "store"))
    with pytest.raises(DatasetError, match="3 boxes that look like x1, y1, x2, y2"):
        check_boxes(store, index_dataset.fn(store, write_coco(tmp_path, *corners)))
    check_boxes(store, index_dataset.fn(store, write_coco(tmp_path, *corners, {"bbox": [120, 5, 30, 50]})))


@pytest.mark.parametrize(
    ("odd", "what", "example"),
    [
        ({"bbox": [70, 5, 100, 50]}, LOOK_LIKE_CORNERS, "annotation 5, bbox [70.0, 5.0, 100.0, 50.0]"),
        (CORNERS, LOOK_LIKE_CORNERS, "annotation 5, bbox [10.0, 10.0, 40.0, 30.0], its mask lies in (10, 10, 30, 20)"),
        ({**RIGHT, "bbox": [5, 40, 9, 9]}, APART, "annotation 5, bbox [5.0, 40.0, 9.0, 9.0], its mask"),
    ],
)
def test_a_single_box_that_contradicts_its_image_or_mask_is_told_and_not_refused(
    odd: dict[str, Any], what: str, example: str, tmp_path: Path
) -> None:
    tiny = {"bbox": [9, 9, 1, 3], "segmentation": [[10, 9, 11, 9, 11, 12, 10, 12]]}  # apart by a pixel
    store = Store(str(tmp_path / "store"))
    artifact = index_dataset.fn(store, write_coco(tmp_path, RIGHT, {"bbox": [5, 5, 9, 9]}, tiny, RIGHT, odd))
    check_boxes(store, artifact)
    (found,) = [
        oddity for oddity in find_oddities(load_dataset(store, artifact)) if oddity.what in (LOOK_LIKE_CORNERS, APART)
    ]
    assert (found.what, found.count) == (what, 1)
    assert found.examples[0].startswith(example)


def test_boxes_that_look_like_fractions_are_told_if_all_do(tmp_path: Path) -> None:
    write_coco(tmp_path, {"bbox": [0.1, 0.2, 0.5, 0.8]}, {"bbox": [0, 0, 1, 1]})
    (found,) = contradicting_boxes(read(source_of(tmp_path)))
    assert (found.what, found.count, found.examples[0]) == (FRACTIONS, 2, "annotation 1, bbox [0.1, 0.2, 0.5, 0.8]")
    write_coco(tmp_path, {"bbox": [0, 0, 1, 1]}, {"bbox": [5, 5, 9, 9]})
    assert contradicting_boxes(read(source_of(tmp_path))) == []


def test_boxes_that_are_no_corners_are_refused_where_they_are_said_to_be(tmp_path: Path) -> None:
    write_coco(tmp_path, CORNERS, RIGHT)
    with pytest.raises(DatasetError, match="a box is not x1, y1, x2, y2"):
        read(source_of(tmp_path, boxes="xyxy"))


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "own"),
    [
        ("./a.png", "a.png"),
        ("sub\\\\b.png".replace("\\\\", "\\"), "sub/b.png"),
        ("sub//b.png", "sub/b.png"),
        ("A.PNG", "a.png"),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png")),
    ],
)
@pytest.mark.parametrize("with_versions", [True, False])
def test_a_name_that_is_written_otherwise_is_found(written: str, own: str, with_versions: bool, tmp_path: Path) -> None:
    write_all_images(tmp_path / "images", (own, "other.png"))
    write_coco(tmp_path, {"bbox": [1, 1, 9, 9]}, names=(written, "other.png"), write=False)
    store = Store(str(tmp_path / "store"))
    artifact = index_dataset.fn(store, source_of(tmp_path, with_versions=with_versions))
    images = store.load(artifact, Images)
    assert images.file_name.tolist() == [own, "other.png"]
    assert all(images.version) == with_versions
    assert told(load_dataset(store, artifact), "written otherwise") == (1, (f"{written!r} for {own!r}",))


@pytest.mark.parametrize(
    ("written", "files", "shown"),
    [
        ("a.PNG", ("a.png", "A.png"), "'a.PNG': 'A.png' or 'a.png'?"),
        ("é.PNG", ("é.png", "e\u0301.png"), "'é.PNG': 'é.png' or 'é.png'?"),
        ("a.png", ("x/a.png", "y/a.png"), "'a.png': 'x/a.png' or 'y/a.png'?"),
        ("z/a.png", ("x/a.png",), "'z/a.png': 'x/a.png'?"),
        ("my%20boat.png", ("my boat.png",), "'my%20boat.png': 'my boat.png'?"),
        ("a.jpg", ("a.png", "b.png"), "'a.jpg': 'a.png'?"),
    ],
)
def test_a_name_that_several_files_or_one_elsewhere_resemble_is_told_with_them_and_not_guessed(
    written: str, files: tuple[str, ...], shown: str, tmp_path: Path
) -> None:
    write_all_images(tmp_path / "images", files)
    write_coco(tmp_path, {"bbox": [1, 1, 9, 9]}, names=(written,), write=False)
    dataset = read(source_of(tmp_path))
    assert dataset.images.file_name.tolist() == [written]
    ((count, examples), same) = told(dataset, "files resemble their names"), unicodedata.normalize("NFC", shown)
    assert (count, [unicodedata.normalize("NFC", example) for example in examples]) == (1, [same])


def test_names_that_are_corrected_are_read_again(tmp_path: Path) -> None:
    write_all_images(tmp_path / "images", ("a.png", "A.png"))
    write_coco(tmp_path, {"bbox": [1, 1, 9, 9]}, names=("a.PNG",), write=False)
    store = Store(str(tmp_path / "store"))
    index_dataset.fn(store, source_of(tmp_path))
    (tmp_path / "images" / "A.png").rename(tmp_path / "images" / "b.png")
    dataset = load_dataset(store, index_dataset.fn(store, source_of(tmp_path)))
    assert dataset.images.file_name.tolist() == ["a.png"]
    assert told(dataset, "written otherwise")[0] == 1


@pytest.mark.parametrize("suffix", ["txt", "json", "xml"])
def test_files_of_annotations_find_images_whose_names_differ_by_case_or_accents(suffix: str, tmp_path: Path) -> None:
    write_all_images(tmp_path / "images", ("A.png", "e\u0301.png", "x/b.png", "c.png", "C.png"))
    (tmp_path / "notes").mkdir()
    shape = {"label": "boat", "shape_type": "rectangle", "points": [[48, 16], [80, 48]]}
    box = "<xmin>49</xmin><ymin>17</ymin><xmax>80</xmax><ymax>48</ymax>"
    written = {
        "json": json.dumps({"shapes": [shape], "imageHeight": HEIGHT, "imageWidth": WIDTH}),
        "xml": f"<annotation><object><name>boat</name><bndbox>{box}</bndbox></object></annotation>",
        "txt": "0 .5 .5 .25 .5",
    }
    (tmp_path / "classes.txt").write_text("boat")
    for stem in ("a", "\u00e9"):
        (tmp_path / "notes" / f"{stem}.{suffix}").write_text(written[suffix])
    dataset = read(source_of(tmp_path, "notes", format={"txt": "yolo", "json": "labelme", "xml": "voc"}[suffix]))
    assert sorted(dataset.annotations.image_id) == ["A.png", "e\u0301.png"]
    assert dataset.annotations.box_xywh.tolist() == [[48, 16, 32, 32]] * 2
    assert told(dataset, "written otherwise") == (2, (f"a.{suffix} for A.png", f"\u00e9.{suffix} for e\u0301.png"))
    for stem in ("b", "\u00c9/b", "q"):
        (tmp_path / "notes" / stem).parent.mkdir(exist_ok=True)
        (tmp_path / "notes" / f"{stem}.{suffix}").write_text(written[suffix])
    with pytest.raises(DatasetError, match=rf"Found: b.{suffix}; x/b.png\?, q.{suffix}, .*/b.{suffix}; x/b.png\?"):
        read(source_of(tmp_path, "notes", format={"txt": "yolo", "json": "labelme", "xml": "voc"}[suffix]))


def test_a_backslash_is_refused_where_no_file_fits_and_files_of_the_name_are_shown(tmp_path: Path) -> None:
    write_coco(tmp_path, {"bbox": [1, 1, 9, 9]}, names=("..\\x.png", "sub\\b.png"), write=False)
    write_all_images(tmp_path / "images", ("a.png", "x/b.png"))
    with pytest.raises(DatasetError, match=r"2 x an image's file_name is not a path.*separated by '/'; x/b.png\?"):
        read(source_of(tmp_path))


# --- one file, two entries --------------------------------------------------------------------------------------------


def test_one_file_under_two_ids_is_named_and_is_one_image(tmp_path: Path) -> None:
    source = write_coco(
        tmp_path,
        {"bbox": [1, 1, 9, 9]},
        {"bbox": [20, 1, 9, 9], "image_id": 3},
        names=("a.png", "sub/b.png", "./a.png", "c.png"),
    )
    dataset = read(source)
    assert dataset.images.image_id.tolist() == ["1", "2", "4"]
    assert dataset.annotations.image_id.tolist() == ["1", "1"]
    assert told(dataset, "files that several entries name") == (1, ("2 entries name a.png",))


def test_entries_of_one_file_that_declare_different_sizes_are_refused(tmp_path: Path) -> None:
    source = write_coco(tmp_path, names=("a.png", "a.png"))
    file = tmp_path / "x.json"
    file.write_text(file.read_text().replace(f'"height": {HEIGHT}', '"height": 50', 1))
    with pytest.raises(DatasetError, match=r"declare different sizes.* Found: a.png"):
        read(source)


# --- files that are no data, and images without a suffix --------------------------------------------------------------


def test_what_is_left_behind_is_nowhere_data(tmp_path: Path) -> None:
    source = write_coco(tmp_path, {"bbox": [1, 1, 9, 9]}, names=("a.png", "b.png"))
    left = ("._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/._a.png", "Thumbs.db", ".hidden/b.png", "desktop.ini")
    for folder in ("images", "annotations"):
        for name in left:
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\0\5\x16\7")
    (tmp_path / "annotations" / "._b.xml").write_bytes(b"\0\5\x16\7")
    shape = {"label": "x", "shape_type": "rectangle", "points": [[0, 0], [9, 9]]}
    (tmp_path / "annotations" / "a.json").write_text(json.dumps({"shapes": [shape]}))
    store = Store(str(tmp_path / "store"))
    listed = load_dataset(store, index_dataset.fn(store, source.model_copy(update={"annotations": None})))
    assert listed.images.file_name.tolist() == ["a.png", "b.png"]
    assert listed.oddities == ()
    annotated = read(source_of(tmp_path, "annotations"))
    assert annotated.images.file_name.tolist() == ["a.png"]
    assert annotated.oddities == ()


def test_images_without_a_suffix_are_found_by_content_and_all_others_are_named(tmp_path: Path) -> None:
    write_all_images(tmp_path / "images", ("a.png", "sub/b.png"))
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "0001")
    for name in ("README", "clip.mp4", "notes.txt", "IMG_1.HEIC"):
        (tmp_path / "images" / name).write_bytes(b"no image")
    store = Store(str(tmp_path / "store"))
    dataset = load_dataset(store, index_dataset.fn(store, DatasetSource(images=str(tmp_path / "images"))))
    assert dataset.images.file_name.tolist() == ["0001", "sub/b.png"]
    count, examples = told(dataset, "in no format of images that is read")
    assert (count, examples) == (3, ("README", "clip.mp4", "notes.txt"))
    assert told(dataset, "pip install 'refseg[heif]'") == (1, ("IMG_1.HEIC",))
