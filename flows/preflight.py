"""Finds what would stop a run before hours are spent: in the first seconds, without a model and without Prefect."""

from flows.configuration import RunConfig
from tasks.index_dataset import index_dataset
from tasks.sample_references import sample_references
from tasks.storage import Folder, uri_size
from tasks.weights import locate_weights
from tasks.workers import pick_device


def check(config: RunConfig) -> None:
    """Checks places, weights, device and references; what it makes of them the run finds made.

    Raises the RefsegError that names what is wrong.
    """
    if config.targets.annotations is not None:
        uri_size(config.targets.annotations)
    Folder(config.targets.images).check_readable()
    for model in (config.segmenter, config.encoder):
        locate_weights(model.model, model.weights)
    pick_device(config.device)
    dataset = index_dataset.fn(config.store, config.references.source)
    sample_references.fn(config.store, dataset, config.references.sampling, config.references.chosen_annotation_ids)
