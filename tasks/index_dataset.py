"""Step 0: an annotation file, or else a folder's listing, becomes the tables images, annotations, categories."""

import hashlib
from pathlib import PurePosixPath

from refseg_core.coco import CocoDataset, dataset_of_files, parse_coco, select_images
from refseg_core.errors import DatasetError
from refseg_core.images import IMAGE_SUFFIXES
from tasks.addresses import redact
from tasks.artifacts import Artifact, Recipe, Store
from tasks.retrying import retried_task
from tasks.sources import DatasetSource
from tasks.storage import Folder, read_uri


@retried_task("index dataset")
def index_dataset(store_uri: str, source: DatasetSource) -> Artifact:
    """Indexes a dataset; its key follows the content of the annotation file or of the listing."""
    dataset, content = _from_annotations(source) if source.annotations else _from_listing(source)
    if source.image_ids is not None:
        dataset = select_images(dataset, source.image_ids)
    if len(dataset.images) == 0:
        raise DatasetError(
            f"{redact(source.annotations or source.images)}: no images. Expected files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, or a COCO json that lists some."
        )
    recipe = Recipe(
        step="index_dataset",
        folder="dataset",
        version=1,
        settings={
            "images": redact(source.images),
            "annotations": redact(source.annotations) if source.annotations else None,
            "image_ids": list(source.image_ids) if source.image_ids is not None else None,
        },
        inputs={"content": content},
    )
    return Store(store_uri).make(recipe, lambda: [dataset.images, dataset.annotations, dataset.categories])


def _from_annotations(source: DatasetSource) -> tuple[CocoDataset, str]:
    data = read_uri(str(source.annotations))
    name = PurePosixPath(redact(str(source.annotations))).name
    return parse_coco(data, source=name), hashlib.sha256(data).hexdigest()


def _from_listing(source: DatasetSource) -> tuple[CocoDataset, str]:
    files = Folder(source.images).list_files(tuple(sorted(IMAGE_SUFFIXES)))
    listing = "\n".join(f"{file.name}\t{file.size}\t{file.version}" for file in files)
    dataset = dataset_of_files(
        [file.name for file in files], [file.size for file in files], [file.version for file in files]
    )
    return dataset, hashlib.sha256(listing.encode()).hexdigest()
