"""In which frame annotations were drawn: the pixels as a file stores them, or the picture as people see it.

The two differ where a file has an EXIF orientation. Some tools annotate what people see, others the stored pixels; the
declared size tells them apart only where the orientation swaps the sides. Here: what the headers of the files say of
a dataset's images. Not here: reading headers (`tasks/datasets/image_headers.py`), turning pixels
(`refseg_core/images.py`).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.turned import TURNED, fitting_only_turned
from refseg_core.datasets.oddities import OddityCounter
from refseg_core.images import ImageHeader
from refseg_core.masks.rle import Rle, decode_mask, encode_masks
from refseg_core.table_schema import Array
from refseg_core.tables import Annotations, Images

FITTED = 2  # px that a declared size may differ from the file's: exporters round, and crop to even sides

_UPRIGHT = (
    "images with an EXIF orientation that sizes cannot tell: taken as people see them, which is what tools of this "
    "format show"
)
_STORED = (
    "images with an EXIF orientation that sizes cannot tell: taken as their pixels are stored, as this format means "
    "them; if the annotations were drawn on what people see, save the images without the orientation"
)
_NEAR = f"images whose declared size differs by at most {FITTED} px from the file's: their masks are fitted"
_OTHER_SIZE = (
    "images whose declared size is not that of their file, so that they cannot be used: correct width and height, or "
    "give the images that were annotated"
)
_MASKS_OF_OTHER_SIZE = (
    "images whose masks have another size than their file, so that they cannot be used: export the masks again at the "
    "size of the images, or give the images that were drawn on"
)

Size = tuple[int, int]  # (height, width)


def settle_frames(
    dataset: Dataset,
    headers: Mapping[str, ImageHeader],
    *,
    are_upright: bool,
    of_masks: bool = False,
    measured: Collection[str] = (),
) -> Dataset:
    """Returns the dataset with the frames of its images, as far as the headers of their files are known, by name.

    `are_upright`: whether the annotations' format shows people pictures as they are meant to be seen. `of_masks`:
    whether the sizes of the dataset are those of files of masks, which are declared otherwise. `measured`: the images,
    by name, whose annotations declare no size, so that they have that of the file. What had to be guessed,
    and sizes that are not those of the files, are among the dataset's oddities.
    """
    settled = _Settled(dataset, are_upright, of_masks, measured)
    for row, name in enumerate(dataset.images.file_name):
        if (header := headers.get(name)) is not None:
            settled.add(row, header)
    return settled.dataset()


class _Settled:
    """The frames and sizes of images, settled one by one."""

    def __init__(self, dataset: Dataset, are_upright: bool, of_masks: bool, measured: Collection[str]) -> None:
        self._dataset = dataset
        self._are_upright = are_upright
        self._of_masks = of_masks
        self._measured = set(measured)
        images = dataset.images
        self._sizes = np.stack([images.height, images.width], axis=1)
        self._frames = images.frame.copy()
        self._found = OddityCounter()
        self._reframed = dict(dataset.reframed)
        self._num_resized = 0
        with_masks = dataset.annotations.image_id[dataset.annotations.has_mask]
        self._has_mask = np.isin(images.image_id.astype(str), with_masks.astype(str))
        rows, boxes = image_rows(images, dataset.annotations), dataset.annotations.box_xywh
        self._turned = set(fitting_only_turned(self._sizes, rows, boxes).tolist())

    def add(self, row: int, header: ImageHeader) -> None:
        """Settles one image."""
        declared = (int(self._sizes[row, 0]), int(self._sizes[row, 1]))
        if not all(declared) or declared not in (header.stored_size, header.upright_size):
            if all(declared):
                self._fit(row, declared, header)
        elif header.orientation != 1:
            self._turn(row, declared, header)

    def _turn(self, row: int, declared: Size, header: ImageHeader) -> None:
        """An image that has an orientation, and one of its sizes."""
        name = str(self._dataset.images.file_name[row])
        if self._are_upright and declared == header.upright_size:
            self._frames[row] = "upright"
            if header.stored_size == header.upright_size:  # else the declared size alone told the frame
                self._reframed[name] = "upright"
                self._found.add(_UPRIGHT, f"{name} (orientation {header.orientation})")
        elif header.stored_size == header.upright_size:
            self._found.add(_STORED, f"{name} (orientation {header.orientation})")
        elif row in self._turned and not self._has_mask[row] and declared == header.stored_size:
            self._resize(row, header.upright_size)
            self._found.add(TURNED, name)
        elif name in self._measured:
            self._found.add(_STORED, f"{name} (orientation {header.orientation})")

    def _fit(self, row: int, declared: Size, header: ImageHeader) -> None:
        """An image whose declared size is neither that of its file nor that of the picture turned upright."""
        sizes = (header.upright_size, header.stored_size)
        for size in sizes if self._are_upright else sizes[::-1]:
            if max(abs(size[0] - declared[0]), abs(size[1] - declared[1])) <= FITTED:
                self._resize(row, size)
                self._found.add(_NEAR, self._both_sizes(row, declared, size))
                return
        self._found.add(
            _MASKS_OF_OTHER_SIZE if self._of_masks else _OTHER_SIZE,
            self._both_sizes(row, declared, header.upright_size),
        )

    def _resize(self, row: int, size: Size) -> None:
        self._sizes[row] = size
        self._num_resized += 1
        self._reframed[str(self._dataset.images.file_name[row])] = f"{size[0]} x {size[1]}"

    def _both_sizes(self, row: int, declared: Size, size: Size) -> str:
        name = self._dataset.images.file_name[row]
        given = f"{'has masks of' if self._of_masks else 'declares'} {declared[1]} x {declared[0]}"
        return f"{name} {given}, its file is {size[1]} x {size[0]} (width x height)"

    def dataset(self) -> Dataset:
        """Returns the dataset as it was settled."""
        images = self._dataset.images.replace(height=self._sizes[:, 0], width=self._sizes[:, 1], frame=self._frames)
        annotations = self._dataset.annotations
        return replace(
            self._dataset,
            images=images,
            annotations=_fitted(annotations, images) if self._num_resized else annotations,
            oddities=(*self._dataset.oddities, *self._found.found()),
            reframed=self._reframed,
        )


def image_rows(images: Images, annotations: Annotations) -> Array:
    """Returns the row of each annotation's image, int64 [N]."""
    row_of = {image_id: row for row, image_id in enumerate(images.image_id)}
    return np.array([row_of[image_id] for image_id in annotations.image_id], dtype=np.int64)


def _fitted(annotations: Annotations, images: Images) -> Annotations:
    """Returns the annotations with masks of their images' sizes."""
    size_of = dict(zip(images.image_id, zip(images.height.tolist(), images.width.tolist(), strict=True), strict=True))
    masks = annotations.mask_rle.copy()
    for row, (image_id, mask) in enumerate(zip(annotations.image_id, masks, strict=True)):
        if mask is not None and all(size_of[image_id]) and mask.size != size_of[image_id]:
            masks[row] = _fitted_mask(mask, size_of[image_id])
    return annotations.replace(mask_rle=masks)


def _fitted_mask(mask: Rle, size: Size) -> Rle:
    """Returns a mask cut, or grown by background, at its right and lower edges."""
    fitted = np.zeros(size, dtype=bool)
    pixels = decode_mask(mask)[: size[0], : size[1]]
    fitted[: pixels.shape[0], : pixels.shape[1]] = pixels
    return encode_masks(fitted[None])[0]
