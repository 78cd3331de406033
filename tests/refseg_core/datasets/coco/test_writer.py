"""Exports: COCO json that other tools read back as exactly the labels."""

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.coco.writer import coco_dataset, coco_results, export_ids, json_array
from refseg_core.datasets.dataset import dataset_of_files
from refseg_core.masks.contours import polygons_of_mask
from refseg_core.masks.rle import Masks, Rle, decode_mask, encode_masks, rle_from_polygons
from refseg_core.tables import Categories, ExportedDetections, Images

small_masks = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**32 - 1), st.floats(0, 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[3]
)


def the_images(ids: tuple[int | str, ...] = (7, 3, 5)) -> Images:
    document = {
        "images": [{"id": image_id, "file_name": f"möwe {image_id}.jpg", "height": 20, "width": 30} for image_id in ids]
    }
    return parse_coco(json.dumps(document).encode(), source="x").images


def the_categories() -> Categories:
    return Categories(
        category_id=np.array([2, 9]),
        class_index=np.array([0, 1]),
        name=np.array(["bird", "boat"], dtype=object),
        frequency=np.array([None, None], dtype=object),
    )


def detections_of(
    image_ids: Iterable[str], scores: Iterable[float], seed: int = 0, first: int = 1
) -> ExportedDetections:
    """One blob per image id, in frames of 20 x 30."""
    generator = np.random.default_rng(seed)
    ids = list(image_ids)
    masks = np.zeros((len(ids), 20, 30), dtype=bool)
    boxes = []
    for mask in masks:
        y, x = generator.integers(0, 12), generator.integers(0, 20)
        mask[y : y + 6, x : x + 4] = True
        mask[y + 2 : y + 4, x : x + 8] = True
        boxes.append([x, y, x + 8, y + 6])
    category_ids = generator.choice([2, 9], len(ids))
    return ExportedDetections(
        image_id=np.array(ids, dtype=object),
        category_id=category_ids,
        score=np.array(list(scores), dtype=np.float32),
        predicted_iou=np.ones(len(ids)),
        box_xyxy=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        mask_rle=np.fromiter(encode_masks(masks), dtype=object, count=len(ids)),
        number=np.arange(first, first + len(ids)),
        instance_id=np.array([f"instance {number}" for number in range(len(ids))], dtype=object),
        file_name=np.array([f"möwe {image_id}.jpg" for image_id in ids], dtype=object),
        category_name=np.where(category_ids == 2, "bird", "boat").astype(object),
    )


def shards() -> list[ExportedDetections]:
    four, one = detections_of("7773", (0.9, 0.5, 0.3, 0.8)), detections_of("3", (0.1,), seed=1, first=5)
    return [four, ExportedDetections.empty(), one]


def written(pieces: Iterable[str]) -> Any:
    return json.loads("".join(pieces))


def dataset(**options: Any) -> Any:
    images = the_images()
    given = {"export_id": export_ids(images), "segmentation": Rle.to_coco} | options
    return written(coco_dataset(shards(), images, the_categories(), **given))


class TestResults:
    def test_a_row_holds_ids_box_score_and_mask(self) -> None:
        rows = list(coco_results(shards(), export_ids(the_images())))
        table = ExportedDetections.concatenate(shards())
        assert [row["image_id"] for row in rows] == [7, 7, 7, 3, 3]
        assert [row["category_id"] for row in rows] == table.category_id.tolist()
        assert [row["score"] for row in rows] == [float(score) for score in table.score], "float32 and no rounding"
        x1, y1, x2, y2 = table.box_xyxy[0].tolist()
        assert rows[0]["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert rows[0]["segmentation"] == table.mask_rle[0].to_coco()

    def test_original_boxes_are_one_pixel_smaller(self) -> None:
        corrected = [row["bbox"] for row in coco_results(shards(), export_ids(the_images()))]
        original = [row["bbox"] for row in coco_results(shards(), export_ids(the_images()), conventions="original")]
        assert np.array_equal(np.subtract(corrected, original), [[0, 0, 1, 1]] * 5)

    def test_other_images_are_left_out(self) -> None:
        rows = list(coco_results(shards(), export_ids(the_images((3, 5)))))
        assert [(row["image_id"], round(row["score"], 3)) for row in rows] == [(3, 0.8), (3, 0.1)]

    def test_pycocotools_reads_the_file(self) -> None:
        results = written(json_array(coco_results(shards(), export_ids(the_images()))))
        with contextlib.redirect_stdout(io.StringIO()):
            ground_truth = COCO()
            ground_truth.dataset = dataset() | {"annotations": []}
            ground_truth.createIndex()
            found = ground_truth.loadRes(results)
        assert [found.annToMask(row).sum() for row in found.loadAnns(found.getAnnIds())] == [32] * 5


class TestIds:
    def test_a_datasets_own_ids_are_written_as_it_writes_them(self) -> None:
        images = the_images((7, "0003", "a-1"))
        assert export_ids(images) == {"7": 7, "0003": "0003", "a-1": "a-1"}

    def test_a_plain_listing_is_numbered(self) -> None:
        images = dataset_of_files(["b.jpg", "a.jpg"], [1, 1], ["", ""]).images
        assert export_ids(images) == {"a.jpg": 1, "b.jpg": 2}

    def test_both_formats_agree(self) -> None:
        images = the_images((7, "3", "x"))
        export_id = export_ids(images)
        pieces = coco_dataset(shards(), images, the_categories(), export_id=export_id, segmentation=Rle.to_coco)
        document = written(pieces)
        of_dataset = [row["image_id"] for row in document["annotations"]]
        assert [row["image_id"] for row in coco_results(shards(), export_id)] == of_dataset
        assert set(of_dataset) <= {image["id"] for image in document["images"]}

    def test_a_listing_says_which_file_has_which_number(self) -> None:
        listing = dataset_of_files(["a.jpg"], [1], [""]).images
        export_id = export_ids(listing)
        document = written(coco_dataset([], listing, the_categories(), export_id=export_id, segmentation=Rle.to_coco))
        assert document["images"] == [{"id": 1, "file_name": "a.jpg", "height": 0, "width": 0}]


class TestDataset:
    def test_it_lists_all_images_and_categories_and_the_annotations_with_scores(self) -> None:
        document = dataset(info={"description": "möwen"})
        assert list(document) == ["info", "images", "categories", "annotations"]
        assert document["info"] == {"description": "möwen"}
        assert [image["id"] for image in document["images"]] == [7, 3, 5]
        assert document["images"][0] == {"id": 7, "file_name": "möwe 7.jpg", "height": 20, "width": 30}
        assert [(category["id"], category["name"]) for category in document["categories"]] == [(2, "bird"), (9, "boat")]
        first = document["annotations"][0]
        assert first["id"] == 1
        assert first["score"] == float(np.float32(0.9))
        assert first["area"] == decode_mask(shards()[0].mask_rle[0]).sum() == 32
        assert first["iscrowd"] == 0

    def test_ids_are_those_of_the_rows(self) -> None:
        assert [row["id"] for row in dataset()["annotations"]] == [1, 2, 3, 4, 5]
        assert [row["refseg_id"] for row in dataset()["annotations"]][-2:] == ["instance 3", "instance 0"]

    def test_read_back_it_is_the_labels(self) -> None:
        read = parse_coco(json.dumps(dataset()).encode(), source="x")
        table = ExportedDetections.concatenate(shards())
        assert read.images.equals(the_images())
        assert read.categories.equals(the_categories())
        assert read.annotations.image_id.tolist() == table.image_id.tolist()
        assert read.annotations.mask_rle.tolist() == table.mask_rle.tolist()
        corners = read.annotations.box_xywh + np.pad(read.annotations.box_xywh[:, :2], ((0, 0), (2, 0)))
        assert np.array_equal(corners, table.box_xyxy)

    def test_as_polygons_it_has_the_same_masks(self) -> None:
        document = dataset(segmentation=lambda mask: polygons_of_mask(decode_mask(mask)))
        assert isinstance(document["annotations"][0]["segmentation"][0], list)
        read = parse_coco(json.dumps(document).encode(), source="x")
        assert read.annotations.mask_rle.tolist() == ExportedDetections.concatenate(shards()).mask_rle.tolist()

    def test_of_nothing_it_is_an_empty_dataset(self) -> None:
        document = written(coco_dataset([], Images.empty(), Categories.empty(), export_id={}, segmentation=Rle.to_coco))
        assert document == {"info": {}, "images": [], "categories": [], "annotations": []}


class TestText:
    @pytest.mark.parametrize("num_rows", [0, 1, 255, 256, 257, 512, 1000])
    def test_the_pieces_join_to_one_list(self, num_rows: int) -> None:
        rows = [{"number": number, "text": 'ä "quoted"'} for number in range(num_rows)]
        pieces = list(json_array(iter(rows)))
        assert written(pieces) == rows
        assert max(piece.count("\n") for piece in pieces) <= 256

    def test_pieces_come_before_all_rows_are_there(self) -> None:
        def endless() -> Iterable[dict[str, Any]]:
            while True:
                yield {}

        assert next(iter(json_array(endless()))).startswith("[{}")

    def test_shards_are_taken_one_after_the_other(self) -> None:
        taken = []

        def reading() -> Iterable[ExportedDetections]:
            for number in range(3):
                taken.append(number)
                yield detections_of("7" * 300, [0.5] * 300)

        images = the_images()
        pieces = coco_dataset(
            reading(), images, the_categories(), export_id=export_ids(images), segmentation=Rle.to_coco
        )
        while "score" not in next(pieces):
            pass
        assert taken == [0]

    def test_what_json_cannot_say_is_not_written(self) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            list(json_array([{"score": float("nan")}]))


def with_holes_filled(mask: Masks) -> Masks:
    """By flooding the outside, through corners too, pixel by pixel."""
    outside = np.zeros(np.add(mask.shape, 2), dtype=bool)
    padded = np.pad(mask, 1)
    waiting = [(0, 0)]
    while waiting:
        y, x = waiting.pop()
        if 0 <= y < outside.shape[0] and 0 <= x < outside.shape[1] and not outside[y, x] and not padded[y, x]:
            outside[y, x] = True
            waiting += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return ~outside[1:-1, 1:-1]


def rasterized(polygons: list[list[int]], mask: Masks) -> Masks:
    return decode_mask(rle_from_polygons(polygons, *mask.shape))


class TestPolygons:
    @pytest.mark.slow
    @given(mask=small_masks)
    @settings(max_examples=300)
    @example(mask=np.eye(4, dtype=bool))
    @example(mask=np.eye(4, dtype=bool)[::-1])
    @example(mask=np.ones((1, 1), dtype=bool))
    @example(mask=np.indices((8, 9)).sum(axis=0) % 2 == 0)
    def test_rasterized_again_they_are_the_mask_with_holes_filled(self, mask: Masks) -> None:
        polygons = polygons_of_mask(mask)
        if not mask.any():
            assert polygons == []
            return
        assert np.array_equal(rasterized(polygons, mask), with_holes_filled(mask))

    @given(mask=small_masks)
    @settings(max_examples=100)
    def test_without_holes_they_are_exactly_the_mask_one_polygon_per_component(self, mask: Masks) -> None:
        solid = with_holes_filled(mask)
        polygons = polygons_of_mask(solid)
        covered = np.zeros(solid.shape, dtype=int)
        for polygon in polygons:
            covered += rasterized([polygon], solid)
        assert np.array_equal(covered, solid.astype(int))

    @given(mask=small_masks)
    @settings(max_examples=100)
    def test_edges_alternate_between_rows_and_columns_along_the_masks_border(self, mask: Masks) -> None:
        padded = np.pad(mask, 1)
        for polygon in polygons_of_mask(mask):
            points = np.array(polygon).reshape(-1, 2)
            steps = np.roll(points, -1, axis=0) - points
            assert len(points) % 2 == 0
            assert (steps[0::2, 1] == 0).all()
            assert (steps[1::2, 0] == 0).all()
            assert (np.abs(steps).sum(axis=1) > 0).all()
            for (x, y), (dx, _) in zip(points[0::2], steps[0::2], strict=True):
                column = min(x, x + dx) + 1
                assert padded[y, column] != padded[y + 1, column]

    def test_a_square_is_four_corners(self) -> None:
        mask = np.zeros((5, 6), dtype=bool)
        mask[1:3, 2:6] = True
        assert polygons_of_mask(mask) == [[2, 1, 6, 1, 6, 3, 2, 3]]

    def test_components_are_polygons_also_where_they_touch_at_a_point(self) -> None:
        mask = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=bool)
        corners = [(0, 0), (1, 1), (0, 2), (2, 2)]
        assert polygons_of_mask(mask) == [[x, y, x + 1, y, x + 1, y + 1, x, y + 1] for x, y in corners]

    def test_a_hole_is_filled(self) -> None:
        ring = np.ones((3, 3), dtype=bool)
        ring[1, 1] = False
        assert polygons_of_mask(ring) == [[0, 0, 3, 0, 3, 3, 0, 3]]

    @pytest.mark.real
    def test_real_masks_survive(self, shared: Path) -> None:
        path = shared / "data" / "coco_tiny" / "annotations" / "instances_val2017.json"
        for rle in parse_coco(path.read_bytes(), source="x").annotations.mask_rle[::8]:
            mask = decode_mask(rle)
            again = rasterized(polygons_of_mask(mask), mask)
            assert (again >= mask).all()
            assert np.array_equal(rasterized(polygons_of_mask(again), again), again)
