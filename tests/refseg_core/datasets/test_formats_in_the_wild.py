"""What each format's files look like in the wild: what is tolerated, what is left out, what is refused and how."""

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.datasets.builder import NamedFile
from refseg_core.datasets.class_names import read_class_names
from refseg_core.datasets.cvat import read_cvat
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.datasets.labelme import read_labelme
from refseg_core.datasets.mask_images import read_masks
from refseg_core.datasets.oddities import Oddity
from refseg_core.datasets.pascal_voc import read_voc
from refseg_core.datasets.values.safe_xml import XmlError, parse_xml
from refseg_core.datasets.yolo.reader import read_yolo as read_yolo_files
from refseg_core.errors import DatasetError, ImageError, Problems
from refseg_core.images import decode_values, image_header
from refseg_core.masks.rle import decode_mask, encode_masks, mask_areas, rle_from_polygons, rle_of_part, union_of
from tests.support.samples import png

IMAGES = ImageNames(["a.jpg", "b.jpg"])


class Files:
    """A folder of annotation files in memory, with the sizes of their images."""

    def __init__(self, files: Sequence[NamedFile], sizes: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.files = files
        self.sizes = sizes or {}

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]

    def __iter__(self) -> Iterator[NamedFile]:
        return iter(self.files)

    def image_sizes(self, images: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {image: self.sizes[image] for image in images}


def problems_of(read: Callable[[], Dataset]) -> str:
    with pytest.raises(DatasetError) as caught:
        read()
    message = str(caught.value)
    assert len(message) < 10_000
    return message


# --- PASCAL VOC -------------------------------------------------------------------------------------------------------


def voc(*objects: str, size: str = "<size><width>100</width><height>50</height></size>") -> NamedFile:
    return NamedFile("a.xml", f"<annotation>{size}{''.join(objects)}</annotation>".encode())


def an_object(name: str = "boat", box: Sequence[Any] = (1, 1, 10, 5), more: str = "") -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{more}</object>"


def read_one_voc(file: NamedFile) -> Dataset:
    return read_voc([file], IMAGES, source="voc")


SEVEN = "".join(f"<{axis}>{at}</{axis}>" for at, axis in enumerate(("x1", "y1", "x2", "y2", "x3", "y3", "x4")))


class TestVoc:
    def test_corners_in_the_wrong_order_are_named_as_they_are_written(self) -> None:
        message = problems_of(lambda: read_one_voc(voc(an_object(box=(60, 1, 10, 5)))))
        assert "<bndbox> has xmax under xmin or ymax under ymin: correct it. Found: a.xml#1 with [60.0, 1.0" in message

    def test_pixels_count_from_one_and_the_last_is_included(self) -> None:
        annotations = read_one_voc(voc(an_object(box=(1, 1, 10, 5)), an_object(box=(100, 50, 100, 50)))).annotations
        assert annotations.box_xywh.tolist() == [[0, 0, 10, 5], [99, 49, 1, 1]]
        assert annotations.area.tolist() == [50, 1]

    @pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("true", "false"), (" True ", "False")])
    def test_difficult_objects_are_crowds(self, yes: str, no: str) -> None:
        objects = (an_object(more=f"<difficult>{flag}</difficult>") for flag in (yes, no))
        dataset = read_one_voc(voc(*objects))
        assert dataset.annotations.is_crowd.tolist() == [True, False]
        told = [] if yes == "1" else [(f"a.xml#1: difficult is {yes.strip()}",)]
        assert [oddity.examples for oddity in dataset.oddities] == told

    def test_parts_of_objects_are_not_objects(self) -> None:
        part = "<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part>"
        assert read_one_voc(voc(an_object("person", more=part))).categories.name.tolist() == ["person"]

    def test_without_a_size_there_are_boxes_still(self) -> None:
        dataset = read_one_voc(voc(an_object(), size=""))
        assert dataset.images.height.tolist() == [0]
        assert len(dataset.annotations) == 1

    def test_the_image_is_the_named_one_or_that_of_the_same_name(self) -> None:
        named = NamedFile("x/1.xml", b"<annotation><filename>b.jpg</filename></annotation>")
        assert read_one_voc(named).images.image_id.tolist() == ["b.jpg"]
        renamed = NamedFile("a.xml", b"<annotation><filename>IMG_1.JPG</filename></annotation>")
        assert read_one_voc(renamed).images.image_id.tolist() == ["a.jpg"]

    @pytest.mark.parametrize(
        ("file", "kind", "offender"),
        [
            (voc(an_object(box=(1, 1, "x", 5))), "has no numbers xmin", "a.xml#1 with ['1', '1', 'x', '5']"),
            (voc(an_object(box=(1, 1, "1_0", 5))), "has no numbers xmin", "'1_0'"),
            (voc("<object><name>boat</name></object>"), "has no numbers xmin", "a.xml#1"),
            (voc(an_object(box=(9, 1, 1, 5))), "xmax under xmin", "a.xml#1"),
            (voc(an_object(box=("nan", 1, 1, 5))), "not four finite numbers", "a.xml#1"),
            (voc(an_object(box=(500, 1, 600, 5))), "wholly outside its image", "a.xml#1"),
            (voc(an_object(name=" ")), "has no label", "a.xml#1"),
            (voc(an_object(more="<polygon><x1>1</x1><y1>1</y1></polygon>")), "<polygon> has no numbers", "a.xml#1"),
            (voc(an_object(more=f"<polygon>{SEVEN}</polygon>")), "<polygon> has no numbers", "a.xml#1 with 7 numbers"),
            (voc(size="<size><width>\u0661\u0660</width></size>"), "<size> has no whole numbers", "a.xml"),
            (voc(size="<size><width>wide</width></size>"), "<size> has no whole numbers", "['0', 'wide']"),
            (NamedFile("a.xml", b"<annotation>"), "is not XML", "a.xml: no element found"),
            (NamedFile("a.xml", b""), "is not XML", "a.xml"),
            (NamedFile("a.xml", b"<html/>"), "no PASCAL VOC annotation", "a.xml with <html>"),
            (NamedFile("z.xml", b"<annotation/>"), "has no image", "z.xml"),
        ],
    )
    def test_a_malformed_file_is_refused_with_what_and_where(self, file: NamedFile, kind: str, offender: str) -> None:
        message = problems_of(lambda: read_one_voc(file))
        line = next(line for line in message.splitlines() if kind in line)
        assert offender in line

    def test_all_bad_files_are_reported_together(self) -> None:
        files = [NamedFile("a.xml", b"<"), NamedFile("b.xml", b"<html/>"), NamedFile("c.xml", b"<annotation/>")]
        message = problems_of(lambda: read_voc(files, IMAGES, source="folder"))
        assert message.startswith("folder cannot be used; 3 problems:\n")

    def test_two_files_of_one_image_are_refused(self) -> None:
        files = [voc(), NamedFile("x.xml", b"<annotation><filename>a.jpg</filename></annotation>")]
        message = problems_of(lambda: read_voc(files, IMAGES, source="x"))
        assert "an image is annotated in more than one place" in message
        assert "a.jpg in a.xml and x.xml" in message


class TestXml:
    @pytest.mark.parametrize(
        "declaration",
        [
            '<!DOCTYPE a [<!ENTITY x "y">]>',
            '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>',
        ],
    )
    def test_document_types_and_their_entities_are_refused(self, declaration: str) -> None:
        with pytest.raises(XmlError, match="declares a document type"):
            parse_xml(f"{declaration}<a>&x;</a>".encode())

    @pytest.mark.parametrize(
        "document", [b"", b"<a>", b"<a>&x;</a>", b"\xff", b"<?xml version='1.0' encoding='no'?><a/>"]
    )
    def test_what_is_not_well_formed_is_refused(self, document: bytes) -> None:
        with pytest.raises(XmlError):
            parse_xml(document)


# --- YOLO -------------------------------------------------------------------------------------------------------------


def read_yolo(
    text: str | bytes, size: tuple[int, int] = (64, 128), keypoints: tuple[int, int] | None = None
) -> Dataset:
    data = text if isinstance(text, bytes) else text.encode()
    files = Files([NamedFile("a.txt", data)], {"a.jpg": size})
    return read_yolo_files(files, IMAGES, source="yolo", classes=["bar", "box"], keypoints=keypoints)


BOX = "1 0.5 0.5 0.25 0.5"  # [48, 16, 32, 32]


class TestYolo:
    def test_empty_lines_and_byte_order_marks_do_not_matter(self) -> None:
        annotations = read_yolo("\ufeff\n1 0.5 0.5 0.25 0.5\r\n\n").annotations
        assert annotations.annotation_id.tolist() == ["a.txt#2"]
        assert annotations.box_xywh.tolist() == [[48, 16, 32, 32]]

    def test_two_files_of_one_image_are_refused(self) -> None:
        named = [NamedFile("labels/a.txt", BOX.encode()), NamedFile("annotations/a.txt", b"")]
        files = Files(named, {"a.jpg": (64, 128)})
        message = problems_of(lambda: read_yolo_files(files, IMAGES, source="x", classes=["bar", "box"]))
        assert "a.jpg in labels/a.txt and annotations/a.txt" in message

    def test_images_without_a_file_are_there(self) -> None:
        assert read_yolo("").images.image_id.tolist() == ["a.jpg", "b.jpg"]

    def test_an_oriented_box_is_a_polygon(self) -> None:
        annotations = read_yolo("0 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75").annotations
        assert annotations.box_xywh.tolist() == [[32, 16, 32, 32]]
        assert mask_areas(list(annotations.mask_rle)) == [32 * 32]

    @pytest.mark.parametrize("more", ["0.9", "7", "0.9 1", "0.25 12", "1 0", "1 0.9", "12 0.25", "0 1"])
    def test_a_confidence_and_the_number_of_a_track_follow_boxes(self, more: str) -> None:
        dataset = read_yolo(f"{BOX} {more}\n0 0.25 0.5 0.5 0.25 {more}")
        assert dataset.annotations.box_xywh.tolist() == [[48, 16, 32, 32], [0, 24, 64, 16]]
        assert dataset.annotations.mask_rle.tolist() == [None, None]
        (oddity,) = dataset.oddities
        assert oddity.what.startswith("files whose boxes are followed by a confidence")
        assert (oddity.count, oddity.examples) == (1, ("a.txt",))

    def test_of_a_tracker_some_lines_lack_the_number(self) -> None:
        for scored in (f"{BOX} 0.9 3\n{BOX} 0.8", f"{BOX} 3 0.9\n{BOX} 4 1\n{BOX} 0.8"):
            boxes = read_yolo(scored).annotations.box_xywh.tolist()
            assert boxes == [[48, 16, 32, 32]] * len(boxes)

    def test_triangles_stay_triangles(self) -> None:
        dataset = read_yolo("0 0.25 0.25 0.5 0.25 0.5 0.75\n0 0 0 1 0 1 1")
        assert dataset.annotations.box_xywh.tolist() == [[32, 16, 32, 32], [0, 0, 128, 64]]
        assert dataset.annotations.has_mask.all()
        assert dataset.oddities == dataset.readings == ()

    @pytest.mark.parametrize(("shape", "numbers"), [((7, 2), 14), ((4, 3), 12), ((17, 3), 51)])
    @pytest.mark.parametrize("more", ["", " 0.9", " 0.9 3"])
    def test_with_keypoints_the_box_before_them_is_read(self, shape: tuple[int, int], numbers: int, more: str) -> None:
        pose = " ".join(["0.5", "0.75", "2"] * numbers)[: 4 * numbers]
        dataset = read_yolo(f"{BOX} {' '.join(pose.split()[:numbers])}{more}\n{BOX}", keypoints=shape)
        assert dataset.annotations.box_xywh.tolist() == [[48, 16, 32, 32]] * 2
        assert not dataset.annotations.has_mask.any()
        assert [oddity.what for oddity in dataset.oddities] == list(dataset.readings)
        assert "the boxes are read" in dataset.readings[0]

    POSE = "0 .5 .6 .2 .3 .45 .5 .55 .7 .5 .74 0 0"  # a box and keypoints, one of them not marked
    SEEN = "0 .5 .6 .2 .3 .45 .5 1 .55 .7 0 .5 .74 1 .48 .55 1"

    @pytest.mark.parametrize("pose", [POSE, SEEN])
    def test_many_lines_that_look_like_poses_are_refused_and_few_are_told(self, pose: str) -> None:
        message = problems_of(lambda: read_yolo("\n".join([pose] * 3)))
        assert "3 x lines that look like boxes with keypoints within them" in message and "a.txt#1" in message
        (oddity,) = read_yolo(f"{pose}\n{pose}").oddities
        assert (oddity.count, oddity.examples[0]) == (2, "a.txt#1")

    def test_two_keypoints_of_two_numbers_are_told_and_oriented_boxes_are_not(self) -> None:
        (oddity,) = read_yolo("0 .35 .45 .3 .5 .3 .3 .4 .4\n1 .75 .7 .3 .4 .7 .7 .8 .8").oddities
        assert oddity.count == 2 and "add kpt_shape" in oddity.what
        assert read_yolo("\n".join(["0 .3 .3 .6 .5 .5 .65 .2 .45"] * 3)).oddities == ()

    @pytest.mark.parametrize("other", [BOX, "0 .1 .1 .4 .1 .4 .4", "0 .1 .1 .4 .1 .4 .4 .3 .5 .2 .5 .1 .3"])
    def test_polygons_are_not_taken_for_poses(self, other: str) -> None:
        assert read_yolo("\n".join([*[self.POSE] * 3, other])).oddities == ()
        near_the_middle = "0 .5 .5 .4 .4 .45 .45 .6 .5 .55 .6 .52 .58"
        assert read_yolo("\n".join([near_the_middle] * 3)).oddities == ()

    def test_with_keypoints_other_numbers_are_refused(self) -> None:
        message = problems_of(lambda: read_yolo(f"{BOX} 0.5 0.5 0.5", keypoints=(7, 2)))
        assert "kpt_shape in data.yaml asks for" in message
        assert "a.txt#1" in message

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("0 0.5 0.5 0.5", "is neither 'class"),
            ("0 0.5 0.5 0.5 0.5 0.9\n0 0.5 0.5 0.5 0.5", "is neither 'class"),
            ("0 0.5 0.5 0.5 0.5 0.9\n0 0.1 0.1 0.5 0.1 0.5 0.9", "is neither 'class"),
            ("0 0.5 0.5 0.5 0.5 0.9\n0 0.1 0.1 0.5 0.1 0.5 0.9 0.3 0.3", "is neither 'class"),
            ("0 .1 .1 .4 .1 .4 .4 .2 .3 .9", "is neither 'class"),
            ("0 .5 .5 .2 .2 .4 .4 2 .6 .6 1", "if these are keypoints, add kpt_shape"),
            ("0 .1 .1 .2 .2 .3 .3 .4", "is neither 'class"),
            ("boat 0.5 0.5 0.5 0.5", "is neither 'class"),
            ("0 .3_5 .5 .5 .5", "is neither 'class"),
            ("0 .\u0665 .5 .5 .5", "is neither 'class"),
            ("0 nan 0.5 0.5 0.5", "is neither 'class"),
            ("0 inf 0.5 0.5 0.5", "is neither 'class"),
            ("0 .5 .5 .2 .2 .9 1\n0 .5 .5 .2 .2", "is a box with a confidence and a track's number, or a triangle"),
            ("0 .5 .5 .2 .2 1 .9\n0 .5 .5 .2 .2", "is a box with a confidence and a track's number, or a triangle"),
            ("0 .5 .5 .2 .2 3 .9\n0 .5 .5 .2 .2 .9 3", "are not fractions"),
            ("2 0.5 0.5 0.5 0.5", "is not the number, from 0, of a name"),
            ("-1 0.5 0.5 0.5 0.5", "is not the number, from 0, of a name"),
            ("0.5 0.5 0.5 0.5 0.5", "is not the number, from 0, of a name"),
            ("0 60 30 20 10", "are not fractions"),
            ("0 .5 .5 -.05 .5", "not four finite numbers"),
            (b"\xff\xfe\x00", "is not text"),
        ],
    )
    def test_a_malformed_line_is_refused_with_its_number(self, text: str | bytes, kind: str) -> None:
        line = next(line for line in problems_of(lambda: read_yolo(text)).splitlines() if kind in line)
        assert "a.txt" in line
        assert isinstance(text, bytes) or "a.txt#1" in line

    def test_an_image_without_a_size_is_named_where_it_has_labels(self) -> None:
        assert "Found: a.jpg" in problems_of(lambda: read_yolo("0 .5 .5 .1 .1", (0, 0)))
        assert len(read_yolo("\n", (0, 0)).annotations) == 0


# --- labelme ----------------------------------------------------------------------------------------------------------


def shape(kind: str, points: Any, label: Any = "boat", **more: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points, **more}


def read_shapes(*shapes: Any, **more: Any) -> Dataset:
    document = {"shapes": list(shapes), "imageHeight": 40, "imageWidth": 60} | more
    return read_labelme([NamedFile("a.json", json.dumps(document).encode())], IMAGES, source="labelme")


TRIANGLE = [[10, 10], [30, 10], [10, 30]]
MASK = base64.b64encode(png(np.full((4, 6), 255, dtype=np.uint8))).decode()


class TestLabelme:
    def test_shapes_of_one_label_and_group_are_one_instance(self) -> None:
        polygons = [shape("polygon", [[x, 5], [x + 4, 5], [x + 4, 9]], group_id=3) for x in (5, 25)]
        other = shape("polygon", TRIANGLE, "bird", group_id=3)
        annotations = read_shapes(polygons[0], other, polygons[1], shape("polygon", TRIANGLE)).annotations
        assert annotations.annotation_id.tolist() == ["a.json#1", "a.json#2", "a.json#4"]
        assert annotations.box_xywh[0].tolist() == [5, 5, 24, 4]
        outlines = [[axis for point in one["points"] for axis in point] for one in polygons]
        assert annotations.mask_rle[0] == rle_from_polygons(outlines, 40, 60)

    def test_a_mask_and_a_polygon_of_one_group_are_one_mask(self) -> None:
        mask = shape("mask", [[40, 20], [45, 23]], mask=MASK, group_id=1)
        annotations = read_shapes(mask, shape("polygon", TRIANGLE, group_id=1)).annotations
        alone = read_shapes(shape("polygon", TRIANGLE)).annotations.area[0]
        assert annotations.area.tolist() == [24 + alone]
        assert annotations.box_xywh.tolist() == [[10, 10, 36, 19]]  # COCO's rasterizer ends the triangle a row early

    def test_a_rectangle_is_a_box_whichever_corners_are_given(self) -> None:
        annotations = read_shapes(shape("rectangle", [[30, 4], [10, 24]])).annotations
        assert annotations.box_xywh.tolist() == [[10, 4, 20, 20]]
        assert annotations.mask_rle.tolist() == [None]

    @pytest.mark.parametrize("kind", ["rectangle", "rotation", "quadrilateral"])
    def test_four_points_along_the_sides_are_a_box(self, kind: str) -> None:
        annotations = read_shapes(shape(kind, [[30, 4], [10, 4], [10, 24], [30, 24]], direction=0)).annotations
        assert annotations.box_xywh.tolist() == [[10, 4, 20, 20]]
        assert annotations.mask_rle.tolist() == [None]

    @pytest.mark.parametrize("kind", ["rectangle", "rotation"])
    def test_four_points_that_are_turned_are_a_polygon(self, kind: str) -> None:
        annotations = read_shapes(shape(kind, [[30, 4], [40, 14], [30, 24], [20, 14]], direction=0.785)).annotations
        assert annotations.box_xywh.tolist() == [[20, 4, 20, 20]]
        assert annotations.area[0] == pytest.approx(200, rel=0.06)

    def test_a_circle_is_round(self) -> None:
        (area,) = read_shapes(shape("circle", [[30, 20], [40, 20]])).annotations.area
        assert area == pytest.approx(math.pi * 100, rel=0.03)

    def test_what_has_no_area_is_left_out_with_its_count_and_places(self) -> None:
        shapes = [shape("point", [[1, 1]]), shape("line", [[1, 1], [2, 2]]), shape("point", [[2, 2]])]
        dataset = read_shapes(*shapes, shape("polygon", TRIANGLE))
        assert dataset.annotations.annotation_id.tolist() == ["a.json#4"]
        assert dataset.oddities == (
            Oddity("shapes of the kind 'point', which mark no area: left out", 2, ("a.json#1", "a.json#3")),
            Oddity("shapes of the kind 'line', which mark no area: left out", 1, ("a.json#2",)),
        )

    def test_a_mask_beyond_the_image_is_cut_off(self) -> None:
        assert read_shapes(shape("mask", [[57, 38], [62, 41]], mask=MASK)).annotations.area.tolist() == [6]

    @pytest.mark.parametrize(
        ("bad", "kind"),
        [
            (shape("polygon", [[1, 1], [2, 2]]), "has not the points"),
            (shape("polygon", [[1, 1], [2, 2], ["x", 1]]), "has not the points"),
            (shape("polygon", [[1, 1], [2, 2], [math.nan, 1]]), "has not the points"),
            (shape("polygon", [[1, 1], [2, 2], [3]]), "has not the points"),
            (shape("polygon", None), "has not the points"),
            (shape("rectangle", TRIANGLE), "has not the points"),
            (shape("cuboid", TRIANGLE), "has not the points"),
            (shape("polygon", TRIANGLE, label=None), "has no label"),
            (shape("mask", [[1, 1], [2, 2]], mask="no base64!"), "no PNG in base64"),
            (shape("mask", [[1, 1], [2, 2]], mask=base64.b64encode(b"no png").decode()), "no PNG in base64"),
            (shape("mask", [[1, 1], [2, 2]]), "no PNG in base64"),
            (shape("mask", [[500, 1], [2, 2]], mask=MASK), "span another size than its mask"),
            (shape("mask", [[1, 1], [7, 4]], mask=MASK), None),
            (shape("mask", [[1, 1], [9, 4]], mask=MASK), "span another size than its mask"),
            (shape("polygon", [[1, 1], [2, 1], [1e9, 5]]), "further outside its image"),
            ("shape", "has not the points"),
        ],
    )
    def test_a_malformed_shape_is_refused_with_its_number(self, bad: Any, kind: str | None) -> None:
        if kind is None:
            assert read_shapes(bad).annotations.area.tolist() == [24]
            return
        line = next(line for line in problems_of(lambda: read_shapes(bad)).splitlines() if kind in line)
        assert "a.json#1" in line

    def test_polygons_need_the_image_size(self) -> None:
        message = problems_of(lambda: read_shapes(shape("polygon", TRIANGLE), imageHeight=None))
        assert "add width and height" in message

    @pytest.mark.parametrize("group", [None, "", -1, 0, 3])
    def test_shapes_of_a_group_are_one_instance_and_those_of_none_are_not(self, group: Any) -> None:
        shapes = [shape("rectangle", [[x, 4], [x + 5, 9]], group_id=group) for x in (1, 20)]
        dataset = read_shapes(*shapes)
        assert len(dataset.annotations) == (1 if group in (0, 3) else 2)
        assert len(dataset.readings) == (group in ("", -1))

    @pytest.mark.parametrize(
        ("far", "kind"),
        [(10**30, "mask with any pixel"), (-(10**30), "mask with any pixel"), (1e300, "span another size")],
    )
    def test_a_mask_far_beyond_the_image_has_no_pixel(self, far: float, kind: str) -> None:
        given = shape("mask", [[far, 1], [far + 5, 4]], mask=MASK)
        assert kind in problems_of(lambda: read_shapes(given))

    @pytest.mark.parametrize("kind", ["circle", "rectangle"])
    def test_numbers_larger_than_any_float_are_refused(self, kind: str) -> None:
        message = problems_of(lambda: read_shapes(shape(kind, [[1, 1], [10**400, 2]])))
        assert "each [x, y] of finite numbers" in message

    @pytest.mark.parametrize("document", [b"{", b"[]", b"{}", b'{"shapes": {}}', b"[" * 100_000, b"\xff"])
    def test_another_file_is_no_labelme(self, document: bytes) -> None:
        read = problems_of(lambda: read_labelme([NamedFile("a.json", document)], IMAGES, source="x"))
        assert "a.json" in read


# --- CVAT -------------------------------------------------------------------------------------------------------------


def cvat(*shapes: str, image: str = '<image name="a.jpg" width="60" height="40">', meta: str = "") -> bytes:
    return f"<annotations>{meta}{image}{''.join(shapes)}</image></annotations>".encode()


def read_shapes_of_cvat(*shapes: str) -> Dataset:
    return read_cvat(cvat(*shapes), source="annotations.xml")


class TestCvat:
    @pytest.mark.parametrize("outside", ["1", "true", "True", "1.0"])
    def test_shapes_that_are_outside_are_not_there(self, outside: str) -> None:
        box = '<box label="boat" outside="{}" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        dataset = read_shapes_of_cvat(box.format("false"), box.format("0"), box.format(outside))
        assert len(dataset.annotations) == 2
        assert len(dataset.oddities) == len(dataset.readings) == (outside != "1")

    def test_an_image_twice_is_refused_with_both_places(self) -> None:
        image = '<image name="a.jpg" width="60" height="40"></image>'
        document = f"<annotations>{image * 2}</annotations>".encode()
        assert "a.jpg in image number 1 and image number 2" in problems_of(lambda: read_cvat(document, source="x"))

    def test_a_rotated_box_is_a_polygon(self) -> None:
        box = '<box label="boat" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90.0"/>'
        annotations = read_shapes_of_cvat(box).annotations
        assert annotations.box_xywh[0] == pytest.approx([25, 5, 10, 20])
        mask = decode_mask(annotations.mask_rle[0])
        assert mask[5:25, 25:35].all()
        assert mask.sum() == 200

    def test_rotation_is_clockwise(self) -> None:
        box = '<box label="boat" xtl="20" ytl="18" xbr="40" ybr="22" rotation="45"/>'
        mask = decode_mask(read_shapes_of_cvat(box).annotations.mask_rle[0])
        assert mask[25, 35]
        assert not mask[15, 35]

    def test_an_ellipse_is_round(self) -> None:
        annotations = read_shapes_of_cvat('<ellipse label="boat" cx="30" cy="20" rx="20" ry="10"/>').annotations
        assert annotations.area[0] == pytest.approx(math.pi * 200, rel=0.03)
        assert annotations.box_xywh[0] == pytest.approx([10, 10, 40, 20])

    def test_what_is_outside_is_not_there(self) -> None:
        box = '<box label="boat" outside="{}" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        assert len(read_shapes_of_cvat(box.format(0), box.format(1)).annotations) == 1

    @pytest.mark.parametrize("group", ["", "-1", "0", "3"])
    def test_an_empty_group_is_none(self, group: str) -> None:
        boxes = [f'<box label="boat" group_id="{group}" xtl="{x}" ytl="1" xbr="9" ybr="9"/>' for x in (1, 5)]
        assert len(read_shapes_of_cvat(*boxes).annotations) == (1 if group == "3" else 2)

    def test_shapes_of_one_group_are_one_instance(self) -> None:
        polygon = '<polygon label="{}" group_id="{}" points="{},5;9,5;9,9"/>'
        shapes = [polygon.format("boat", 1, 1), polygon.format("boat", 1, 3), polygon.format("boat", 0, 5)]
        annotations = read_shapes_of_cvat(*shapes, polygon.format("boat", 0, 5)).annotations
        assert annotations.annotation_id.tolist() == ["a.jpg#1", "a.jpg#3", "a.jpg#4"]

    def test_what_has_no_area_is_left_out_with_its_count_and_places(self) -> None:
        dataset = read_shapes_of_cvat('<tag label="x"/>', '<points label="x" points="1,2"/>')
        assert len(dataset.annotations) == 0
        assert [(one.what.split("'")[1], one.count, one.examples) for one in dataset.oddities] == [
            ("tag", 1, ("a.jpg#1",)),
            ("points", 1, ("a.jpg#2",)),
        ]

    def test_the_labels_of_the_task_are_the_categories_in_their_order(self) -> None:
        labels = "<label><name>z</name></label><label><name>a</name></label>"
        meta = f"<meta><project><labels>{labels}</labels></project></meta>"
        assert read_cvat(cvat(meta=meta), source="x").categories.name.tolist() == ["z", "a"]

    def test_labels_of_skeletons_and_their_points_are_no_categories(self) -> None:
        labels = (
            "<label><name>boat</name><type>any</type></label><label><name>person</name><type>skeleton</type></label>"
            "<label><name>nose</name><type>points</type><parent>person</parent></label>"
            "<label><name>eye</name><type>points</type><parent>person</parent></label>"
            "<label><name>mast</name><type>points</type></label>"
        )
        box = '<box label="boat" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        mast = '<box label="mast" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        skeleton = '<skeleton label="person"><points label="nose" points="1,2"/></skeleton>'
        document = cvat(box, skeleton, mast, meta=f"<meta><task><labels>{labels}</labels></task></meta>")
        dataset = read_cvat(document, source="x")
        assert dataset.categories.name.tolist() == ["boat", "mast"]
        assert len(dataset.annotations) == 2
        told = {one.what.partition(",")[0]: one.examples for one in dataset.oddities}
        assert told["labels of skeletons"] == ("person", "nose", "eye")
        assert told["shapes of the kind 'skeleton'"] == ("a.jpg#2",)

    @pytest.mark.parametrize(
        "bad",
        [
            '<box label="boat" xtl="1" ytl="1" xbr="9"/>',
            '<box label="boat" xtl="1" ytl="1" xbr="9" ybr="nan"/>',
            '<box label="boat" xtl="1" ytl="1" xbr="9" ybr="9" rotation="inf"/>',
            '<polygon label="boat" points="1,1;2,2"/>',
            '<polygon label="boat" points="1,1;2,2;3"/>',
            '<polygon label="boat"/>',
            '<mask label="boat" rle="3, 3" left="0" top="0" width="2" height="2"/>',
            '<mask label="boat" rle="-1, 5" left="0" top="0" width="2" height="2"/>',
            '<mask label="boat" rle="1" left="0" top="0" width="1000000" height="1000000"/>',
            '<mask label="boat" rle="1" left="0" top="0" width="-1" height="-1"/>',
            '<mask label="boat" rle="9999999999999999999999, 1" left="0" top="0" width="2" height="2"/>',
            '<ellipse label="boat" cx="1" cy="1" rx="1"/>',
            '<ellipse label="boat" cx="9" cy="9" rx="-3" ry="3"/>',
            '<box label="boat" xtl="1" ytl="1" xbr="1_9" ybr="9"/>',
        ],
    )
    def test_a_malformed_shape_is_refused_with_its_place(self, bad: str) -> None:
        message = problems_of(lambda: read_shapes_of_cvat('<tag label="x"/>', bad))
        assert "a.jpg#2" in message
        assert "attributes are not the numbers that it needs" in message

    @pytest.mark.parametrize(
        ("document", "found"),
        [
            (b"<annotation><object/></annotation>", "give the folder of its files"),
            (b"<annotations><track/></annotations>", "Export the task as 'CVAT for images 1.1'"),
            (b"<annotations>", "is not XML that can be read"),
            (cvat(image='<image name="a.jpg">'), "image number 1"),
            (cvat(image='<image width="3" height="4">'), "image number 1"),
            (cvat(image='<image name="../a.jpg" width="3" height="4">'), "leaves its folder by"),
            (cvat(image='<image name="a.jpg" width="-3" height="4">'), "width or height"),
            (cvat('<box xtl="1" ytl="1" xbr="9" ybr="9"/>'), "has no label"),
        ],
    )
    def test_another_file_is_refused(self, document: bytes, found: str) -> None:
        assert found in problems_of(lambda: read_cvat(document, source="x"))


# --- masks ------------------------------------------------------------------------------------------------------------


def values(*rows: Sequence[int]) -> bytes:
    return png(np.array(rows, dtype=np.uint8))


def read_maps(data: bytes, classes: Sequence[str] | None = None) -> Dataset:
    return read_masks(Files([NamedFile("a.png", data)]), IMAGES, source="masks", classes=classes)


class TestMasks:
    def test_parts_that_do_not_touch_stay_one_instance(self) -> None:
        annotations = read_maps(values([1, 0, 1, 2])).annotations
        assert annotations.annotation_id.tolist() == ["a.png#1", "a.png#2"]
        assert annotations.area.tolist() == [2, 1]

    def test_background_and_void_are_nothing(self) -> None:
        assert len(read_maps(values([0, 255, 0])).annotations) == 0

    def test_gray_as_colors_and_palettes_are_read_as_their_numbers(self) -> None:
        gray = np.zeros((2, 3, 3), dtype=np.uint8)
        gray[0, 1] = 7
        assert decode_values(png(gray), max_pixels=10).tolist() == [[0, 7, 0], [0, 0, 0]]
        assert read_maps(png(gray)).categories.name.tolist() == ["7"]

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (b"", "cannot be read"),
            (b"\xff\xd8\xff\xe0", "is a JPEG file"),
            (values([1])[:40], "cannot be read"),
            (values([3]), "stands for no category"),
            (png(np.array([[[250, 0, 0]]], dtype=np.uint8)), "colored picture of a map"),
        ],
    )
    def test_a_malformed_map_is_refused_by_name(self, data: bytes, kind: str) -> None:
        message = problems_of(lambda: read_maps(data, ["bar", "box"]))
        assert kind in message
        assert "a.png" in message

    def test_masks_in_folders_of_categories_are_refused_by_name(self) -> None:
        files = [
            NamedFile("bar/a.png", values([1, 0])),
            NamedFile("bar/b.png", values([0, 0])),
            NamedFile("box/a.png", values([1])),
            NamedFile("box/z.png", values([1])),
            NamedFile("a.png", values([1, 1])),
        ]
        message = problems_of(lambda: read_masks(Files(files), IMAGES, source="x", classes=None))
        for found in ("is empty", "box/a.png with [1, 1] besides [1, 2]", "Found: z.png", "no folder of a category"):
            assert found in message


# --- shared -----------------------------------------------------------------------------------------------------------


class TestImageNames:
    @pytest.mark.parametrize(
        ("file", "declared", "found"),
        [
            ("a.txt", None, "a.jpg"),
            ("labels/a.txt", None, "a.jpg"),
            ("sub/a.txt", None, "sub/images/a.png"),
            ("sub/labels/a.txt", None, "sub/images/a.png"),
            ("x.json", "a.jpg", "a.jpg"),
            ("x.json", "..\\a.jpg", "a.jpg"),
            ("sub/x.json", "..\\a.jpg", "a.jpg"),
            ("sub/x.json", "images/a.png", "sub/images/a.png"),
            ("x.json", "../../etc/passwd", None),
            ("b.c.txt", None, "b.c.jpeg"),
            ("b.txt", None, None),
        ],
    )
    def test_the_image_of_a_file(self, file: str, declared: str | None, found: str | None) -> None:
        images = ImageNames(["a.jpg", "sub/images/a.png", "b.c.jpeg"])
        problems = Problems()
        assert images.find(file, problems, declared) == found
        assert (found is None) == bool(problems.counts)


@given(
    seed=st.integers(0, 2**32 - 1),
    part=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    place=st.tuples(st.integers(-8, 12), st.integers(-8, 12)),
)
def test_a_part_of_a_mask_is_encoded_in_its_place(seed: int, part: tuple[int, int], place: tuple[int, int]) -> None:
    pixels = np.random.default_rng(seed).random(part) < 0.6
    padded = np.zeros((40, 40), dtype=bool)
    padded[20 + place[0] : 20 + place[0] + part[0], 20 + place[1] : 20 + place[1] + part[1]] = pixels
    rle = rle_of_part(pixels, top=place[0], left=place[1], height=9, width=10)
    assert [rle] == encode_masks(padded[None, 20:29, 20:30])
    assert union_of([rle, rle]) == rle


def test_the_size_of_an_image_is_in_its_first_bytes() -> None:
    assert image_header(png(np.zeros((5, 7, 3), dtype=np.uint8))) == (5, 7, 1)
    with pytest.raises(ImageError):
        image_header(b"no image")


def test_a_list_of_classes_may_begin_with_what_is_none() -> None:
    assert read_class_names(b"\xef\xbb\xbfbackground\r\n boat \r\n\r\nbird\r\n\r\n") == ["boat", "", "bird"]


@pytest.mark.parametrize("side", [-1, 200_001, 10**10, 10**30])
def test_a_size_that_no_image_can_have_is_refused_in_one_message(side: int) -> None:
    labelme = shape("mask", [[1, 1], [2, 2]], mask=MASK)
    of_cvat = cvat(
        '<mask label="b" rle="1, 3" left="0" top="0" width="2" height="2"/>',
        image=f'<image name="a.jpg" width="60" height="{side}">',
    )
    of_voc = voc(an_object(), size=f"<size><width>60</width><height>{side}</height></size>")
    for read in (
        lambda: read_shapes(labelme, imageHeight=side, imageWidth=60),
        lambda: read_cvat(of_cvat, source="x"),
        lambda: read_one_voc(of_voc),
    ):
        message = problems_of(read)
        assert "1 problem:" in message
        assert f"image a.jpg with [height, width] [{side}, 60]" in message


@given(data=st.data())
@settings(max_examples=150)
def test_damaged_files_are_read_or_refused_but_nothing_else(data: st.DataObject) -> None:
    labelme = json.dumps({"shapes": [shape("mask", [[1, 1], [2, 2]], mask=MASK)], "imageHeight": 40, "imageWidth": 60})
    readers: list[tuple[bytes, Callable[[bytes], Dataset]]] = [
        (voc(an_object()).data, lambda damaged: read_one_voc(NamedFile("a.xml", damaged))),
        (b"0 0.5 0.5 0.5 0.5\n1 0 0 1 0 1 1\n", read_yolo),
        (labelme.encode(), lambda damaged: read_labelme([NamedFile("a.json", damaged)], IMAGES, source="x")),
        (
            cvat(
                '<mask label="b" rle="1, 3" left="0" top="0" width="2" height="2"/>',
                '<polygon label="b" points="1,1;2,1;2,2"/>',
            ),
            lambda damaged: read_cvat(damaged, source="x"),
        ),
        (values([1, 0, 2]), read_maps),
    ]
    document, read = data.draw(st.sampled_from(readers))
    damaged = bytearray(document)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged)))
        stop = start + data.draw(st.integers(0, 12))
        damaged[start:stop] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"9" * 30, b"-", b"1e999", b'"', b"<"])
        )
    try:
        read(bytes(damaged))
    except DatasetError as error:
        assert len(str(error)) < 10_000
