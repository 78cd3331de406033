"""Folders of masks, PNG files, in one of two layouts.

    boat/harbour.png      a folder for each category: what is not 0 is an instance of it in the image harbour
    boat/harbour/2.png    the same for several instances in one image, one file each
    harbour.png           one map for each image: the pixels of each value are an instance; 0 is background, 255 void
    SegmentationClass/harbour.png    the same in colors, which labelmap.txt names; CVAT and PASCAL VOC have it so, with
    SegmentationObject/harbour.png   the instances of the map, a color each

Parts of a mask that do not touch stay one instance. An image without a mask in the first layout has no instance; in the
second it is not part of the dataset.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from posixpath import dirname
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.builder import AnnotationFolder, DatasetBuilder, NamedFile, Shape
from refseg_core.datasets.class_names import ColorMap
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.errors import ImageError, Problems, counted
from refseg_core.images import decode_alpha, decode_values
from refseg_core.masks.rle import Masks, rle_of_part

_BAD_MASK = "a mask cannot be read: expected a PNG file; export it again"
_OTHER_SIZE = "the masks of an image have different sizes: expected that of the image; export them again"
_NEITHER = (
    "a mask fits no image and lies in no folder of a category: expected <image>.png with the name of an image, or "
    "<category>/<image>.png; correct the names, or the folder of images"
)
_NO_CATEGORY = (
    "a mask lies in no folder of a category, though others do: expected <category>/<image>.png for all, or none"
)
_EMPTY = "a mask is empty: expected pixels other than 0; remove the file"
_BAD_COLOR = "a map has a color that labelmap.txt does not name: correct one of them"
_OBJECTS_SIZE = "a map of instances has another size than that of categories (width x height): export both again"
_NO_OBJECT_MAP = (
    "maps of categories without a map of instances in SegmentationObject, where others have one: each of their "
    "categories is one instance"
)
_NO_CLASS_MAP = "maps of instances without a map of categories in SegmentationClass: left out"
_NO_OBJECT = (
    "categories with pixels of no instance in SegmentationObject: these are one more instance; where they are none, "
    "correct the maps"
)
_NO_CLASS = "maps of instances with pixels of no category: these are left out; correct the maps"
_SEVERAL_CLASSES = "maps of instances of which some have several categories: each category's part is an instance"
_BAD_VALUE = (
    "a map holds a value that stands for no category: expected 0 to 254, and no more than the list of classes has "
    "names; 255 is void. Is it a colored picture of a map?"
)
_ONLY_VOID = "maps of 0 and 255 alone, and 255 is void here: use values from 1 to 254, or a folder per category"
_MANY_VALUES = "masks of tens of gray values, as of a photo or of blurred edges"
_SEVERAL_VALUES = (
    "masks of several values besides 0, which are read as one instance: where each is an instance of its own, save "
    "each as a mask of its own, <category>/<image>/<n>.png"
)
_FILLED = "masks that fill their whole image: is their background 0?"
_INVERTED = "masks whose border is mostly of their instance: is their background what is not 0?"
_OTHER_BORDER = "maps whose border is mostly of a category: is that their background, which is 0 here?"
_TRANSPARENT = "masks whose shape lies in their transparency: what is opaque is read"
_TWO_CLUSTERS = "masks of values near 0 and near 255, as JPEG leaves them: those from 128 on are read"
_OTHER_BACKGROUND = "masks of two values of which none is 0: the larger is read"
_MANY = 20  # values
_MOSTLY = 0.5  # share of a border
_DARK, _MIDDLE, _BRIGHT = 64, 128, 192
_CLASSES, _OBJECTS = "segmentationclass", "segmentationobject"  # folders of PASCAL VOC, in lower case
_VOID = 255
_VOC_VOID = (224 << 16) + (224 << 8) + 192  # the color of PASCAL VOC's borders
_COLOR_BITS = 24
_MAX_PIXELS = 400_000_000


def read_masks(
    files: AnnotationFolder,
    images: ImageNames,
    *,
    source: str,
    classes: Sequence[str] | None,
    colors: ColorMap | None = None,
) -> Dataset:
    """Returns the dataset of a folder of masks.

    `classes`: all names in the order of their ids, from 1, which are the values of maps; None: the sorted names of the
    folders, or the values 1 to 254 that occur, named "1" and so on. `colors`: where maps are colored.
    Raises DatasetError with everything that is wrong.
    """
    if colors is not None:
        return _colored(files, images, source, colors)
    # In folders of categories, most names fit no image unless the folder is left out.
    fitting = (images.candidates(name) if "/" in name else images.alike(name) for name in files.names)
    are_by_category = sum(not candidates for candidates in fitting) * 2 > len(files.names)
    return (_by_category if are_by_category else _maps)(files, images, source, classes)


class _Mask(NamedTuple):
    """An instance's file, its category by name, its pixels and the size (height, width) of its image."""

    name: str
    category: str
    shape: Shape
    size: tuple[int, int]


def _by_category(files: AnnotationFolder, images: ImageNames, source: str, classes: Sequence[str] | None) -> Dataset:
    builder = DatasetBuilder(source, classes)
    has_folders = any("/" in name for name in files.names)
    found: dict[str, list[_Mask]] = {}
    for file in files:
        image, pixels = _image_of(file.name, images, builder, has_folders), _foreground(file, builder)
        if image is None or pixels is None:
            continue
        if not pixels.any():
            builder.problems.add(_EMPTY, file.name)
            continue
        mask = _Mask(file.name, file.name.partition("/")[0], _shape(pixels), _size(pixels))
        found.setdefault(image, []).append(mask)
    for image in images.names:
        masks = found.get(image, [])
        size = masks[0].size if masks else (0, 0)
        builder.add_image(image, *size)
        for mask in masks:
            if mask.size != size:
                builder.problems.add(_OTHER_SIZE, f"{mask.name} with {list(mask.size)} besides {list(size)}")
            else:
                builder.add_instance(f"{mask.name}#1", image, mask.category, mask.shape)
    return builder.dataset()


def _foreground(file: NamedFile, builder: DatasetBuilder) -> Masks | None:
    """Returns the pixels of an instance, bool [H, W], or None where its file cannot be read."""
    values = _values(file, builder.problems)
    if values is None:
        return None
    alpha = decode_alpha(file.data, max_pixels=_MAX_PIXELS)
    what, pixels = _instance(values, alpha)
    is_photo = len(np.unique(values)) > _MANY
    if not np.array_equal(pixels, values != 0):
        builder.read_as(what, file.name)
    elif is_photo:
        builder.oddities.add(_MANY_VALUES, file.name)
    elif (num_values := len(np.unique(values[pixels]))) > 1:
        builder.oddities.add(_SEVERAL_VALUES, f"{file.name} with {counted(num_values, 'value')}")
    if pixels.all():
        builder.oddities.add(_FILLED, file.name)
    elif not is_photo and (share := _border(pixels).mean()) > _MOSTLY:
        builder.oddities.add(_INVERTED, f"{file.name} ({share:.0%} of its border)")
    return pixels


def _instance(values: npt.NDArray[np.int32], alpha: npt.NDArray[np.uint8] | None) -> tuple[str, Masks]:
    """Returns how a mask is understood, and its pixels, bool [H, W]; mostly all that are not 0."""
    if alpha is not None and alpha.min() < alpha.max():
        is_opaque = np.asarray(alpha >= _MIDDLE)
        if len(np.unique(values[is_opaque])) <= 1:
            return _TRANSPARENT, is_opaque
        values = np.where(is_opaque, values, 0)
    found = np.unique(values)
    is_bright = found >= _BRIGHT
    if found[-1] <= _VOID and is_bright.any() and not is_bright.all() and (is_bright | (found <= _DARK)).all():
        return _TWO_CLUSTERS if len(found) > 2 else _OTHER_BACKGROUND, np.asarray(values >= _MIDDLE)  # noqa: PLR2004
    if len(found) == 2 and found[0] != 0:  # noqa: PLR2004
        return _OTHER_BACKGROUND, np.asarray(values == found[1])
    return _TRANSPARENT, np.asarray(values != 0)


def _image_of(name: str, images: ImageNames, builder: DatasetBuilder, has_folders: bool) -> str | None:
    """Returns the image of a mask in a category's folder: of the mask's name, or else of its own folder's."""
    path = name.partition("/")[2]
    if not path:
        builder.problems.add(_NO_CATEGORY if has_folders else _NEITHER, name)
        return None
    own_folder = f"{dirname(path)}.png"
    is_in_own = not images.candidates(path) and bool(images.candidates(own_folder))
    return images.find(own_folder if is_in_own else path, builder.problems, note=builder.read_as)


def _maps(files: Iterable[NamedFile], images: ImageNames, source: str, classes: Sequence[str] | None) -> Dataset:
    names = classes if classes is not None else [str(value) for value in range(1, _VOID)]
    builder, used = DatasetBuilder(source, names), set[int]()
    for file in files:
        image = images.find(file.name, builder.problems, note=builder.read_as)
        values = _values(file, builder.problems)
        if image is None or values is None:
            continue
        if not builder.add_image(image, *_size(values), file.name):
            continue
        distinct = np.unique(values).tolist()
        if _VOID in distinct and not set(distinct) - {0, _VOID}:
            builder.oddities.add(_ONLY_VOID, file.name)
        if len(distinct) > _MANY and classes is None:
            builder.oddities.add(_MANY_VALUES, file.name)
        elif (most := _most_frequent(_border(values))) not in (0, _VOID):
            builder.oddities.add(_OTHER_BORDER, f"{file.name} with {most}")
        for value in distinct:
            if value in (0, _VOID):
                continue
            if not 0 < value <= min(len(names), _VOID - 1):
                builder.problems.add(_BAD_VALUE, f"{file.name} with {value}")
                continue
            used.add(value)
            builder.add_instance(f"{file.name}#{value}", image, names[value - 1], _shape(values == value))
    dataset = builder.dataset()
    if classes is not None:
        return dataset
    kept = dataset.categories[np.isin(dataset.categories.category_id, sorted(used))]  # those that a map holds
    return replace(dataset, categories=kept.replace(class_index=np.arange(len(kept), dtype=np.int32)))


def _colored(files: AnnotationFolder, images: ImageNames, source: str, colors: ColorMap) -> Dataset:
    """Reads maps in the colors of categories, and with them the maps of their instances, where there are such."""
    builder = DatasetBuilder(source, list(colors.of_category))
    name_of = {color: name for name, color in colors.of_category.items()}
    without = {0, _VOID, _VOC_VOID, *colors.backgrounds} - set(name_of)
    maps = {file.name: file for file in files}
    objects = {_below(name, _OBJECTS): file for name, file in maps.items() if _below(name, _OBJECTS)}
    has_objects = bool(objects)
    classes = {name: file for name, file in maps.items() if _below(name, _CLASSES)} or {
        name: file for name, file in maps.items() if not _below(name, _OBJECTS)
    }
    for name, file in classes.items():
        image = images.find(_below(name, _CLASSES) or name, builder.problems, note=builder.read_as)
        values = _values(file, builder.problems, as_colors=True)
        if image is None or values is None:
            continue
        if not builder.add_image(image, *_size(values), name):
            continue
        if (most := _most_frequent(_border(values))) in name_of:
            builder.oddities.add(_OTHER_BORDER, f"{name} with {name_of[most]}")
        own = objects.pop(_below(name, _CLASSES), None)
        if own is None and has_objects:
            builder.oddities.add(_NO_OBJECT_MAP, name)
        parts = None if own is None else _objects_of(own, values, without, builder)
        for color in np.unique(values).tolist():
            if color not in name_of and color not in without:
                red, green, blue = (color,) * 3 if color <= _VOID else (color >> 16, color >> 8 & 255, color & 255)
                builder.problems.add(_BAD_COLOR, f"{name} with {red},{green},{blue}")
            elif color in name_of:
                pixels = values == color
                if parts is not None and (num_without := np.count_nonzero(pixels & (parts == 0))):
                    builder.read_as(_NO_OBJECT, f"{name}: {num_without} pixels of {name_of[color]}")
                for number, part in enumerate(_parts(pixels, parts), start=1):
                    builder.add_instance(f"{name}#{name_of[color]}-{number}", image, name_of[color], _shape(part))
    builder.oddities.add_all(_NO_CLASS_MAP, [file.name for file in objects.values()])
    return builder.dataset()


def _objects_of(
    file: NamedFile, classes: npt.NDArray[np.int32], without: set[int], builder: DatasetBuilder
) -> npt.NDArray[np.int32] | None:
    """Returns the color of each pixel's instance, int32 [H, W], 0 for none; None where it does not fit its classes.

    Told is what instances and classes contradict each other in, but for pixels of a class that are of no instance.
    """
    objects = _values(file, builder.problems, as_colors=True)
    if objects is None:
        return None
    if objects.shape != classes.shape:
        (height, width), (own_height, own_width) = _size(classes), _size(objects)
        builder.problems.add(_OBJECTS_SIZE, f"{file.name} of {own_width} x {own_height} for {width} x {height}")
        return None
    is_object = (objects != 0) & (objects != _VOC_VOID)
    if num_outside := np.count_nonzero(is_object & np.isin(classes, list(without - {_VOID, _VOC_VOID}))):
        builder.oddities.add(_NO_CLASS, f"{file.name}: {num_outside} pixels")
    is_both = is_object & ~np.isin(classes, list(without))
    pairs = np.unique((objects[is_both].astype(np.int64) << _COLOR_BITS) + classes[is_both])
    if num_shared := int((np.unique(pairs >> _COLOR_BITS, return_counts=True)[1] > 1).sum()):
        builder.oddities.add(_SEVERAL_CLASSES, f"{file.name}: {counted(num_shared, 'instance')}")
    return objects


def _below(name: str, folder: str) -> str:
    """Returns the path below a folder of PASCAL VOC; empty for a file that lies in no such."""
    folders = name.lower().split("/")[:-1]
    return "/".join(name.split("/")[folders.index(folder) + 1 :]) if folder in folders else ""


def _parts(pixels: Masks, objects: npt.NDArray[np.int32] | None) -> Iterator[Masks]:
    """Yields the instances of a category in an image, by the map of its instances; all as one without it.

    The pixels of no instance come last, as one more.
    """
    if objects is None:
        yield pixels
        return
    for color in sorted(np.unique(objects[pixels]).tolist(), key=lambda color: color == 0):
        if color != _VOC_VOID:
            yield pixels & (objects == color)


def _border(pixels_HW: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the pixels along the four sides of an image."""
    return np.concatenate([pixels_HW[0], pixels_HW[-1], pixels_HW[:, 0], pixels_HW[:, -1]])


def _most_frequent(values: npt.NDArray[np.int32]) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])


def _shape(mask_HW: Masks) -> Shape:
    """Returns a mask of a whole image."""
    height, width = _size(mask_HW)
    return Shape(masks=(rle_of_part(mask_HW, top=0, left=0, height=height, width=width),))


def _size(pixels_HW: npt.NDArray[Any]) -> tuple[int, int]:
    return pixels_HW.shape[0], pixels_HW.shape[1]


def _values(file: NamedFile, problems: Problems, *, as_colors: bool = False) -> npt.NDArray[np.int32] | None:
    try:
        return decode_values(file.data, max_pixels=_MAX_PIXELS, as_colors=as_colors)
    except ImageError as error:
        problems.add(_BAD_MASK, f"{file.name}: {error}")
        return None
