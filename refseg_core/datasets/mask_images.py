"""Folders of masks, PNG files, in one of two layouts.

    boat/harbour.png      a folder for each category: what is not 0 is an instance of it in the image harbour
    boat/harbour/2.png    the same for several instances in one image, one file each
    harbour.png           one map for each image: the pixels of each value are an instance; 0 is background, 255 void

Parts of a mask that do not touch stay one instance. An image without a mask in the first layout has no instance; in the
second it is not part of the dataset.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from posixpath import dirname
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.builder import AnnotationFolder, DatasetBuilder, NamedFile, Shape
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.errors import ImageError, Problems
from refseg_core.images import decode_values
from refseg_core.masks.rle import Masks, rle_of_part

_BAD_MASK = "a mask cannot be read: expected a PNG file; export it again"
_OTHER_SIZE = "the masks of an image have different sizes: expected that of the image; export them again"
_NO_CATEGORY = (
    "a mask lies in no folder of a category, though others do: expected <category>/<image>.png for all, or none"
)
_EMPTY = "a mask is empty: expected pixels other than 0; remove the file"
_BAD_VALUE = (
    "a map holds a value that stands for no category: expected 0 to 254, and no more than the list of classes has "
    "names; 255 is void. Is it a colored picture of a map?"
)
_VOID = 255
_MAX_PIXELS = 400_000_000


def read_masks(files: AnnotationFolder, images: ImageNames, *, source: str, classes: Sequence[str] | None) -> Dataset:
    """Returns the dataset of a folder of masks.

    `classes`: all names in the order of their ids, from 1, which are the values of maps; None: the sorted names of the
    folders, or the values 1 to 254 that occur, named "1" and so on. Raises DatasetError with everything that is wrong.
    """
    # In folders of categories, most names fit no image unless the folder is left out.
    are_by_category = sum(not images.candidates(name) for name in files.names) * 2 > len(files.names)
    return (_by_category if are_by_category else _maps)(files, images, source, classes)


class _Mask(NamedTuple):
    """An instance's file, its category by name, its pixels and the size (height, width) of its image."""

    name: str
    category: str
    shape: Shape
    size: tuple[int, int]


def _by_category(files: Iterable[NamedFile], images: ImageNames, source: str, classes: Sequence[str] | None) -> Dataset:
    builder = DatasetBuilder(source, classes)
    found: dict[str, list[_Mask]] = {}
    for file in files:
        image, values = _image_of(file.name, images, builder.problems), _values(file, builder.problems)
        if image is None or values is None:
            continue
        if not values.any():
            builder.problems.add(_EMPTY, file.name)
            continue
        mask = _Mask(file.name, file.name.partition("/")[0], _shape(values != 0), _size(values))
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


def _image_of(name: str, images: ImageNames, problems: Problems) -> str | None:
    """Returns the image of a mask in a category's folder: of the mask's name, or else of its own folder's."""
    path = name.partition("/")[2]
    if not path:
        problems.add(_NO_CATEGORY, name)
        return None
    own_folder = f"{dirname(path)}.png"
    return images.find(own_folder if not images.candidates(path) and images.candidates(own_folder) else path, problems)


def _maps(files: Iterable[NamedFile], images: ImageNames, source: str, classes: Sequence[str] | None) -> Dataset:
    names = classes if classes is not None else [str(value) for value in range(1, _VOID)]
    builder, used = DatasetBuilder(source, names), set[int]()
    for file in files:
        image = images.find(file.name, builder.problems)
        values = _values(file, builder.problems)
        if image is None or values is None:
            continue
        builder.add_image(image, *_size(values))
        for value in np.unique(values).tolist():
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


def _shape(mask_HW: Masks) -> Shape:
    """Returns a mask of a whole image."""
    height, width = _size(mask_HW)
    return Shape(masks=(rle_of_part(mask_HW, top=0, left=0, height=height, width=width),))


def _size(pixels_HW: npt.NDArray[Any]) -> tuple[int, int]:
    return pixels_HW.shape[0], pixels_HW.shape[1]


def _values(file: NamedFile, problems: Problems) -> npt.NDArray[np.int32] | None:
    try:
        return decode_values(file.data, max_pixels=_MAX_PIXELS)
    except ImageError as error:
        problems.add(_BAD_MASK, f"{file.name}: {error}")
        return None
