"""Masks as image files, and pictures of rare kinds: what people's tools write, each read right or named."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, TiffImagePlugin

from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.mask_images import _INVERTED, _OTHER_BORDER
from refseg_core.errors import DatasetError, ImageError
from refseg_core.images import decode_image
from refseg_core.masks.rle import decode_mask
from tasks.datasets.annotation_files import read_annotations
from tasks.datasets.image_files import ImageFiles
from tasks.datasets.image_reader import read_image
from tasks.datasets.indexed import load_dataset
from tasks.index_dataset import index_dataset
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.store.store import Store
from tests.support.annotation_files import HEIGHT, WIDTH, write_all_images
from tests.support.samples import picture

Array = npt.NDArray[Any]

PLACE = np.s_[10:30, 20:60]  # 800 pixels


def gray(background: int, inside: int) -> Array:
    pixels = np.full((HEIGHT, WIDTH), background, dtype=np.uint8)
    pixels[PLACE] = inside
    return pixels


def write(folder: Path, name: str, pixels: Array, mode: str | None = None) -> None:
    file = folder / "masks" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file)


def read(folder: Path) -> Dataset:
    write_all_images(folder / "images", ("a.png", "b.png"))
    return read_annotations(
        DatasetSource(images=str(folder / "images"), annotations=str(folder / "masks")), None
    ).dataset


def expected() -> Array:
    return gray(0, 1).astype(bool)


def jpeg_noise() -> Array:
    noise = np.random.default_rng(1).integers(0, 12, (HEIGHT, WIDTH))
    return np.where(expected(), 255 - noise, noise).astype(np.uint8)


def rgba(color: Array, alpha: Array) -> Array:
    return np.dstack([color, color, color, alpha])


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (gray(1, 255), "two values of which none is 0"),
        (gray(1, 2), "two values of which none is 0"),
        (jpeg_noise(), "near 0 and near 255"),
        (rgba(gray(255, 255), gray(0, 255)), "lies in their transparency"),
        (rgba(gray(0, 0), gray(0, 255)), "lies in their transparency"),
        (rgba(gray(255, 0), gray(0, 255)), "lies in their transparency"),
        (np.dstack([gray(0, 0), gray(0, 255)]), "lies in their transparency"),
    ],
)
def test_masks_of_unusual_values_are_understood_and_told(pixels: Array, what: str, tmp_path: Path) -> None:
    write(tmp_path, "boat/a.png", pixels)
    dataset = read(tmp_path)
    np.testing.assert_array_equal(decode_mask(dataset.annotations.mask_rle[0]), expected())
    (oddity,) = dataset.oddities
    assert what in oddity.what
    assert oddity.examples == ("boat/a.png",)
    assert dataset.readings == (oddity.what,)


@pytest.mark.parametrize(
    "pixels",
    [gray(0, 255), gray(0, 1), gray(0, 7), rgba(gray(0, 255), gray(0, 255)), rgba(gray(0, 255), gray(255, 255))],
)
def test_usual_masks_are_read_as_before(pixels: Array, tmp_path: Path) -> None:
    write(tmp_path, "boat/a.png", pixels)
    dataset = read(tmp_path)
    np.testing.assert_array_equal(decode_mask(dataset.annotations.mask_rle[0]), expected())
    assert dataset.oddities == dataset.readings == ()


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.full((HEIGHT, WIDTH), 255, dtype=np.uint8), "fill their whole image"),
        (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8), "tens of gray values"),
        (gray(0, 1) + gray(0, 1) * np.eye(HEIGHT, WIDTH, dtype=np.uint8), "several values besides 0"),
        (gray(0, 1) * np.arange(WIDTH, dtype=np.uint8) % 20, "several values besides 0"),
    ],
)
def test_masks_that_are_none_are_named(pixels: Array, what: str, tmp_path: Path) -> None:
    write(tmp_path, "boat/a.png", pixels)
    (oddity,) = read(tmp_path).oddities
    assert what in oddity.what
    several = f" with {len(np.unique(pixels)) - 1} values" if "several" in what else ""
    assert oddity.examples == (f"boat/a.png{several}",)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("box/a.jpg", "no PNG files among the masks"),
        ("box/a.tif", "no PNG files among the masks"),
        (".box/a.png", "folders whose names begin with a dot"),
        (".ipynb_checkpoints/boat/a.png", None),
        ("boat/._a.png", None),
        ("boat/.a.jpg", None),
    ],
)
def test_files_that_look_like_masks_and_are_left_out_are_told(name: str, what: str | None, tmp_path: Path) -> None:
    for each in ("boat/a.png", name):
        write(tmp_path, each, gray(0, 255))
    dataset = read(tmp_path)
    assert dataset.categories.name.tolist() == ["boat"]
    assert [(what or "") in oddity.what for oddity in dataset.oddities] == [True] * (what is not None)
    assert [oddity.examples for oddity in dataset.oddities] == [(name,)] * (what is not None)


def test_the_images_themselves_are_not_among_what_is_left_out_of_the_masks(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    write(tmp_path, "boat/a.png", gray(0, 255))
    write(tmp_path, "images/a.jpg", gray(0, 255))
    source = DatasetSource(images=str(folder / "images"), annotations=str(folder), format="masks")
    assert read_annotations(source, None).dataset.oddities == ()


def test_masks_and_maps_whose_border_is_of_an_instance_are_named_with_file_and_value(tmp_path: Path) -> None:
    inverted, scene = gray(255, 0), gray(0, 2)
    scene[[0, -1]], scene[:, [0, -1]] = 2, 2
    write(tmp_path / "binary", "boat/a.png", inverted)
    write(tmp_path / "maps", "a.png", gray(3, 1))
    write(tmp_path / "maps", "b.png", scene)
    write(tmp_path / "maps", "c.png", gray(255, 1))  # a border of void is usual
    write_all_images(tmp_path / "maps" / "images", ("c.png",))
    (one,), (other,) = read(tmp_path / "binary").oddities, read(tmp_path / "maps").oddities
    assert (one.what, one.examples) == (_INVERTED, ("boat/a.png (100% of its border)",))
    assert (other.what, other.examples) == (_OTHER_BORDER, ("a.png with 3", "b.png with 2"))


@pytest.mark.parametrize("name", ["boat/a.png", "a.png"])
def test_masks_of_another_size_than_their_image_are_named_with_both(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, gray(0, 1)[:40, :60])
    (oddity,) = read(tmp_path).oddities
    assert "masks have another size than their file" in oddity.what
    assert oddity.examples == (f"a.png has masks of 60 x 40, its file is {WIDTH} x {HEIGHT} (width x height)",)


def test_maps_of_void_alone_are_told_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, "a.png", gray(0, 255))
    dataset = read(tmp_path)
    assert len(dataset.annotations) == 0
    assert "255 is void here: use values from 1 to 254, or a folder per category" in dataset.oddities[0].what


@pytest.mark.parametrize("others", [(), ("boat/a.png",)])
def test_a_stray_mask_is_told_what_is_true_of_it(others: tuple[str, ...], tmp_path: Path) -> None:
    for name in (*others, "x.png", "y.png"):
        write(tmp_path, name, gray(0, 255))
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert ("lies in no folder of a category, though others do" in str(caught.value)) == bool(others)
    assert ("fits no image and lies in no folder of a category" in str(caught.value)) == (not others)


# --- CVAT's segmentation masks ----------------------------------------------------------------------------------------

COLORS = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:64,64,64::\n"


def colored(palette: bool) -> Array | Image.Image:
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[PLACE] = (128, 0, 0)
    pixels[40:50, 20:30] = (128, 0, 0)
    pixels[40:50, 80:90] = (64, 64, 64)
    pixels[39, 20:30] = (224, 224, 192)
    image = Image.fromarray(pixels)
    return image.quantize(8) if palette else image


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("objects", [False, True])
def test_colored_maps_are_read_by_labelmap_txt(palette: bool, objects: bool, tmp_path: Path) -> None:
    root = tmp_path / "masks"
    (root / "SegmentationClass").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "default.txt").write_text("a\n")
    (root / "labelmap.txt").write_text(COLORS)
    colored(palette).save(root / "SegmentationClass" / "a.png")  # type: ignore[union-attr]
    if objects:
        parts = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        parts[PLACE], parts[40:50, 20:30], parts[40:50, 80:90] = (128, 0, 0), (0, 128, 0), (128, 128, 0)
        write(tmp_path, "SegmentationObject/a.png", parts)
    dataset = read(tmp_path)
    assert dataset.categories.name.tolist() == ["cat", "dog"]
    found = sorted(zip(dataset.annotations.category_id.tolist(), dataset.annotations.area.tolist(), strict=True))
    assert found == ([(1, 100), (1, 800), (2, 100)] if objects else [(1, 900), (2, 100)])


def color_map(*parts: tuple[Any, tuple[int, int, int]], height: int = HEIGHT) -> Array:
    pixels = np.zeros((height, WIDTH, 3), dtype=np.uint8)
    for place, color in parts:
        pixels[place] = color
    return pixels


CAT, FIRST, SECOND = (128, 0, 0), (10, 20, 30), (40, 50, 60)
OTHER, AWAY = np.s_[40:50, 80:90], np.s_[0:5, 0:5]  # 100 and 25 pixels


def read_voc_masks(folder: Path, classes: Array, objects: dict[str, Array], labels: str = COLORS) -> Dataset:
    write(folder, "SegmentationClass/a.png", classes)
    for name, pixels in objects.items():
        write(folder, f"SegmentationObject/{name}", pixels)
    (folder / "masks" / "labelmap.txt").write_text(labels)
    return read(folder)


@pytest.mark.parametrize(
    ("parts", "areas", "what", "example"),
    [
        ([], [900], "pixels of no instance", "SegmentationClass/a.png: 900 pixels of cat"),
        ([(PLACE, FIRST)], [800, 100], "pixels of no instance", "SegmentationClass/a.png: 100 pixels of cat"),
        (
            [(PLACE, FIRST), (OTHER, SECOND), (AWAY, SECOND)],
            [800, 100],
            "pixels of no category",
            "SegmentationObject/a.png: 25 pixels",
        ),
    ],
)
def test_instances_that_contradict_their_categories_lose_nothing_and_are_told(
    parts: list[Any], areas: list[int], what: str, example: str, tmp_path: Path
) -> None:
    dataset = read_voc_masks(tmp_path, color_map((PLACE, CAT), (OTHER, CAT)), {"a.png": color_map(*parts)})
    assert dataset.annotations.area.tolist() == areas
    (oddity,) = dataset.oddities
    assert what in oddity.what
    assert oddity.examples == (example,)
    assert bool(dataset.readings) == (what == "pixels of no instance")


def test_an_instance_of_several_categories_is_one_of_each_and_told(tmp_path: Path) -> None:
    classes = color_map((PLACE, CAT), (OTHER, (64, 64, 64)))
    dataset = read_voc_masks(tmp_path, classes, {"a.png": color_map((PLACE, FIRST), (OTHER, FIRST))})
    assert sorted(dataset.annotations.area.tolist()) == [100, 800]
    assert dataset.oddities[0].examples == ("SegmentationObject/a.png: 1 instance",)


def test_maps_of_instances_that_only_some_have_are_told_with_both(tmp_path: Path) -> None:
    dataset = read_voc_masks(tmp_path, color_map((PLACE, CAT), (OTHER, CAT)), {"b.png": color_map((PLACE, FIRST))})
    assert dataset.annotations.area.tolist() == [900]
    assert [oddity.examples for oddity in dataset.oddities] == [
        ("SegmentationClass/a.png",),
        ("SegmentationObject/b.png",),
    ]


def test_a_map_of_instances_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"SegmentationObject/a.png of 128 x 65 for 128 x 64"):
        read_voc_masks(tmp_path, color_map((PLACE, CAT)), {"a.png": color_map((PLACE, FIRST), height=HEIGHT + 1)})


def test_the_background_has_the_color_that_labelmap_txt_gives_it(tmp_path: Path) -> None:
    classes = color_map((np.s_[:, :], (128, 100, 100)), (PLACE, CAT))
    dataset = read_voc_masks(tmp_path, classes, {}, "background:128,100,100::\ncat:128,0,0::\n")
    assert (dataset.annotations.area.tolist(), dataset.oddities) == ([800], ())


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("cat:255,0,0::\ndog:255,0,0::", r"line 3 \('dog:255,0,0::'\) has the color of 'cat'"),
        ("cat:0,0,0::", r"line 2 \('cat:0,0,0::'\) has the color of 'background'"),
        ("cat:254,256,0::", r"line 2 \('cat:254,256,0::'\) has a color that there is not"),
        ("cat:-1,0,0::", r"line 2 .* expected three numbers from 0 to 255"),
        ("cat:1_0,2,3::", r"line 2 \('cat:1_0,2,3::'\) has no color"),
        ("cat:1,2::", r"line 2 \('cat:1,2::'\) has no color"),
        ("# more\ncat:255,0,0::\ncat:0,255,0::", r"line 4 \('cat:0,255,0::'\) names 'cat' again"),
    ],
)
def test_a_list_of_colors_that_contradicts_itself_is_refused_with_its_line(
    lines: str, what: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"labelmap\.txt: cannot be read as a list of categories: " + what):
        read_voc_masks(tmp_path, color_map((PLACE, CAT)), {}, f"background:0,0,0::\n{lines}\n")


def test_a_color_without_a_name_is_refused_with_the_color(tmp_path: Path) -> None:
    root = tmp_path / "masks"
    (root / "SegmentationClass").mkdir(parents=True)
    (root / "labelmap.txt").write_text("background:0,0,0::\ncat:1,2,3::\n")
    colored(False).save(root / "SegmentationClass" / "a.png")  # type: ignore[union-attr]
    with pytest.raises(DatasetError, match=r"SegmentationClass/a.png with 128,0,0"):
        read(tmp_path)


# --- image files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [("x.avif", {"quality": 100}), ("x.jp2", {}), ("x.j2k", {})])
def test_avif_and_jpeg_2000_are_read(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    pixels = np.full((40, 60, 3), (200, 30, 90), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, **options)
    store = Store(str(tmp_path / "store"))
    dataset = load_dataset(store, index_dataset.fn(store, DatasetSource(images=str(tmp_path))))
    row = dataset.images.file_name.tolist().index(name)
    found = read_image(Folder(str(tmp_path)), dataset.images, row, max_pixels=10**6)
    assert np.abs(found.astype(int) - pixels).max() <= 3
    data = (tmp_path / name).read_bytes()
    for cut in (len(data) // 2, len(data) - 3):
        with pytest.raises(ImageError):
            decode_image(data[:cut], max_pixels=10**6)


def test_heic_is_read_where_pillow_heif_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heif")
    pixels = np.full((40, 60, 3), (200, 30, 90), dtype=np.uint8)
    stream = io.BytesIO()
    heif.from_pillow(Image.fromarray(pixels)).save(stream, quality=-1)
    assert np.abs(decode_image(stream.getvalue(), max_pixels=10**6).astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("value", [900, 4000, 16000])
def test_16_bit_files_of_fewer_bits_are_scaled_by_what_the_dataset_uses(value: int, tmp_path: Path) -> None:
    for name, largest in (("a.png", value), ("b.png", value // 2)):
        pixels = np.full((8, 9), 10, dtype=np.uint16)
        pixels[2:6] = largest
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(np.full((8, 9), 200, dtype=np.uint8)).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    store = Store(str(tmp_path / "store"))
    source = DatasetSource(images=str(tmp_path), with_versions=True)
    dataset = load_dataset(store, index_dataset.fn(store, source))
    white = {900: 1023, 4000: 4095, 16000: 16383}[value]
    assert dataset.images.white.tolist() == [white] * 4
    assert f"white at {white}" in dataset.oddities[0].what
    assert (dataset.oddities[0].count, dataset.oddities[0].examples) == (2, ("a.png", "b.png"))
    assert all(version.endswith(f" white {white}") for version in dataset.images.version)
    found = read_image(Folder(str(tmp_path)), dataset.images, 0, max_pixels=100)
    assert found[3, 3].tolist() == [round(value * 255 / white)] * 3
    said = load_dataset(store, index_dataset.fn(store, source.model_copy(update={"white": 65535})))
    assert said.images.white.tolist() == [65535] * 4


def test_16_bit_files_that_use_their_bits_stay_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 9), 40_000, dtype=np.uint16)).save(tmp_path / "a.png")
    store = Store(str(tmp_path / "store"))
    artifact = index_dataset.fn(store, DatasetSource(images=str(tmp_path)))
    assert load_dataset(store, artifact).oddities == ()
    assert "readings" not in (store.manifest(artifact.name) or {})["settings"]


def test_only_files_that_may_have_16_bits_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all_images(tmp_path, ("a.png",))
    Image.fromarray(np.full((8, 9), 900, dtype=np.uint16)).save(tmp_path / "b.png")
    folder, read = Folder(str(tmp_path)), []
    monkeypatch.setattr(folder, "read", lambda name: read.append(name) or (tmp_path / name).read_bytes())
    assert ImageFiles(folder).find_white(["a.png", "b.png"]) == 1023
    assert read == ["b.png"]


def test_a_dataset_that_is_nearly_black_is_named(tmp_path: Path) -> None:
    for number in range(5):
        pixels = picture(number) // 25 if number < 4 else picture(number)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
    store = Store(str(tmp_path / "store"))
    (oddity,) = load_dataset(store, index_dataset.fn(store, DatasetSource(images=str(tmp_path)))).oddities
    assert oddity.what.startswith("of 5 images that were looked at are nearly black")
    assert (oddity.count, oddity.examples) == (4, ("0.png", "1.png", "2.png"))


def gray_bands(bands: int) -> bytes:
    """A TIFF file of several gray bands, as multispectral cameras write them."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    pixels = np.full((4, 5, bands), 7, dtype=np.uint8).tobytes()
    for tag, value in ((256, 5), (257, 4), (258, (8,) * bands), (259, 1), (262, 1), (277, bands), (278, 4), (284, 1)):
        tags[tag] = value
    tags[279] = len(pixels)
    tags[273] = 0
    head = len(tags.tobytes(8)) + 8
    tags[273] = head
    stream = io.BytesIO()
    stream.write(b"II*\0\x08\0\0\0" + tags.tobytes(8) + pixels)
    return stream.getvalue()


@pytest.mark.parametrize("bands", [3, 4, 5])
def test_a_tiff_of_several_gray_bands_is_named_for_what_it_is(bands: int) -> None:
    with pytest.raises(ImageError, match=rf"{bands} gray bands.*save those three as an RGB image"):
        decode_image(gray_bands(bands), max_pixels=100)
