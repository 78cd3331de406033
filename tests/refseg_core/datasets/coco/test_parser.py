"""COCO files as they come: what is read, what is tolerated, and how the rest is reported."""

import json
import math
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from refseg_core.datasets.coco import json_stream
from refseg_core.datasets.coco.mask_source import MaskFile
from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset, dataset_of_files, select_images
from refseg_core.datasets.image_files.names import check_file_name
from refseg_core.errors import DatasetError
from refseg_core.masks.rle import decode_mask, encode_masks, rle_from_polygons
from refseg_core.settings import Conventions
from tests.support.samples import run_lengths

Document = dict[str, Any]

SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]


def a_document() -> Document:
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 7, "file_name": "b/seven.jpg", "height": 20, "width": 30},
            {"id": 3, "file_name": "three.jpg", "height": 10, "width": 12},
        ],
        "annotations": [
            {
                "id": 21,
                "image_id": 3,
                "category_id": 5,
                "bbox": [2.0, 2.0, 4.0, 4.0],
                "area": 15.5,
                "iscrowd": 0,
                "segmentation": [SQUARE],
            },
            {
                "id": 20,
                "image_id": 7,
                "category_id": 2,
                "bbox": [0, 0, 30, 1],
                "area": 30,
                "iscrowd": 1,
                "isimpossible": 1,
            },
        ],
        "categories": [{"id": 5, "name": "boat"}, {"id": 2, "name": "bird", "supercategory": "animal"}],
    }


def parse(document: Any) -> Dataset:
    return parse_coco(json.dumps(document).encode(), source="boats.json")


def problems_of(document: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        parse(document)
    return str(caught.value)


def equal(first: Dataset, second: Dataset) -> bool:
    return all(getattr(first, name).equals(getattr(second, name)) for name in ("images", "annotations", "categories"))


class TestReading:
    def test_the_tables_hold_what_the_file_says_in_its_order(self) -> None:
        dataset = parse(a_document())
        images, annotations, categories = dataset.images, dataset.annotations, dataset.categories
        assert images.image_id.tolist() == ["7", "3"]
        assert images.has_integer_id.all()
        assert images.file_name.tolist() == ["b/seven.jpg", "three.jpg"]
        assert images.height.tolist() == [20, 10]
        assert images.width.tolist() == [30, 12]
        assert images.size.tolist() == [-1, -1]
        assert annotations.annotation_id.tolist() == ["21", "20"]
        assert annotations.image_id.tolist() == ["3", "7"]
        assert annotations.category_id.tolist() == [5, 2]
        assert annotations.box_xywh.tolist() == [[2, 2, 4, 4], [0, 0, 30, 1]]
        assert annotations.area.tolist() == [15.5, 30]
        assert annotations.mask_rle.tolist() == [rle_from_polygons([SQUARE], 10, 12), None]
        assert annotations.is_crowd.tolist() == [False, True]
        assert annotations.is_impossible.tolist() == [False, True]
        assert categories.category_id.tolist() == [2, 5]
        assert categories.class_index.tolist() == [0, 1]
        assert categories.name.tolist() == ["bird", "boat"]

    def test_the_order_of_the_lists_in_the_file_does_not_matter(self) -> None:
        document = a_document()
        turned = {key: document[key] for key in ("annotations", "categories", "images")}
        assert equal(parse(turned), parse(document))

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
    @pytest.mark.parametrize("window", [1, 2, 3, 5, 64, 1 << 20])
    def test_neither_the_encoding_nor_the_window_matters(
        self, encoding: str, window: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = a_document()
        document["images"][0]["file_name"] = "b/möwe 🐦.jpg"
        document |= {"version": 1.25e-3, "size": -12345678, "done": True, "note": None}
        document["notes"] = [12345678901234567890, -1.5e-7, True, None, 'a "quoted" \\ text']
        expected = parse(document)
        monkeypatch.setattr(json_stream, "_WINDOW", window)
        written = json.dumps(document, ensure_ascii=False, indent=1).encode(encoding)
        assert equal(parse_coco(written, source="x"), expected)

    @pytest.mark.slow
    def test_polygons_do_not_stay_in_memory_as_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(json_stream, "_WINDOW", 1 << 16)
        document = a_document()
        angles = np.linspace(0, 2 * np.pi, 100)
        polygon = np.stack([15 + 9 * np.cos(angles), 10 + 9 * np.sin(angles)], axis=1).ravel().tolist()
        document["annotations"] = [
            {"id": number, "image_id": 7, "category_id": 2, "bbox": [6, 1, 18, 18], "segmentation": [polygon]}
            for number in range(1000)
        ]
        written = json.dumps(document).encode()
        tracemalloc.start()
        try:
            parse_coco(written, source="x")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2_000_000, "200 coordinates each would be 6 MB as Python floats"

    @pytest.mark.real
    @pytest.mark.parametrize("part", ["train2017", "val2017"])
    def test_a_real_file_gives_what_pycocotools_gives(
        self, part: str, shared: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = shared / "data" / "coco_tiny" / "annotations" / f"instances_{part}.json"
        dataset = parse_coco(path.read_bytes(), source=str(path))
        reference = COCO(str(path))
        assert dataset.images.image_id.tolist() == [str(image["id"]) for image in reference.dataset["images"]]
        assert len(dataset.annotations) == len(reference.dataset["annotations"])
        for row, annotation in enumerate(reference.dataset["annotations"]):
            assert dataset.annotations.annotation_id[row] == str(annotation["id"])
            assert dataset.annotations.box_xywh[row].tolist() == annotation["bbox"]
            assert dataset.annotations.area[row] == annotation["area"]
            mask = decode_mask(dataset.annotations.mask_rle[row])
            assert np.array_equal(mask, reference.annToMask(annotation))


small_masks = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random((drawn[0], drawn[1])) < drawn[3]
)


class TestMasks:
    @given(mask=small_masks, compressed=st.booleans(), declared=st.booleans())
    def test_run_lengths_in_either_form_are_the_mask_and_give_a_missing_box_and_area(
        self, mask: Any, compressed: bool, declared: bool
    ) -> None:
        document = a_document()
        height, width = mask.shape
        document["images"][0] |= {"height": height, "width": width} if declared else {"height": None, "width": None}
        counts = encode_masks(mask[None])[0].counts if compressed else run_lengths(mask)
        segmentation = {"size": [height, width], "counts": counts}
        document["annotations"] = [{"id": 1, "image_id": 7, "category_id": 2, "segmentation": segmentation}]
        if not mask.any():
            assert "neither a bbox nor a mask with any pixel" in problems_of(document)
            return
        annotations = parse(document).annotations
        assert np.array_equal(decode_mask(annotations.mask_rle[0]), mask)
        rows, columns = np.nonzero(mask)
        extent = [np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotations.box_xywh[0].tolist() == [columns.min(), rows.min(), *extent]
        assert annotations.area[0] == mask.sum()

    def test_several_polygons_are_one_mask_and_those_with_two_points_are_ignored(self) -> None:
        document = a_document()
        other = [8, 1, 11, 1, 11, 4]
        document["annotations"][0]["segmentation"] = [SQUARE, [1, 1, 9, 9], other]
        assert parse(document).annotations.mask_rle[0] == rle_from_polygons([SQUARE, other], 10, 12)

    def test_a_flat_list_of_coordinates_is_one_polygon(self) -> None:
        document = a_document()
        document["annotations"][0]["segmentation"] = SQUARE
        assert equal(parse(document), parse(a_document()))

    @pytest.mark.parametrize("segmentation", [None, [], {}, [[]], [[1, 2]], [[1, 2, 3, 4]], "absent"])
    def test_without_an_area_there_is_only_the_box(self, segmentation: Any) -> None:
        document = a_document()
        document["annotations"][0]["segmentation"] = segmentation
        if segmentation == "absent":
            del document["annotations"][0]["segmentation"]
        assert parse(document).annotations.mask_rle[0] is None

    def test_a_missing_area_is_that_of_the_mask_or_else_of_the_box(self) -> None:
        document = a_document()
        for annotation in document["annotations"]:
            del annotation["area"]
        assert parse(document).annotations.area.tolist() == [16, 30]

    def test_image_sizes_are_needed_by_polygons_only(self) -> None:
        document = a_document()
        for image in document["images"]:
            del image["height"], image["width"]
        assert "add width and height to the image entry. Found: annotation 21" in problems_of(document)
        document["annotations"][0]["segmentation"] = {"size": [10, 12], "counts": [100, 20]}
        dataset = parse(document)
        assert dataset.images.height.tolist() == [0, 0]
        assert dataset.annotations.mask_rle[0].size == (10, 12)


class TestTolerance:
    def test_ids_may_be_text_and_digits_stay_text(self) -> None:
        document = a_document()
        document["images"][0]["id"] = "0007"
        document["annotations"][1] |= {"image_id": "0007", "id": "a-1", "category_id": "2"}
        document["categories"][1]["id"] = "2"
        dataset = parse(document)
        assert dataset.images.image_id.tolist() == ["0007", "3"]
        assert dataset.images.has_integer_id.tolist() == [False, True]
        assert dataset.annotations.annotation_id.tolist() == ["21", "a-1"]
        assert dataset.annotations.category_id.tolist() == [5, 2]

    def test_whole_floats_are_numbers(self) -> None:
        document = a_document()
        document["images"][1] |= {"id": 3.0, "height": 10.0}
        document["annotations"][0] |= {"id": 21.0, "image_id": 3.0, "category_id": 5.0, "iscrowd": 0.0}
        assert equal(parse(document), parse(a_document()))

    def test_a_file_without_annotations_gives_the_image_list(self) -> None:
        document = a_document()
        del document["annotations"], document["categories"]
        dataset = parse(document)
        assert len(dataset.images) == 2
        assert len(dataset.annotations) == len(dataset.categories) == 0

    def test_lists_may_be_empty(self) -> None:
        dataset = parse({"images": [], "annotations": [], "categories": []})
        assert len(dataset.images) == len(dataset.annotations) == len(dataset.categories) == 0

    def test_boxes_may_reach_beyond_the_image_or_have_no_extent(self) -> None:
        document = a_document()
        boxes = [[-5, -5, 8, 8], [29.5, 19, 90, 90], [4, 4, 0, 3], [30, 20, 0, 0], [0, 0, 0, 0]]
        document["annotations"] = [
            {"id": number, "image_id": 7, "category_id": 2, "bbox": box} for number, box in enumerate(boxes)
        ]
        assert parse(document).annotations.box_xywh.tolist() == boxes

    def test_lvis_names_its_files_by_url_and_its_categories_frequency(self) -> None:
        document = a_document()
        del document["images"][0]["file_name"]
        document["images"][0]["coco_url"] = "http://images.cocodataset.org/val2017/000000000007.jpg"
        document["categories"][0]["frequency"] = "r"
        dataset = parse(document)
        assert dataset.images.file_name[0] == "000000000007.jpg"
        assert dataset.categories.frequency.tolist() == [None, "r"]

    def test_roboflows_unused_category_0_is_left_out_when_it_doubles_a_name(self) -> None:
        document = a_document()
        document["categories"].insert(0, {"id": 0, "name": "boat", "supercategory": "none"})
        assert equal(parse(document), parse(a_document()))
        document["categories"][0]["name"] = "animals"
        assert parse(document).categories.category_id.tolist() == [0, 2, 5]

    def test_roboflows_unused_category_0_is_left_out_when_it_is_the_group_of_all_others(self) -> None:
        document = a_document()
        for category in document["categories"]:
            category["supercategory"] = "harbour"
        document["categories"].insert(0, {"id": 0, "name": "harbour", "supercategory": "none"})
        assert parse(document).categories.category_id.tolist() == [2, 5]
        document["annotations"][0]["category_id"] = 0
        assert parse(document).categories.category_id.tolist() == [0, 2, 5]


def put(section: str, row: int, **values: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document[section][row] |= values

    return change


def drop(section: str, row: int, key: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        del document[section][row][key]

    return change


def segment(segmentation: Any) -> Callable[[Document], None]:
    return put("annotations", 0, segmentation=segmentation)


def rle(size: Any, counts: Any) -> Callable[[Document], None]:
    return segment({"size": size, "counts": counts})


MALFORMED = {
    "an image without id": (drop("images", 0, "id"), "no usable id", "image number 1 of the list with no id"),
    "a boolean image id": (put("images", 0, id=True), "no usable id", "id true"),
    "an empty image id": (put("images", 0, id=""), "no usable id", 'id ""'),
    "a broken image id": (put("images", 0, id="\ud800"), "no usable id", "ud800"),
    "a repeated image id": (put("images", 0, id="3"), "image id is used more than once", "3"),
    "no file name": (drop("images", 0, "file_name"), "no file_name", "image 7 with no file_name"),
    "a file name that is a number": (put("images", 0, file_name=3), "no file_name", "file_name 3"),
    "an escaping file name": (put("images", 0, file_name="a/../../b.jpg"), "below the image folder", "image 7"),
    "an address as file name": (
        put("images", 0, file_name="https://me:pw@host/a.jpg?X-Amz-Signature=b"),
        "below the image folder",
        "image 7: https://host/a.jpg is a URI",
    ),
    "a negative height": (put("images", 0, height=-4), "width or height", "[-4, 30]"),
    "a height of zero": (put("images", 0, height=0), "width or height", "[0, 30]"),
    "a height of text": (put("images", 0, height="20"), "width or height", "image 7"),
    "a fractional width": (put("images", 0, width=20.5), "width or height", "image 7"),
    "an endless width": (put("images", 0, width=math.inf), "width or height", "Infinity"),
    "an image too large": (put("images", 0, width=10**6, height=10**6), "width or height", "image 7"),
    "an annotation without id": (drop("annotations", 0, "id"), "annotation has no usable id", "annotation number 1"),
    "a repeated annotation id": (put("annotations", 0, id="20"), "annotation id is used more than once", "20"),
    "an unknown image": (put("annotations", 0, image_id=99), "not among the images", "annotation 21 with image_id 99"),
    "no image": (drop("annotations", 0, "image_id"), "not among the images", "no image_id"),
    "an unknown category": (put("annotations", 0, category_id=99), "not among the categories", "category_id 99"),
    "no category": (drop("annotations", 0, "category_id"), "not among the categories", "no category_id"),
    "a category by name": (put("annotations", 0, category_id="boat"), "not among the categories", '"boat"'),
    "neither box nor mask": (put("annotations", 1, bbox=None), "neither a bbox nor a mask", "annotation 20"),
    "a NaN in a box": (put("annotations", 0, bbox=[0, math.nan, 1, 1]), "not four finite numbers", "nan"),
    "an infinite box": (put("annotations", 0, bbox=[0, 0, math.inf, 1]), "not four finite numbers", "inf"),
    "a negative width of a box": (put("annotations", 0, bbox=[5, 5, -1, 4]), "not four finite numbers", "-1.0"),
    "a box of text": (put("annotations", 0, bbox=["0", "0", "1", "1"]), "not four finite numbers", "annotation 21"),
    "a box of three": (put("annotations", 0, bbox=[1, 2, 3]), "not four finite numbers", "[1, 2, 3]"),
    "a box as object": (put("annotations", 0, bbox={"x": 1}), "not four finite numbers", "annotation 21"),
    "a box of huge numbers": (put("annotations", 0, bbox=[10**400, 0, 1, 1]), "not four finite", "annotation 21"),
    "a box outside": (put("annotations", 0, bbox=[12, 0, 5, 5]), "wholly outside", "annotation 21"),
    "a box far outside": (put("annotations", 0, bbox=[0, 1e308, 5, 1e308]), "wholly outside", "annotation 21"),
    "a box before the image": (put("annotations", 0, bbox=[-9, 0, 9, 5]), "wholly outside", "annotation 21"),
    "a negative area": (put("annotations", 0, area=-1), "area is not a number", "-1"),
    "an area that is NaN": (put("annotations", 0, area=math.nan), "area is not a number", "NaN"),
    "an area of text": (put("annotations", 0, area="9"), "area is not a number", '"9"'),
    "a crowd flag of text": (put("annotations", 0, iscrowd="no"), "not 0 or 1", '"no"'),
    "a crowd flag of 2": (put("annotations", 0, iscrowd=2), "not 0 or 1", "iscrowd 2"),
    "polygons of text": (segment([["a"] * 6]), "neither a list of polygons", "annotation 21"),
    "polygons with NaN": (segment([[math.nan] * 6]), "neither a list of polygons", "NaN"),
    "polygons with half a point": (segment([[1, 1, 5, 1, 5, 5, 1]]), "neither a list of polygons", "annotation 21"),
    "polygons of objects": (segment([{"x": 1}]), "neither a list of polygons", "annotation 21"),
    "polygons of points": (segment([[[1, 1], [2, 2]]]), "neither a list of polygons", "annotation 21"),
    "polygons of huge numbers": (segment([[10**400, 0.5] * 3]), "neither a list of polygons", "annotation 21"),
    "a mask as text": (segment("mask.png"), "neither a list of polygons", "mask.png"),
    "a polygon far outside": (segment([[1, 1, 1e9, 1, 5, 5]]), "further outside its image", "annotation 21"),
    "run lengths of another size": (rle([12, 10], [100, 20]), "another size than its image", "[12, 10]"),
    "run lengths without size": (rle(None, [100, 20]), "another size than its image", "null"),
    "a size of text": (rle("10", [100, 20]), "another size than its image", "annotation 21"),
    "a size of one": (rle([120], [100, 20]), "another size than its image", "annotation 21"),
    "run lengths too short": (rle([10, 12], [100, 19]), "run lengths are damaged", "annotation 21"),
    "run lengths too long": (rle([10, 12], [100, 21]), "run lengths are damaged", "annotation 21"),
    "negative run lengths": (rle([10, 12], [130, -10]), "run lengths are damaged", "annotation 21"),
    "fractional run lengths": (rle([10, 12], [100.5, 19.5]), "run lengths are damaged", "annotation 21"),
    "run lengths of truth": (rle([10, 12], [True, 119]), "run lengths are damaged", "annotation 21"),
    "a list in capitals": (lambda d: d.update(Annotations=d.pop("annotations")), "in lower case", "Annotations"),
    "ragged run lengths": (rle([10, 12], [[1], [2, 3]]), "run lengths are damaged", "annotation 21"),
    "huge run lengths": (rle([10, 12], [2**62, 2**62, 2**62, 2**62, 120]), "lengths are damaged", "annotation 21"),
    "no run lengths": (rle([10, 12], []), "run lengths are damaged", "annotation 21"),
    "run lengths as a number": (rle([10, 12], 120), "neither a list of polygons", "counts 120"),
    "an empty string of run lengths": (rle([10, 12], ""), "run lengths are damaged", "annotation 21"),
    "a cut string of run lengths": (rle([10, 12], "oooo"), "run lengths are damaged", "annotation 21"),
    "a string of other characters": (rle([10, 12], "ä z"), "run lengths are damaged", "annotation 21"),
    "an endless run length": (rle([10, 12], "o" * 20 + "0"), "run lengths are damaged", "annotation 21"),
    "a category without id": (drop("categories", 0, "id"), "category has no usable id", "category number 1"),
    "a category id of text": (put("categories", 0, id="x"), "category has no usable id", '"x"'),
    "a category id beyond 64 bits": (put("categories", 0, id=1 << 63), "category has no usable id", "category"),
    "a repeated category id": (put("categories", 0, id=2), "category id is used more than once", "2"),
    "a category without name": (drop("categories", 0, "name"), "no usable name", "category 5 with no name"),
    "a category with a number as name": (put("categories", 0, name=4), "no usable name", "name 4"),
    "a repeated category name": (put("categories", 0, name="bird"), "name is used more than once", "bird"),
    "an image that is a text": (
        lambda d: d["images"].append("x.jpg"),
        "is not an object",
        "image number 3 of the list",
    ),
    "an annotation that is null": (lambda d: d["annotations"].insert(0, None), "is not an object", "null"),
    "images as an object": (lambda d: d.update(images={"7": {}}), "is not a list", "images is a dict"),
    "annotations as null": (lambda d: d.update(annotations=None), "is not a list", "annotations is a NoneType"),
    "no images": (lambda d: d.pop("images"), "a list is missing", "images"),
    "annotations without categories": (lambda d: d.pop("categories"), "a list is missing", "categories"),
}


class TestProblems:
    @pytest.mark.parametrize("case", MALFORMED)
    def test_a_malformed_file_is_refused_with_what_and_where(self, case: str) -> None:
        change, kind, offender = MALFORMED[case]
        document = a_document()
        change(document)
        message = problems_of(document)
        assert message.startswith("boats.json cannot be used; ")
        line = next(line for line in message.splitlines() if kind in line)
        assert offender in line

    def test_all_problems_are_reported_together_with_counts(self) -> None:
        document = a_document()
        for case in ("a negative height", "an unknown image", "a repeated category name"):
            MALFORMED[case][0](document)
        for number in range(7):
            document["annotations"].append(deepcopy(document["annotations"][1]) | {"id": 100 + number, "area": -1})
        message = problems_of(document)
        assert message.startswith("boats.json cannot be used; 10 problems:\n")
        assert "- 7 x an annotation's area is not a number of at least 0: correct or remove it. Found: " in message
        assert "annotation 104 with area -1 and 2 more" in message
        assert len(message.splitlines()) == 5

    def test_the_message_stays_short_however_much_is_wrong(self) -> None:
        document = a_document()
        for change, _, _ in MALFORMED.values():
            single = a_document()
            change(single)
            for section in ("images", "annotations", "categories"):
                added = single.get(section)
                document[section] += added if isinstance(added, list) else []
        document["images"] += [{"id": 10**3000 + n, "file_name": "../" * 1000} for n in range(100)]
        message = problems_of(document)
        assert "more kinds of problems" in message
        assert len(message) < 10_000

    @pytest.mark.parametrize("document", [[], [{"image_id": 1, "bbox": [0, 0, 1, 1]}], 4, "text", None])
    def test_another_json_is_no_dataset(self, document: Any) -> None:
        assert "is not a COCO dataset: expected an object with the lists" in problems_of(document)

    @pytest.mark.parametrize(
        ("written", "found"),
        [
            (b"", "expected a json value near byte 0, got ''"),
            (b"not json", "near byte 0, got 'not json'"),
            (b'{"images": [{"id": 1,}]}', "near byte 12"),
            (b'{"images": [1 2]}', "expected ',' or ']' near byte 14, got '2]}'"),
            (b'{"images": []', "expected ',' or '}' near byte 13, got ''"),
            (b'{"images": []} {}', "expected the end of the file near byte 15"),
            (b'{"images" []}', "expected ':' near byte 10"),
            (b"{images: []}", "near byte 1"),
            (b'{"a": "' + b"\xff\xfe" + b'"}', "can't decode byte 0xff"),
            (b'{"a": ' + b"[" * 100_000, "near byte 6"),
            (b'{"a": ' + b"9" * 10_000 + b"}", "near byte 6"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not valid json"),
        ],
    )
    def test_a_file_that_is_not_json_is_refused_with_the_place(self, written: bytes, found: str) -> None:
        with pytest.raises(DatasetError, match="is not valid json") as caught:
            parse_coco(written, source="boats.json")
        assert found in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_a_list_that_appears_twice_is_refused(self) -> None:
        with pytest.raises(DatasetError, match="appears twice"):
            parse_coco(b'{"images": [], "images": []}', source="x")

    @given(data=st.data())
    @settings(max_examples=150)
    def test_damaged_bytes_are_read_or_refused_but_nothing_else(self, data: st.DataObject) -> None:
        written = bytearray(json.dumps(a_document()).encode())
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(written)))
            stop = start + data.draw(st.integers(0, 20))
            written[start:stop] = data.draw(st.binary(max_size=4) | st.sampled_from([b"{", b"]", b"-", b"1e999", b'"']))
        try:
            parse_coco(bytes(written), source="x")
        except DatasetError as error:
            assert len(str(error)) < 10_000

    @pytest.mark.slow
    @given(data=st.data())
    @settings(max_examples=150)
    def test_any_value_anywhere_is_read_or_refused_but_nothing_else(self, data: st.DataObject) -> None:
        numbers = st.integers() | st.floats() | st.integers(-3, 40)
        values = st.recursive(
            numbers | st.none() | st.booleans() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
            max_leaves=8,
        )
        document = a_document()
        for _ in range(data.draw(st.integers(1, 3))):
            section = data.draw(st.sampled_from(["images", "annotations", "categories"]))
            row = data.draw(st.sampled_from(document[section]))
            row[data.draw(st.sampled_from([*row, "segmentation"]))] = data.draw(values)
        try:
            dataset = parse(document)
        except DatasetError:
            return
        for table in (dataset.images, dataset.annotations, dataset.categories):
            assert type(table).from_arrow(table.to_arrow()).equals(table)


class TestFiles:
    @pytest.mark.parametrize(
        "name", ["a.jpg", "a/b/c.png", "..a/b..jpg", "möwe 🐦.jpg", "a b.jpg", "xy:z.jpg", "./a.jpg", "...jpg"]
    )
    def test_names_below_the_folder_are_fine(self, name: str) -> None:
        assert check_file_name(name) is None

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("", "is empty"),
            ("/etc/passwd", "is absolute"),
            ("../a.jpg", "leaves its folder"),
            ("a/../../b.jpg", "leaves its folder"),
            ("a/..", "leaves its folder"),
            ("..\\a.jpg", "separated by '/'"),
            ("C:/a.jpg", "starts with a drive"),
            ("c:a.jpg", "starts with a drive"),
            ("s3://bucket/a.jpg", "is a URI"),
            ("simplecache::a.jpg", "is a URI"),
            ("a\0.jpg", "control characters"),
            ("a\n.jpg", "control characters"),
            ("\udc80.jpg", "not valid Unicode"),
        ],
    )
    def test_other_names_are_not(self, name: str, reason: str) -> None:
        assert reason in str(check_file_name(name))

    def test_a_listing_is_a_dataset_sorted_by_name_with_names_as_ids(self) -> None:
        dataset = dataset_of_files(["b.jpg", "a/c.jpg", "a.jpg"], [3, 1, 2], ["v3", "v1", "v2"])
        assert dataset.images.image_id.tolist() == ["a.jpg", "a/c.jpg", "b.jpg"]
        assert dataset.images.file_name.tolist() == dataset.images.image_id.tolist()
        assert dataset.images.size.tolist() == [2, 1, 3]
        assert dataset.images.version.tolist() == ["v2", "v1", "v3"]
        assert not dataset.images.has_integer_id.any()
        assert len(dataset.annotations) == len(dataset.categories) == 0

    def test_an_empty_listing_is_an_empty_dataset(self) -> None:
        assert len(dataset_of_files([], [], []).images) == 0

    def test_a_listing_with_bad_names_is_refused_naming_them(self) -> None:
        with pytest.raises(DatasetError, match="more than once") as caught:
            dataset_of_files(["a.jpg", "../b.jpg", "a.jpg"], [1, 1, 1], ["", "", ""])
        assert "../b.jpg leaves its folder by '..'" in str(caught.value)


def a_federated_document() -> Document:
    document = a_document()
    document["images"][0] |= {"neg_category_ids": [5, 5], "not_exhaustive_category_ids": []}
    document["images"][1] |= {"neg_category_ids": [], "not_exhaustive_category_ids": [2.0, "5"]}
    return document


class TestFederatedLabels:
    def test_what_lvis_images_say_of_categories_is_a_table(self) -> None:
        labels = parse(a_federated_document()).federated_labels
        assert labels is not None
        assert labels.image_id.tolist() == ["7", "3", "3"]
        assert labels.category_id.tolist() == [5, 2, 5]
        assert labels.kind.tolist() == ["negative", "not_exhaustive", "not_exhaustive"]

    def test_images_that_say_nothing_make_no_table_and_empty_lists_an_empty_one(self) -> None:
        assert parse(a_document()).federated_labels is None
        assert dataset_of_files(["a.jpg"], [1], [""]).federated_labels is None
        document = a_document()
        for image in document["images"]:
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        labels = parse(document).federated_labels
        assert labels is not None
        assert len(labels) == 0

    def test_an_annotation_of_a_category_that_its_image_denies_is_told(self) -> None:
        document = a_federated_document()
        document["images"][1]["neg_category_ids"] = [5]
        told = {oddity.what: oddity.examples for oddity in parse(document).oddities}
        (denied,) = [examples for what, examples in told.items() if "neg_category_ids" in what]
        assert denied == ("annotation 21",)

    def test_they_are_selected_with_their_images(self) -> None:
        labels = select_images(parse(a_federated_document()), ["7"]).federated_labels
        assert labels is not None
        assert labels.image_id.tolist() == ["7"]

    @pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
    @pytest.mark.parametrize("row", [0, 1])
    def test_an_image_that_lacks_a_list_is_named(self, row: int, key: str) -> None:
        document = a_federated_document()
        del document["images"][row][key]
        message = problems_of(document)
        assert "lacks a list of federated labels" in message
        assert f"Found: image {(7, 3)[row]}" in message

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            (None, "neg_category_ids null"),
            (5, "neg_category_ids 5"),
            (["boat"], '["boat"]'),
            ([5, 99], "image 7 with 99"),
        ],
    )
    def test_a_list_of_anything_but_known_categories_is_named(self, value: Any, found: str) -> None:
        document = a_federated_document()
        document["images"][0]["neg_category_ids"] = value
        message = problems_of(document)
        assert "is not a list of ids of the file's categories" in message
        assert found in message


def without_masks(document: Document) -> Document:
    document = deepcopy(document)
    for annotation in document["annotations"]:
        annotation.pop("segmentation", None)
    return document


def a_full_document() -> Document:
    """Three annotations with masks, 0 to 2 of the list by number; ids 1, 2 and 3."""
    document = a_document()
    document["annotations"] = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": 5,
            "bbox": [0, 0, 3, 3],
            "segmentation": [[0, 0, side, 0, side, 4, 0, 4]],
        }
        for number, image_id, side in ((1, 7, 3), (2, 3, 5), (3, 7, 28))
    ]
    return document


def borrow(document: Document, full: Document, conventions: Conventions = "corrected") -> Dataset:
    masks = MaskFile(json.dumps(full).encode(), "full.json", conventions)
    return parse_coco(json.dumps(document).encode(), source="boats.json", masks_from=masks)


class TestBorrowedMasks:
    def test_annotations_without_a_mask_take_that_of_their_id(self) -> None:
        full = a_full_document()
        minival = without_masks(full)
        minival["annotations"] = minival["annotations"][1:]
        assert borrow(minival, full).annotations.equals(parse(full).annotations[1:])
        full["annotations"].reverse()
        assert borrow(minival, full).annotations.equals(parse(a_full_document()).annotations[1:])

    def test_masks_that_are_there_stay(self) -> None:
        full = a_full_document()
        own = deepcopy(full)
        own["annotations"][0]["segmentation"] = [SQUARE]
        del own["annotations"][2]["segmentation"]
        expected = deepcopy(full)
        expected["annotations"][0]["segmentation"] = [SQUARE]
        assert borrow(own, full).annotations.equals(parse(expected).annotations)

    def test_a_box_and_an_area_that_lack_are_those_of_the_borrowed_mask(self) -> None:
        minival = without_masks(a_full_document())
        del minival["annotations"][0]["bbox"]
        annotations = borrow(minival, a_full_document()).annotations
        assert annotations.box_xywh[0].tolist() == [0, 0, 3, 4]
        assert annotations.area[0] == 12

    def test_original_takes_the_id_for_a_position_whatever_lies_there(self) -> None:
        full = a_full_document()
        minival = without_masks(full)
        minival["annotations"] = minival["annotations"][:2]
        masks = borrow(minival, full, "original").annotations.mask_rle
        assert masks[0] == rle_from_polygons([[0, 0, 5, 0, 5, 4, 0, 4]], 20, 30)
        assert masks[1] == rle_from_polygons([[0, 0, 28, 0, 28, 4, 0, 4]], 10, 12), "another image's, reaching far out"

    def test_ids_without_a_mask_are_named(self) -> None:
        full = a_full_document()
        minival = without_masks(full)
        full["annotations"] = full["annotations"][:1]
        with pytest.raises(DatasetError, match=r"full.json(.|\n)*annotation of its id(.|\n)*Found: 2, 3$"):
            borrow(minival, full)
        with pytest.raises(DatasetError, match=r"full.json(.|\n)*position in the list(.|\n)*Found: 1, 2, 3$"):
            borrow(minival, full, "original")
        with pytest.raises(DatasetError, match=r"Found: 1, 2, 3$"):
            borrow(minival, without_masks(a_full_document()))

    def test_a_file_of_other_images_is_refused(self) -> None:
        full = a_full_document()
        minival = without_masks(full)
        full["annotations"][0]["image_id"] = 3
        with pytest.raises(DatasetError, match="annotation 1 of image 7 with image_id 3"):
            borrow(minival, full)

    @pytest.mark.parametrize(
        ("document", "reason"),
        [(b"{", "full.json is not valid json"), (b"[]", "full.json cannot be used"), (b"{}", "Found: 1, 2, 3")],
    )
    def test_what_is_wrong_with_the_file_is_reported_by_its_name(self, document: bytes, reason: str) -> None:
        minival = json.dumps(without_masks(a_full_document())).encode()
        with pytest.raises(DatasetError, match=reason):
            parse_coco(minival, source="boats.json", masks_from=MaskFile(document, "full.json"))

    def test_a_damaged_mask_is_named_and_what_is_not_asked_for_is_not_read(self) -> None:
        full = a_full_document()
        minival = without_masks(full)
        full["annotations"][2]["segmentation"] = "none"
        with pytest.raises(DatasetError, match=r"full.json(.|\n)*neither a list of polygons(.|\n)*annotation 3"):
            borrow(minival, full)
        del minival["annotations"][2]
        assert len(borrow(minival, full).annotations) == 2


class TestSelection:
    def test_images_are_selected_with_their_annotations_in_the_datasets_order(self) -> None:
        dataset = parse(a_document())
        both = select_images(dataset, ["3", "7"])
        assert equal(both, dataset)
        one = select_images(dataset, ["3"])
        assert one.images.image_id.tolist() == ["3"]
        assert one.annotations.annotation_id.tolist() == ["21"]
        assert one.categories.equals(dataset.categories)

    def test_unknown_ids_are_refused_naming_them(self) -> None:
        with pytest.raises(DatasetError, match="Found: 4, x"):
            select_images(parse(a_document()), ["x", "3", "4"])
