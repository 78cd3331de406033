"""Step 0: an annotation file, or else a folder's listing, becomes the tables images, annotations, categories.

Where LVIS's image entries say more of categories, a fourth table holds it.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from refseg_core.datasets.checks.file_names import with_names_of_files
from refseg_core.datasets.coco.columns import FEDERATED_VERSION, may_be_federated
from refseg_core.datasets.coco.mask_source import MaskFile
from refseg_core.datasets.dataset import NOTHING, VERSION, Dataset, dataset_of_files, first_images, select_images
from refseg_core.datasets.oddities import EXAMPLES, Oddity
from refseg_core.errors import DatasetError, ImageError, StoreError, counted, listed, printable
from refseg_core.images import IMAGE_SUFFIXES, WHITE
from refseg_core.settings import Conventions
from refseg_core.table_schema import Table
from refseg_core.tables import Images
from tasks.datasets.annotation_files import AnnotatedDataset, document_hashes, is_coco_file, read_annotations
from tasks.datasets.image_files import ImageFiles
from tasks.datasets.image_reader import read_image
from tasks.datasets.indexed import oddities_table
from tasks.runtime.retried_task import retried_task
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.storage.listing import FileInfo
from tasks.storage.objects import read_uri
from tasks.storage.uris import redact
from tasks.store.steps import INDEX_DATASET
from tasks.store.store import Artifact, Recipe, Store

log = logging.getLogger(__name__)

_LOOKED_AT, _MOST_PIXELS = 8, 100_000_000
_NEARLY_BLACK, _BRIGHTEST, _STEP = 16, 99, 4  # of 255; percentile; pixels from one that counts to the next


@retried_task("index dataset")
def index_dataset(store: Store, source: DatasetSource, *, conventions: Conventions = "corrected") -> Artifact:
    """Indexes a dataset; its key follows the content of the annotation file or of the listing.

    `conventions` say how annotations find their masks in `source.masks_from`, and nothing else.
    """
    masks = None
    if source.masks_from is not None:
        name = PurePosixPath(redact(source.masks_from)).name
        masks = MaskFile(read_uri(source.masks_from), name, conventions)
    if found := _known(store, source, masks, conventions):
        return found
    images = ImageFiles(Folder(source.images), by_version=source.with_versions)
    read = _from_annotations(source, masks, images) if source.annotations else _from_listing(source, images)
    read = replace(read, dataset=_with_white(read.dataset, source, images))
    dataset = read.dataset
    if len(dataset.images) == 0:
        raise DatasetError(
            f"{redact(source.annotations or source.images)}: no images. Expected files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, or annotations that list some.{_told(dataset.oddities)}"
        )
    labels = dataset.federated_labels
    recipe = _recipe(source, read, conventions, federated=labels is not None)

    def tables() -> list[Table]:
        oddities = (*dataset.oddities, *_dark_images(dataset.images, images.folder))
        return [
            dataset.images,
            dataset.annotations,
            dataset.categories,
            *([] if labels is None else [labels]),
            *([oddities_table(oddities)] if oddities else []),
        ]

    return store.make(recipe, tables)


def _told(oddities: Iterable[Oddity]) -> str:
    """Returns a sentence, after a space, for each oddity with its examples."""
    return "".join(f" {oddity}. Found: {listed(oddity.examples)}." for oddity in oddities)


def _dark_images(images: Images, folder: Folder) -> list[Oddity]:
    """Returns that most images are nearly black, by some of them."""
    dark, num_read = [], 0
    for row in np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(np.int64)).tolist():
        try:
            pixels = read_image(folder, images, row, max_pixels=_MOST_PIXELS)
        except (ImageError, StoreError, OSError):  # labeling tries again, and says so
            continue
        num_read += 1
        if np.percentile(pixels[::_STEP, ::_STEP], _BRIGHTEST) < _NEARLY_BLACK:
            dark.append(str(images.file_name[row]))
    what = (
        f"of {counted(num_read, 'image that was', 'images that were')} looked at are nearly black: are they "
        "of more bits than their values use?"
    )
    return [Oddity(what, len(dark), tuple(dark[:EXAMPLES]))] if 2 * len(dark) > num_read else []


def _known(store: Store, source: DatasetSource, masks: MaskFile | None, conventions: Conventions) -> Artifact | None:
    """Returns the dataset of a file of COCO json, where the store holds it: a large one takes a minute to parse.

    Not where images' versions count, since only the content says which images those are.
    """
    if source.annotations is None or not is_coco_file(source) or source.with_versions or source.white:
        return None
    document = read_uri(source.annotations)
    read = AnnotatedDataset(NOTHING, "coco", document_hashes(document, masks))
    return store.find(_recipe(source, read, conventions, federated=may_be_federated(document)))


def _recipe(source: DatasetSource, read: AnnotatedDataset, conventions: Conventions, *, federated: bool) -> Recipe:
    reframed, readings = read.dataset.reframed, read.dataset.readings
    return Recipe(
        *INDEX_DATASET,
        version=FEDERATED_VERSION if federated else VERSION,  # only what has the labels is made again
        settings={
            "images": redact(source.images),
            "annotations": redact(source.annotations) if source.annotations else None,
            "image_ids": list(source.image_ids) if source.image_ids is not None else None,
            **(
                {}
                if source.masks_from is None
                else {"masks_from": redact(source.masks_from), "conventions": conventions}
            ),
            **({} if source.limit is None else {"limit": source.limit}),
            **({} if read.kind in (None, "coco") else {"format": read.kind}),
            **({"readings": sorted(set(readings))} if readings else {}),
            **({"boxes": source.boxes} if source.boxes in ("xyxy", "mask") else {}),
        },
        inputs={**read.inputs, **({"frames": _hash_of_frames(reframed)} if reframed else {})},
    )


def _hash_of_frames(reframed: Mapping[str, str]) -> str:
    return hashlib.sha256(
        "".join(f"{name}\t{frame}\n" for name, frame in sorted(reframed.items())).encode()
    ).hexdigest()


def _from_annotations(source: DatasetSource, masks: MaskFile | None, images: ImageFiles) -> AnnotatedDataset:
    """Returns the dataset, with the versions of its images where they are wanted."""
    read = read_annotations(source, masks, images)
    if masks is not None and read.kind != "coco":
        raise DatasetError(
            f"targets.masks_from completes COCO json, and {redact(str(source.annotations))} is {read.kind}. Leave it "
            "null."
        )
    dataset, inputs = _selected(read.dataset, source), dict(read.inputs)
    if source.with_versions and len(dataset.images) and images.folder.can_be_listed:
        dataset = with_names_of_files(dataset, images)
        versions, inputs["images"] = _with_versions(dataset.images, images)
        dataset = replace(dataset, images=_with_frames(versions, dataset.reframed))
    return replace(read, dataset=dataset, inputs=inputs)


def _with_frames(images: Images, reframed: Mapping[str, str]) -> Images:
    """Returns the images with their frames in their versions, so that labels of another frame are made again."""
    frames = (reframed.get(name) for name in images.file_name)
    versions = [
        f"{version} {frame}" if frame else version for version, frame in zip(images.version, frames, strict=True)
    ]
    return images.replace(version=np.array(versions, dtype=object))


def _with_white(dataset: Dataset, source: DatasetSource, folder: ImageFiles) -> Dataset:
    """Returns the dataset with the value that is white in its 16-bit images; another than usual is told."""
    images = dataset.images
    white = source.white or folder.find_white(images.file_name.tolist())
    if white == WHITE:
        return dataset
    versions = [f"{version} white {white}" if version else "" for version in images.version]
    deep = folder.deep_images(images.file_name.tolist())
    what = f"images of 16-bit grayscale that is white at {white}: scaled by that"
    told = Oddity(what, len(deep), tuple(deep[:EXAMPLES]))
    return replace(
        dataset,
        images=images.replace(
            white=np.full(len(images), white, dtype=np.int32), version=np.array(versions, dtype=object)
        ),
        oddities=(*dataset.oddities, *([told] if source.white is None else [])),
        readings=(*dataset.readings, f"white is {white}"),
    )


def _from_listing(source: DatasetSource, images: ImageFiles) -> AnnotatedDataset:
    """Returns the dataset of a folder's images, which have no annotations."""
    files = images.images
    dataset = dataset_of_files(
        [file.name for file in files], [file.size for file in files], [file.version for file in files]
    )
    dataset = replace(dataset, oddities=images.oddities())
    inputs = {"content": _content(files)}
    if images.unusable:  # so that they are told when they appear
        inputs["unusable"] = hashlib.sha256("\n".join(map(printable, images.unusable)).encode()).hexdigest()
    return AnnotatedDataset(_selected(dataset, source), None, inputs)


def _selected(dataset: Dataset, source: DatasetSource) -> Dataset:
    selected = dataset if source.image_ids is None else select_images(dataset, source.image_ids)
    return selected if source.limit is None else first_images(selected, source.limit)


def _with_versions(images: Images, folder: ImageFiles) -> tuple[Images, str]:
    """Returns the images with the sizes and versions that a listing of their folder shows, and the listing's hash.

    Raises DatasetError where none of them is there: then it is the wrong folder.
    """
    wanted = set(images.file_name)
    found = {file.name: file for file in folder.listed if file.name in wanted}
    absent = FileInfo("", -1, "")
    files = [found.get(name, absent) for name in images.file_name]
    if not found:
        raise DatasetError(
            f"{redact(folder.folder.uri)}: holds none of {counted(len(images), 'image')} that the annotations list; "
            f"expected {images.file_name[0]} and others below it.{_where(wanted, folder)} Correct targets.images, or "
            "the file names."
        )
    if len(found) < len(images):
        missing = [str(name) for name in images.file_name if name not in found]
        log.warning("%d of %s not there: %s", len(missing), counted(len(images), "listed image"), listed(missing))
    images = images.replace(
        size=np.array([file.size for file in files], dtype=np.int64),
        version=np.array([file.version for file in files], dtype=object),
    )
    return images, _content(found[name] for name in sorted(found))


def _where(wanted: AbstractSet[str], folder: ImageFiles) -> str:
    """Returns a sentence, after a space, with the folders further down that hold such files, those with most first."""
    counts = Counter[str]()
    for file in folder.listed:
        parts = file.name.split("/")
        counts.update("/".join(parts[:depth]) for depth in range(1, len(parts)) if "/".join(parts[depth:]) in wanted)
    folders = [f"{redact(folder.folder.join(name))} ({number:,})" for name, number in counts.most_common()]
    return f" Files of these names are in {listed(folders)}." if folders else ""


def _content(files: Iterable[FileInfo]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\t{file.size}\t{file.version}\n".encode())
    return digest.hexdigest()
