"""In which frame annotations were drawn: by what their tools show people, by declared sizes, and by what fits."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from refseg_core.datasets.dataset import Dataset
from refseg_core.masks.rle import decode_mask, encode_masks
from refseg_core.tables import Images
from tasks.datasets.annotation_files import read_annotations
from tasks.datasets.image_reader import read_image
from tasks.index_dataset import index_dataset
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.store.store import Store
from tests.support.annotation_files import HEIGHT, IMAGES, INSTANCES, WIDTH, WRITERS, coco_document
from tests.support.samples import png

Pixels = npt.NDArray[np.uint8]

UPRIGHT_FORMATS = ("labelme", "cvat", "yolo")
_TURN: dict[int, Callable[[Pixels], Pixels]] = {  # stored to upright, of even squares and of mirrored pictures
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    6: lambda p: np.rot90(p, -1),
}


def numbered(height: int, width: int) -> Pixels:
    """Pixels that are all different, uint8 RGB [H, W, 3]."""
    values = np.arange(height * width, dtype=np.int64)
    return np.stack([values % 251, values // 251 % 251, values % 7], axis=1).reshape(height, width, 3).astype(np.uint8)


def png_with_exif(pixels: Pixels, orientation: int) -> bytes:
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def write_images(
    folder: Path, orientation: int, height: int = HEIGHT, width: int = WIDTH, names: Sequence[str] = IMAGES
) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png_with_exif(numbered(height, width), orientation))


def source_of(folder: Path, annotations: str = "annotations") -> DatasetSource:
    return DatasetSource(images=str(folder / "images"), annotations=str(folder / annotations))


def first_pixels(source: DatasetSource, images: Images) -> Pixels:
    row = images.file_name.tolist().index("a.png")
    return read_image(Folder(source.images), images, row, max_pixels=10**6)


def oddities(dataset: Dataset) -> dict[str, int]:
    return {oddity.what: oddity.count for oddity in dataset.oddities}


def of_image(dataset: Dataset, name: str = "a.png") -> list[Any]:
    return [mask for mask, image in zip(dataset.annotations.mask_rle, dataset.annotations.image_id, strict=True)
            if image == name]  # fmt: skip


@pytest.mark.parametrize("format_name", UPRIGHT_FORMATS)
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_tools_that_show_pictures_upright_annotate_them_upright(
    format_name: str, orientation: int, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", orientation)
    WRITERS[format_name](tmp_path / "annotations", INSTANCES, "polygons")
    source = source_of(tmp_path)
    dataset = read_annotations(source, None).dataset
    np.testing.assert_array_equal(first_pixels(source, dataset.images), _TURN[orientation](numbered(HEIGHT, WIDTH)))
    (what,) = oddities(dataset)
    assert "taken as people see them" in what
    assert dataset.oddities[0].count == 2  # the third image has no instance


@pytest.mark.parametrize("format_name", ["coco", "voc"])
def test_other_formats_mean_the_stored_pixels_and_say_so(format_name: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    if format_name == "coco":
        (tmp_path / "annotations").write_bytes(coco_document(INSTANCES, "polygons"))
    else:
        WRITERS[format_name](tmp_path / "annotations", INSTANCES, "boxes")
    source = source_of(tmp_path)
    dataset = read_annotations(source, None).dataset
    np.testing.assert_array_equal(first_pixels(source, dataset.images), numbered(HEIGHT, WIDTH))
    (what,) = oddities(dataset)
    assert "taken as their pixels are stored" in what


def test_a_square_that_lies_on_its_side_is_turned_too(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6, WIDTH, WIDTH)
    WRITERS["labelme"](tmp_path / "annotations", INSTANCES, "polygons")
    for file in (tmp_path / "annotations").rglob("*.json"):
        file.write_text(file.read_text().replace(f'"imageHeight": {HEIGHT}', f'"imageHeight": {WIDTH}'))
    source = source_of(tmp_path)
    dataset = read_annotations(source, None).dataset
    np.testing.assert_array_equal(first_pixels(source, dataset.images), np.rot90(numbered(WIDTH, WIDTH), -1))


def test_only_datasets_that_are_read_otherwise_have_other_keys(tmp_path: Path) -> None:
    WRITERS["labelme"](tmp_path / "annotations", INSTANCES, "polygons")
    source, store = source_of(tmp_path), Store(str(tmp_path / "store"))
    keys = []
    for orientation in (1, 6, 3):  # the size alone tells the frame of the second
        write_images(tmp_path / "images", orientation, *((WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH)))
        keys.append(index_dataset.fn(store, source).key)
    assert keys[0] == keys[1] != keys[2]
    assert set((store.manifest(f"dataset/{keys[0]}") or {})["inputs"]) == {"content", "image_sizes"}


def test_labels_of_another_frame_are_made_again(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    WRITERS["labelme"](tmp_path / "annotations", INSTANCES, "polygons")
    source, store = source_of(tmp_path).model_copy(update={"with_versions": True}), Store(str(tmp_path / "store"))
    listed = store.load(index_dataset.fn(store, source.model_copy(update={"annotations": None})), Images)
    annotated = store.load(index_dataset.fn(store, source), Images)
    assert annotated.file_name.tolist() == listed.file_name.tolist()
    assert [own == f"{one} upright" for own, one in zip(annotated.version, listed.version, strict=True)] == [
        True, False, True,
    ]  # fmt: skip


def declared_as_stored(boxes: bool, tmp_path: Path) -> DatasetSource:
    """Stored 128 x 64, upright 64 x 128, where the annotations lie; the file declares the stored size."""
    write_images(tmp_path / "images", 6, HEIGHT, WIDTH)
    box = [4, 70, 40, 50]  # wholly below a picture of 64 rows
    annotation: dict[str, Any] = {"id": 1, "image_id": "a.png", "category_id": 1, "bbox": box}
    if not boxes:
        annotation["segmentation"] = [[4, 70, 44, 70, 44, 120, 4, 120]]
    document = {
        "images": [{"id": name, "file_name": name, "height": HEIGHT, "width": WIDTH} for name in IMAGES],
        "annotations": [annotation, {"id": 2, "image_id": "c.png", "category_id": 1, "bbox": [100, 0, 20, 60]}],
        "categories": [{"id": 1, "name": "box"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(document))
    return source_of(tmp_path, "x.json")


@pytest.mark.parametrize("boxes", [True, False])
def test_a_coco_file_that_fits_only_upright_is_read_upright_whatever_it_declares(boxes: bool, tmp_path: Path) -> None:
    source = declared_as_stored(boxes, tmp_path)
    dataset = read_annotations(source, None).dataset
    sizes = dict(
        zip(dataset.images.file_name, zip(dataset.images.height, dataset.images.width, strict=True), strict=True)
    )
    assert sizes == {"a.png": (WIDTH, HEIGHT), "sub/b.png": (HEIGHT, WIDTH), "c.png": (HEIGHT, WIDTH)}
    assert dataset.annotations.box_xywh[0].tolist() == [4, 70, 40, 50]
    assert first_pixels(source, dataset.images).shape == (WIDTH, HEIGHT, 3)
    if not boxes:
        assert decode_mask(dataset.annotations.mask_rle[0]).sum() == 40 * 50
    (what,) = oddities(dataset)
    assert "fit only the picture turned upright" in what


@pytest.mark.parametrize(
    "segmentation",
    [
        [[4, 70, 44, 70, 44, 120, 4, 120]],
        [[[4, 70], [44, 70], [44, 120], [4, 120]]],
        encode_masks(np.pad(np.ones((1, 50, 40), dtype=bool), ((0, 0), (70, 8), (4, 20))))[0].to_coco(),
        {"size": [WIDTH, HEIGHT], "counts": [4 * WIDTH + 70, *[50, 78] * 39, 50, 8 + 20 * WIDTH]},
    ],
)
@pytest.mark.parametrize("bbox", [{}, {"bbox": [4, 10, 40, 50]}])  # the latter says nothing of the frame
def test_segmentations_without_a_box_tell_the_frame_too(segmentation: Any, bbox: Any, tmp_path: Path) -> None:
    source = declared_as_stored(False, tmp_path)
    document = json.loads((tmp_path / "x.json").read_text())
    del document["annotations"][0]["bbox"]
    document["annotations"][0] |= {"segmentation": segmentation} | (bbox if isinstance(segmentation, dict) else {})
    (tmp_path / "x.json").write_text(json.dumps(document))
    dataset = read_annotations(source, None).dataset
    assert decode_mask(dataset.annotations.mask_rle[0])[70:120, 4:44].sum() == 40 * 50
    assert (dataset.images.height[0], dataset.images.width[0]) == (WIDTH, HEIGHT)
    assert bbox or dataset.annotations.box_xywh[0].tolist() == [4, 70, 40, 50]
    assert any("fit only the picture turned upright" in what for what in oddities(dataset))


@pytest.mark.parametrize(("orientation", "scale"), [(1, 1), (6, 2)])
def test_what_fits_only_upright_but_is_not_turned_or_of_another_size_is_refused(
    orientation: int, scale: int, tmp_path: Path
) -> None:
    source = declared_as_stored(True, tmp_path)
    write_images(tmp_path / "images", orientation, scale * HEIGHT, scale * WIDTH)
    with pytest.raises(Exception, match="wholly outside its image"):
        read_annotations(source, None)


def test_voc_boxes_without_a_size_lie_on_the_stored_pixels_and_are_told(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6)
    corners = "<xmin>81</xmin><ymin>5</ymin><xmax>120</xmax><ymax>44</ymax>"
    (tmp_path / "annotations").mkdir()
    one = f"<annotation><object><name>box</name><bndbox>{corners}</bndbox></object></annotation>"
    (tmp_path / "annotations" / "a.xml").write_text(one)
    source = source_of(tmp_path)
    dataset = read_annotations(source, None).dataset
    assert (dataset.images.height.tolist(), dataset.images.width.tolist()) == ([HEIGHT], [WIDTH])
    assert first_pixels(source, dataset.images).shape == (HEIGHT, WIDTH, 3)
    assert dataset.annotations.box_xywh.tolist() == [[80, 4, 40, 40]]
    (oddity,) = dataset.oddities
    assert "taken as their pixels are stored" in oddity.what
    assert oddity.examples == ("a.png (orientation 6)",)


def test_voc_boxes_that_fit_only_upright_are_read_upright(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    corners = "<xmin>5</xmin><ymin>41</ymin><xmax>44</xmax><ymax>120</ymax>"
    one = f"<object><name>box</name><bndbox>{corners}</bndbox></object>"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text(f"<annotation>{size}{one}</annotation>")
    dataset = read_annotations(source_of(tmp_path), None).dataset
    assert (dataset.images.height.tolist(), dataset.images.width.tolist()) == ([WIDTH], [HEIGHT])
    assert dataset.annotations.box_xywh.tolist() == [[4, 40, 40, 80]]


LYING = [[4, 70], [44, 70], [44, 120], [4, 120]]  # wholly below a picture of 64 rows
STANDING = [[4, 40], [44, 40], [44, 120], [4, 120]]  # partly


def write_file(form: str, folder: Path, kind: str, points: list[list[int]]) -> Any:
    """A file that declares the stored size of a.png, and the polygon, box or mask of these points."""
    (left, top), (right, bottom) = points[0], points[2]
    folder.mkdir(parents=True, exist_ok=True)
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    pixels = np.full((bottom - top, right - left), 255, dtype=np.uint8)
    if form == "voc":
        corners = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        axes = "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(points, 1))
        more = f"<polygon>{axes}</polygon>" if kind == "polygon" else ""
        sizes = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        one = f"<object><name>box</name><bndbox>{corners}</bndbox>{more}</object>"
        (folder / "a.xml").write_text(f"<annotation>{sizes}{one}</annotation>")
    elif form == "cvat":
        drawn = {
            "polygon": f'<polygon label="box" points="{";".join(f"{x},{y}" for x, y in points)}"/>',
            "box": f'<box label="box" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>',
            "mask": f'<mask label="box" rle="0,{pixels.size}" left="{left}" top="{top}" width="{right - left}" '
            f'height="{bottom - top}"/>',
        }[kind]
        image = f'<annotations><image id="0" name="a.png" {size}>{drawn}</image></annotations>'
        (folder / "annotations.xml").write_text(image)
    else:
        corners = points if kind == "polygon" else [points[0], points[2]]
        encoded = base64.b64encode(png(pixels)).decode()
        shape = {"label": "box", "points": corners, "shape_type": kind.replace("box", "rectangle"), "mask": encoded}
        document = {"shapes": [shape], "imageHeight": HEIGHT, "imageWidth": WIDTH}
        (folder / "a.json").write_text(json.dumps(document))


@pytest.mark.parametrize("points", [LYING, STANDING])
@pytest.mark.parametrize(
    ("form", "kind"),
    [(form, kind) for form in ("voc", "labelme", "cvat") for kind in ("polygon", "box", "mask")
     if (form, kind) != ("voc", "mask")],
)  # fmt: skip
def test_what_fits_only_upright_is_read_upright_in_every_format(
    form: str, kind: str, points: list[list[int]], tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 6, names=["a.png"])
    write_file(form, tmp_path / "annotations", kind, points)
    source = source_of(tmp_path)
    dataset = read_annotations(source, None).dataset
    top, bottom = points[0][1], points[2][1]
    assert (dataset.images.height.tolist(), dataset.images.width.tolist()) == ([WIDTH], [HEIGHT])
    assert dataset.annotations.box_xywh.tolist() == [[4, top, 40, bottom - top]]
    if kind != "box":
        assert decode_mask(dataset.annotations.mask_rle[0])[top:bottom, 4:44].sum() == 40 * (bottom - top)
    assert first_pixels(source, dataset.images).shape == (WIDTH, HEIGHT, 3)
    ((what, count),) = oddities(dataset).items()
    assert "fit only the picture turned upright" in what and count == 1


@pytest.mark.parametrize("form", ["voc", "labelme", "cvat"])
def test_what_would_fit_turned_but_has_no_orientation_or_another_size_is_not_turned(form: str, tmp_path: Path) -> None:
    write_file(form, tmp_path / "annotations", "polygon", STANDING)
    for orientation, scale in ((1, 1), (6, 2)):
        write_images(tmp_path / "images", orientation, scale * HEIGHT, scale * WIDTH, ["a.png"])
        dataset = read_annotations(source_of(tmp_path), None).dataset
        assert (dataset.images.height.tolist(), dataset.images.width.tolist()) == ([HEIGHT], [WIDTH])
        assert dataset.annotations.area.tolist() == [40 * 24]


@pytest.mark.parametrize("off", [(1, 0), (0, -1), (2, 2), (-2, 1)])
@pytest.mark.parametrize("kind", ["polygons", "masks", "boxes"])
@pytest.mark.parametrize("format_name", ["coco", "labelme", "cvat"])
def test_a_declared_size_may_differ_by_two_pixels(
    format_name: str, kind: Any, off: tuple[int, int], tmp_path: Path
) -> None:
    height, width = HEIGHT + off[0], WIDTH + off[1]
    write_images(tmp_path / "images", 1, height, width)
    if format_name == "coco":
        (tmp_path / "annotations").write_bytes(coco_document(INSTANCES, kind))
    else:
        WRITERS[format_name](tmp_path / "annotations", INSTANCES, kind)
    source = source_of(tmp_path)
    dataset = read_annotations(source, None).dataset
    assert first_pixels(source, dataset.images).shape == (height, width, 3)
    masks = of_image(dataset)
    if kind != "boxes":
        areas = [one.mask[:height, :width].sum() for one in INSTANCES if one.image == "a.png"]
        assert [decode_mask(mask).shape for mask in masks] == [(height, width)] * 3
        assert [decode_mask(mask).sum() for mask in masks] == areas
    (what,) = oddities(dataset)
    assert "differs by at most 2 px" in what
    assert dataset.oddities[0].examples[0] == (
        f"a.png declares {WIDTH} x {HEIGHT}, its file is {width} x {height} (width x height)"
    )


def test_a_declared_size_that_differs_by_more_is_named_with_the_count(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1, HEIGHT + 3, WIDTH)
    (tmp_path / "annotations").write_bytes(coco_document(INSTANCES, "polygons"))
    dataset = read_annotations(source_of(tmp_path), None).dataset
    (what,) = oddities(dataset)
    assert "declared size is not that of their file" in what
    assert dataset.oddities[0].count == 2
    assert set(dataset.images.height.tolist()) == {HEIGHT}


@pytest.mark.parametrize("place", ["x.json", "labelme"])
def test_headers_are_read_once_in_a_process_until_the_files_change(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []
    read_start = Folder.read_start

    def counted(folder: Folder, name: str, num_bytes: int) -> bytes:
        requested.extend([name] if name in IMAGES else [])
        return read_start(folder, name, num_bytes)

    monkeypatch.setattr(Folder, "read_start", counted)
    write_images(tmp_path / "images", 2)
    WRITERS["labelme"](tmp_path / "labelme", INSTANCES, "boxes")
    (tmp_path / "x.json").write_bytes(coco_document(INSTANCES, "boxes"))
    source = source_of(tmp_path, place).model_copy(update={"with_versions": True})
    artifact = index_dataset.fn(Store(str(tmp_path / "store")), source)
    annotated = [name for name in IMAGES if name != "c.png"]
    assert sorted(requested) == sorted([*annotated, *IMAGES])  # headers, and whether some have 16 bits
    requested.clear()
    assert index_dataset.fn(Store(str(tmp_path / "store")), source) == artifact
    assert requested == []
    (tmp_path / "images" / "a.png").write_bytes(png_with_exif(numbered(HEIGHT, WIDTH), 3))
    index_dataset.fn(Store(str(tmp_path / "store")), source)
    assert set(requested) == {"a.png"}


def test_of_very_many_images_some_are_looked_at_and_those_that_fit_only_upright_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.datasets.image_files._MOST_READ", 1)
    monkeypatch.setattr("tasks.datasets.image_files._SAMPLE", 1)
    dataset = read_annotations(declared_as_stored(True, tmp_path), None).dataset
    assert dataset.images.height[0] == WIDTH
