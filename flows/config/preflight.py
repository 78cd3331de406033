"""Checks a run before it starts: in seconds, without loading weights and without Prefect."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flows.config.run_config import RunConfig, check_config
from refseg_core.datasets.category_mapping import matching_ids
from refseg_core.errors import DatasetError, StoreError
from refseg_core.images import IMAGE_SUFFIXES
from refseg_core.models.acceleration import pick_device
from refseg_core.tables import Categories
from tasks.datasets.image_files import ImageFiles
from tasks.datasets.indexed import check_boxes
from tasks.datasets.protocol_choice import check_protocol
from tasks.index_dataset import index_dataset
from tasks.models.loading import check_memory
from tasks.models.weights import locate_weights
from tasks.outputs.pictures import check_apart
from tasks.sample_references import sample_references
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.store import Artifact, Store

Heard = Callable[[str, Artifact], None]
"""Is told of "References" and "Targets" as soon as they are indexed."""


class Checked(NamedTuple):
    """The indexed datasets: that of the references, and that of annotated targets."""

    references: Artifact
    targets: Artifact | None


def check(config: RunConfig, heard: Heard = lambda title, dataset: None) -> Checked:
    """Checks places, weights, device, references and targets; the run reuses the artifacts that this makes.

    `heard` learns of annotated datasets before they are checked further. Raises the RefsegError that names the problem.
    """
    check_config(config, source="configuration")
    for model in (config.segmenter, config.encoder):
        locate_weights(model.model, model.weights)
    if config.execution.engine == "process":
        pick_device(config.device)
        check_memory(config.models, config.labeling, config.batches)
    if config.pictures is not None:
        for images_uri in (config.targets.images, config.references.images):
            check_apart(Folder(config.pictures), images_uri)
    for key, written in (("store", config.store), ("pictures", config.pictures)):
        if written is not None:
            with _naming(key):
                Folder(written).check_writable()
    with _naming("references.images"):
        Folder(config.references.images).check_readable()
    references = _check_references(config, heard)
    if config.targets.annotations is not None:
        return Checked(references, _check_annotated_targets(config, references, heard))
    _check_folder_of_targets(config.targets.images)
    return Checked(references, None)


def _check_folder_of_targets(uri: str) -> None:
    with _naming("targets.images"):
        holds_images = _holds_images(Folder(uri))
    if not holds_images:
        raise DatasetError(
            f"targets.images: {redact(uri)} holds no image. Expected files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}."
        )


def _holds_images(folder: Folder) -> bool:
    """Returns whether there is any image, after a look at the first by name: the run lists all, perhaps a million."""
    return folder.holds_files(tuple(IMAGE_SUFFIXES)) or bool(ImageFiles(folder).images)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Raises the StoreErrors of the block with the key whose place they are about before them."""
    try:
        yield
    except StoreError as error:
        raise type(error)(f"{key}: {error}") from error


def _check_references(config: RunConfig, heard: Heard) -> Artifact:
    with _naming("references.annotations"):
        dataset = index_dataset.fn(Store(config.store), config.references.source)
    heard("References", dataset)
    if config.references.boxes == "auto":
        check_boxes(Store(config.store), dataset)
    sample_references.fn(
        Store(config.store),
        dataset,
        config.references.sampling,
        config.references.named_ids,
        conventions=config.conventions,
    )
    return dataset


def _check_annotated_targets(config: RunConfig, references: Artifact, heard: Heard) -> Artifact:
    with _naming("targets.images"):
        Folder(config.targets.images).check_readable()
    store = Store(config.store)
    with _naming("targets.annotations"):
        targets = index_dataset.fn(store, config.targets.source, conventions=config.conventions)
    heard("Targets", targets)
    matching_ids(store.load(references, Categories), store.load(targets, Categories))
    check_protocol(store, targets, config.evaluation, config.conventions)
    return targets
