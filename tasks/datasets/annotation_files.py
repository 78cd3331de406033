"""Annotations of any format, as they lie in their place: which format it is, their files read, the dataset they make.

Not here: what the files mean (`refseg_core/datasets/`), and listing images that have no annotations
(`tasks/index_dataset.py`).
"""

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from posixpath import normpath
from typing import Any

import numpy as np

from refseg_core.datasets.builder import NamedFile
from refseg_core.datasets.checks.boxes import with_boxes
from refseg_core.datasets.checks.file_names import with_names_of_files
from refseg_core.datasets.checks.frames import settle_frames
from refseg_core.datasets.checks.repeated import merge_repeated
from refseg_core.datasets.coco.mask_source import MaskFile
from refseg_core.datasets.dataset import Dataset, is_among
from refseg_core.datasets.format_detection import (
    annotation_files,
    files_left_out,
    format_of_documents,
    formats_of_files,
)
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.datasets.image_files.names import check_file_name, is_hidden
from refseg_core.errors import DatasetError, StoreError, counted
from refseg_core.images import IMAGE_SUFFIXES
from refseg_core.settings.choices import ANNOTATION_FORMATS, AnnotationFormat
from tasks.datasets.class_names import find_class_names
from tasks.datasets.image_files import ImageFiles
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.storage.listing import FileInfo
from tasks.storage.objects import read_uri
from tasks.storage.prefetch import prefetch
from tasks.storage.uris import redact

log = logging.getLogger(__name__)

_AT_ONCE = 16  # files under way
_LOOKED_AT = 8  # files that may tell their format, where those before are damaged
_WRITTEN = (*{kind.suffix for kind in ANNOTATION_FORMATS.values()}, ".yaml", ".yml", ".names")  # by annotation tools
_MAX_FILE_BYTES = 256 << 20
_HEADER_BYTES = 1 << 16
_ONE_FORMAT = (
    "A dataset has one format: convert the files to one, or add those of the others as single references with `refseg "
    "bank CONFIG --add`. "
)


@dataclass(frozen=True)
class AnnotatedDataset:
    """A dataset, the format of its annotations, if it has any, and the hashes of what it was made from."""

    dataset: Dataset
    kind: str | None
    inputs: dict[str, str]


def is_coco_file(source: DatasetSource) -> bool:
    """Returns whether the annotations are one file of COCO json, by its name."""
    return redact(str(source.annotations)).lower().endswith(ANNOTATION_FORMATS["coco"].suffix) and source.format in (
        "auto",
        "coco",
    )


def read_annotations(
    source: DatasetSource, masks: MaskFile | None, images: ImageFiles | None = None
) -> AnnotatedDataset:
    """Reads `source.annotations`, whose format is detected unless `source.format` names it.

    `images`: the files of the images, where they are listed already. Raises DatasetError naming everything that is
    wrong with it, StoreError where it cannot be read.
    """
    images = images or ImageFiles(Folder(source.images))
    uri = str(source.annotations)
    is_json = is_coco_file(source)
    if not is_json and _is_folder(uri):
        read = _of_folder(Folder(uri), source, masks, images)
    else:
        document = read_uri(uri)
        name = "coco" if is_json else _chosen(source) or format_of_documents([document])
        read = _of_document(uri, document, ANNOTATION_FORMATS[name], masks, images)
    return replace(read, dataset=with_boxes(read.dataset, source.boxes, redact(uri)))


def _of_folder(folder: Folder, source: DatasetSource, masks: MaskFile | None, images: ImageFiles) -> AnnotatedDataset:
    listed = folder.list_files()
    files = {file.name: file for file in listed if not is_hidden(file.name) and check_file_name(file.name) is None}
    kind = ANNOTATION_FORMATS[_chosen(source) or _detect(folder, list(files))]
    names = annotation_files(files, kind.suffix)
    if not names:
        raise DatasetError(
            f"{redact(folder.uri)}: holds no {kind.title}: expected files ending in {kind.suffix}. Correct "
            "annotations or format."
        )
    if not kind.is_one_file:
        all_names = [file.name for file in listed]
        return _of_files(_Files(folder, [files[name] for name in names], all_names, images), kind, source)
    if len(names) > 1:
        raise DatasetError(
            f"{redact(folder.uri)}: holds {len(names)} files ending in {kind.suffix}, such as {names[0]} and "
            f"{names[1]}; {kind.title} is one file. Name it as annotations."
        )
    read = _of_document(folder.join(names[0]), folder.read(names[0]), kind, masks, images)
    left_out = files_left_out([file.name for file in listed], kind.suffix)
    return replace(read, dataset=replace(read.dataset, oddities=(*read.dataset.oddities, *left_out)))


def _chosen(source: DatasetSource) -> str | None:
    return None if source.format == "auto" else source.format


def _detect(folder: Folder, names: Sequence[str]) -> str:
    """Returns the format of a folder's files. Raises DatasetError where none fits, or several do."""
    found = formats_of_files(names)
    if len(found) != 1:
        files = [f"{annotation_files(names, suffix)[0]} ({' or '.join(kinds)}?)" for suffix, kinds in found.items()]
        what = f"files of several formats: {', '.join(files)}" if files else "no annotations"
        raise DatasetError(
            f"{redact(folder.uri)}: holds {what}. Expected "
            f"{', '.join(kind.title for kind in ANNOTATION_FORMATS.values())}. {_ONE_FORMAT if files else ''}Set "
            f"references.format or targets.format to one of {', '.join(ANNOTATION_FORMATS)}"
            f"{', which leaves out the files of the others' if files else ''}."
        )
    ((suffix, kinds),) = found.items()
    files = annotation_files(names, suffix)
    starts = (folder.read_start(name, _HEADER_BYTES) for name in files[:_LOOKED_AT])
    kind = kinds[0] if len(kinds) == 1 else format_of_documents(starts)
    title = ANNOTATION_FORMATS[kind].title
    log.info(
        "%s: taken for %s (%s); set format to say otherwise", redact(folder.uri), title, counted(len(files), "file")
    )
    return kind


def _of_document(
    uri: str, document: bytes, kind: AnnotationFormat, masks: MaskFile | None, images: ImageFiles
) -> AnnotatedDataset:
    if not kind.is_one_file:
        raise DatasetError(f"{redact(uri)}: is one file, and {kind.title} are a folder of files. Name the folder.")
    source = redact(uri)
    options = {"masks_from": masks} if kind.name == "coco" else {}
    dataset = kind.load()(document, source=source, folder=images, **options)
    dataset = merge_repeated(_with_names(dataset, images), source)
    return AnnotatedDataset(_in_frames(dataset, kind, images), kind.name, document_hashes(document, masks))


def _with_names(dataset: Dataset, images: ImageFiles) -> Dataset:
    """Returns the dataset with the names of its images' files; they are listed only where some are not as written."""
    looked_at = images.some(_annotated(dataset))
    is_plain = all(normpath(name) == name for name in dataset.images.file_name)
    if is_plain and len(images.read(looked_at)) == len(looked_at):
        return dataset
    return with_names_of_files(dataset, images)


def _in_frames(dataset: Dataset, kind: AnnotationFormat, images: ImageFiles, measured: Collection[str] = ()) -> Dataset:
    """Returns the dataset with the frames that the headers of its annotated images show."""
    headers = images.read(images.some(_annotated(dataset)))
    of_masks = kind.name == "masks"
    return settle_frames(dataset, headers, are_upright=kind.is_upright, of_masks=of_masks, measured=measured)


def _annotated(dataset: Dataset) -> list[str]:
    is_annotated = is_among(dataset.images.image_id, set(dataset.annotations.image_id))
    names: list[str] = dataset.images.file_name[is_annotated].tolist()
    return names


def document_hashes(document: bytes, masks: MaskFile | None) -> dict[str, str]:
    """Returns the hashes of what a dataset of one annotation file was made from, and of its file of masks."""
    return {"content": _sha256(document)} | ({} if masks is None else {"masks": _sha256(masks.document)})


@dataclass
class _Files:
    """A folder's annotation files, read in order, several at once, and hashed as they pass; and their images.

    `all_names`: also those of its other files.
    """

    folder: Folder
    listed: Sequence[FileInfo]
    all_names: Sequence[str]
    images: ImageFiles
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.listed]

    def __iter__(self) -> Iterator[NamedFile]:
        for name, data in zip(self.names, prefetch(self.folder.read, self.names, _AT_ONCE), strict=True):
            self.digest.update(f"{name}\t{_sha256(data)}\n".encode())
            yield NamedFile(name, data)

    def image_sizes(self, images: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Returns (height, width) of each image, several read at once; (0, 0) where one cannot be read."""
        return self.images.sizes(images)

    def check_sizes(self) -> None:
        """Raises DatasetError where a file is larger than any annotation of one image."""
        large = [file.name for file in self.listed if file.size > _MAX_FILE_BYTES]
        if large:
            raise DatasetError(
                f"{redact(self.folder.uri)}: {counted(len(large), 'file is', 'files are')} larger than "
                f"{_MAX_FILE_BYTES >> 20} MB, such as {large[0]}; expected the annotations of one image each."
            )


def _of_files(files: _Files, kind: AnnotationFormat, source: DatasetSource) -> AnnotatedDataset:
    files.check_sizes()
    images, classes = _image_names(files.images, source, kind), find_class_names(files.folder, kind.name)
    options: dict[str, Any] = {"folder": files.images} if kind.name in ("voc", "labelme") else {}
    if classes is not None and kind.name in ("yolo", "masks"):
        options = {"keypoints": classes.keypoints} if kind.name == "yolo" else {"colors": classes.colors}
    names = classes and classes.names
    dataset = kind.load()(files, images, source=redact(files.folder.uri), classes=names, **options)
    if classes is not None:
        readings, oddities = (*dataset.readings, *classes.readings), (*dataset.oddities, *classes.oddities)
        dataset = replace(dataset, readings=readings, oddities=oddities)
    measured = files.images.sizes(_without_size(dataset), as_stored=not kind.is_upright)
    dataset = _in_frames(_with_sizes(dataset, measured), kind, files.images, measured)
    own = {files.images.folder.join(name) for name in images.names}
    others = [name for name in files.all_names if files.folder.join(name) not in own]
    left_out = (*files_left_out(others, kind.suffix), *files.images.oddities(_WRITTEN))
    dataset = replace(dataset, oddities=(*dataset.oddities, *left_out))
    found = dataset.images
    rows = zip(found.file_name, found.height.tolist(), found.width.tolist(), strict=True)
    sizes = "".join(f"{name}\t{height}\t{width}\n" for name, height, width in rows)
    inputs = {"content": files.digest.hexdigest(), "image_sizes": _sha256(sizes.encode())}
    return AnnotatedDataset(dataset, kind.name, inputs | ({} if classes is None else {"classes": classes.sha256}))


def _image_names(images: ImageFiles, source: DatasetSource, kind: AnnotationFormat) -> ImageNames:
    """Returns the images of the folder, without annotations that are image files in a folder within it."""
    if not images.folder.can_be_listed:
        raise DatasetError(
            f"{redact(source.images)}: cannot be listed, and {kind.title} are matched to images by name. Use a "
            "folder or bucket, or COCO json."
        )
    names = [file.name for file in images.images]
    images_uri, uri = (f"{place.rstrip('/')}/" for place in (source.images, str(source.annotations)))
    if kind.suffix in IMAGE_SUFFIXES and uri != images_uri and uri.startswith(images_uri):
        inner = uri.removeprefix(images_uri)
        names = [name for name in names if not name.startswith(inner)]
    return ImageNames(names)


def _without_size(dataset: Dataset) -> list[str]:
    """Returns the annotated images whose annotations declare no size, as some VOC files."""
    is_unknown = np.isin(dataset.images.image_id.astype(str), dataset.annotations.image_id.astype(str))
    is_unknown &= dataset.images.height * dataset.images.width == 0
    names: list[str] = dataset.images.file_name[is_unknown].tolist()
    return names


def _with_sizes(dataset: Dataset, measured: Mapping[str, tuple[int, int]]) -> Dataset:
    """Returns the dataset with the (height, width) of images by name."""
    height, width = dataset.images.height.copy(), dataset.images.width.copy()
    for row, name in enumerate(dataset.images.file_name.tolist()):
        height[row], width[row] = measured.get(name, (height[row], width[row]))
    return replace(dataset, images=dataset.images.replace(height=height, width=width))


def _is_folder(uri: str) -> bool:
    folder = Folder(uri)
    try:
        if folder.can_be_listed:
            folder.check_readable()
    except StoreError:  # a file, or nothing; reading it shows which
        return False
    return folder.can_be_listed


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
