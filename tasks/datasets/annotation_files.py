"""Annotations of any format, as they lie in their place: which format it is, their files read, the dataset they make.

Not here: what the files mean (`refseg_core/datasets/`), and listing images that have no annotations
(`tasks/index_dataset.py`).
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from refseg_core.datasets import (
    SUFFIXES,
    ImageNames,
    NamedFile,
    annotation_files,
    format_of_document,
    formats_of_files,
    is_by_category,
    read_cvat,
    read_labelme,
    read_masks,
    read_voc,
    read_yolo,
)
from refseg_core.datasets.coco import MaskFile, parse_coco
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError, ImageError, StoreError
from refseg_core.images import IMAGE_SUFFIXES, image_size
from refseg_core.settings import Format
from refseg_core.tables import Images
from tasks.datasets.class_names import find_class_names
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.storage.listing import FileInfo
from tasks.storage.objects import read_uri
from tasks.storage.prefetch import ahead
from tasks.storage.uris import redact

log = logging.getLogger(__name__)

_NAMES: dict[Format, str] = {
    "coco": "COCO json",
    "voc": "PASCAL VOC XML",
    "yolo": "YOLO text files",
    "labelme": "labelme json",
    "cvat": "CVAT XML",
    "masks": "masks",
}
_AT_ONCE = 16  # files under way
_MAX_FILE_BYTES = 256 << 20
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Annotated:
    """A dataset, the format of its annotations, if it has any, and the hashes of what it was made from."""

    dataset: Dataset
    kind: Format | None
    inputs: dict[str, str]


def is_coco_file(source: DatasetSource) -> bool:
    """Whether the annotations are one file of COCO json, by its name."""
    return redact(str(source.annotations)).lower().endswith(SUFFIXES["coco"]) and source.format in ("auto", "coco")


def read_annotations(source: DatasetSource, masks: MaskFile | None) -> Annotated:
    """Reads `source.annotations`, whose format is told by what lies there unless `source.format` says it.

    Raises DatasetError naming everything that is wrong with it, StoreError where it cannot be read.
    """
    uri = str(source.annotations)
    is_json = is_coco_file(source)
    if not is_json and _is_folder(uri):
        return _of_folder(Folder(uri), source, masks)
    document = read_uri(uri)
    if is_json:
        return _of_document(uri, document, "coco", masks)
    return _of_document(uri, document, _chosen(source) or format_of_document(document), masks)


def _of_folder(folder: Folder, source: DatasetSource, masks: MaskFile | None) -> Annotated:
    files = {file.name: file for file in folder.list_files()}
    kind = _chosen(source) or _tell(folder, list(files))
    names = annotation_files(files, kind)
    if not names:
        raise DatasetError(
            f"{redact(folder.uri)}: holds no {_NAMES[kind]}: expected files ending in {SUFFIXES[kind]}. Correct "
            "annotations or format."
        )
    if kind not in ("coco", "cvat"):
        return _of_files(_Files(folder, [files[name] for name in names]), kind, source)
    if len(names) > 1:
        raise DatasetError(
            f"{redact(folder.uri)}: holds {len(names)} files ending in {SUFFIXES[kind]}, such as {names[0]} and "
            f"{names[1]}; {_NAMES[kind]} is one file. Name it as annotations."
        )
    return _of_document(folder.join(names[0]), folder.read(names[0]), kind, masks)


def _chosen(source: DatasetSource) -> Format | None:
    return None if source.format == "auto" else source.format


def _tell(folder: Folder, names: Sequence[str]) -> Format:
    """The format of a folder's files. Raises DatasetError where none fits, or several do."""
    kinds = formats_of_files(names)
    if len(kinds) != 1:
        found = ", ".join(f"{annotation_files(names, kind)[0]} ({kind}?)" for kind in kinds)
        raise DatasetError(
            f"{redact(folder.uri)}: holds {f'files of several formats: {found}' if kinds else 'no annotations'}. "
            "Expected COCO json, CVAT or VOC XML, YOLO .txt, labelme json, or masks as PNG. Set references.format or "
            "targets.format beside annotations to one of coco, voc, yolo, labelme, cvat, masks."
        )
    kind = kinds[0]
    if kind in ("voc", "labelme"):
        kind = format_of_document(folder.read_start(annotation_files(names, kind)[0], _HEADER_BYTES))
    number = len(annotation_files(names, kind))
    log.info("%s: taken for %s (%d files); set format to say otherwise", redact(folder.uri), _NAMES[kind], number)
    return kind


def _of_document(uri: str, document: bytes, kind: Format, masks: MaskFile | None) -> Annotated:
    inputs = document_hashes(document, masks)
    name = PurePosixPath(redact(uri)).name
    if kind == "coco":
        return Annotated(parse_coco(document, source=name, masks_from=masks), kind, inputs)
    if kind == "cvat":
        return Annotated(read_cvat(document, source=name), kind, inputs)
    raise DatasetError(f"{redact(uri)}: is one file, and {_NAMES[kind]} are a folder of files. Name the folder.")


def document_hashes(document: bytes, masks: MaskFile | None) -> dict[str, str]:
    """What a dataset of one annotation file was made from, and a file of masks beside it."""
    return {"content": _sha256(document)} | ({} if masks is None else {"masks": _sha256(masks.document)})


@dataclass
class _Files:
    """A folder's annotation files, read in order, several at once, and hashed as they pass."""

    folder: Folder
    listed: Sequence[FileInfo]
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.listed]

    def __iter__(self) -> Iterator[NamedFile]:
        for name, data in zip(self.names, ahead(self.folder.read, self.names, _AT_ONCE), strict=True):
            self.digest.update(f"{name}\t{_sha256(data)}\n".encode())
            yield NamedFile(name, data)

    def check_sizes(self) -> None:
        """Raises DatasetError where a file is larger than any annotation of one image."""
        large = [file.name for file in self.listed if file.size > _MAX_FILE_BYTES]
        if large:
            raise DatasetError(
                f"{redact(self.folder.uri)}: {len(large)} files are larger than {_MAX_FILE_BYTES >> 20} MB, such as "
                f"{large[0]}; expected the annotations of one image each."
            )


def _of_files(files: _Files, kind: Format, source: DatasetSource) -> Annotated:
    files.check_sizes()
    images, classes = _image_names(source, kind), find_class_names(files.folder, kind)
    read = _reader(files, kind, images, source)
    dataset = read(files, images, source=redact(files.folder.uri), classes=classes and classes.names)
    dataset = _with_sizes(dataset, Folder(source.images))
    inputs = {"content": files.digest.hexdigest(), "image_sizes": _sha256(_sizes_text(dataset.images))}
    return Annotated(dataset, kind, inputs | ({} if classes is None else {"classes": classes.sha256}))


def _reader(files: _Files, kind: Format, images: ImageNames, source: DatasetSource) -> Callable[..., Dataset]:
    if kind == "masks":
        return partial(read_masks, by_category=is_by_category(files.names, images))
    if kind == "yolo":
        labeled = sorted({image for name in files.names for image in images.candidates(name)})
        return partial(read_yolo, sizes=_measure(Folder(source.images), labeled))
    return read_voc if kind == "voc" else read_labelme


def _image_names(source: DatasetSource, kind: Format) -> ImageNames:
    """The images of the folder; masks that lie within it are none of them."""
    folder = Folder(source.images)
    if not folder.can_be_listed:
        raise DatasetError(
            f"{redact(source.images)}: cannot be listed, and {_NAMES[kind]} are matched to images by name. Use a "
            "folder or bucket, or COCO json."
        )
    names = [file.name for file in folder.list_files(tuple(sorted(IMAGE_SUFFIXES)))]
    images_uri, uri = (f"{place.rstrip('/')}/" for place in (source.images, str(source.annotations)))
    if kind == "masks" and uri != images_uri and uri.startswith(images_uri):
        inner = uri.removeprefix(images_uri)
        names = [name for name in names if not name.startswith(inner)]
    return ImageNames(names)


def _with_sizes(dataset: Dataset, folder: Folder) -> Dataset:
    """With the sizes of annotated images that their annotations do not tell, such as VOC files with a size of 0."""
    is_unknown = np.isin(dataset.images.image_id.astype(str), dataset.annotations.image_id.astype(str))
    is_unknown &= dataset.images.height * dataset.images.width == 0
    measured = _measure(folder, dataset.images.file_name[is_unknown].tolist())
    height, width = dataset.images.height.copy(), dataset.images.width.copy()
    for row in np.flatnonzero(is_unknown).tolist():
        height[row], width[row] = measured[dataset.images.file_name[row]]
    return replace(dataset, images=dataset.images.replace(height=height, width=width))


def _measure(folder: Folder, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(height, width) of each image, several read at once."""
    return dict(zip(names, ahead(partial(_size_of, folder), names, _AT_ONCE), strict=True))


def _size_of(folder: Folder, name: str) -> tuple[int, int]:
    """(height, width) of an image from its first bytes, or from all of them; (0, 0) where it cannot be read."""
    for read in (partial(folder.read_start, name, _HEADER_BYTES), partial(folder.read, name)):
        try:
            return image_size(read())
        except ImageError:
            continue
    return 0, 0


def _is_folder(uri: str) -> bool:
    folder = Folder(uri)
    try:
        if folder.can_be_listed:
            folder.check_readable()
    except StoreError:  # a file, or nothing; reading it will tell
        return False
    return folder.can_be_listed


def _sizes_text(images: Images) -> bytes:
    rows = zip(images.file_name, images.height.tolist(), images.width.tolist(), strict=True)
    return "".join(f"{name}\t{height}\t{width}\n" for name, height, width in rows).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
