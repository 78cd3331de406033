"""Adds references without an annotation file, leaves others out, and takes those back.

Not here: what becomes of them (`tasks/datasets/reference_edits.py`), which every later run with these references finds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.config.run_config import RunConfig
from refseg_core.errors import DatasetError, did_you_mean, in_natural_order, listed, shortened
from refseg_core.tables import References
from tasks.datasets.reference_edits import AddedReference, EditedReferences, ReferenceEdits, edit_references
from tasks.index_dataset import index_dataset
from tasks.models.new_references import ReadReference, add_reference
from tasks.sample_references import sample_references
from tasks.store.store import Store

_SHOWN = 36


@dataclass(frozen=True)
class WantedEdits:
    """What is to be changed: references to add, and ids to drop and to take back."""

    add: Sequence[ReadReference] = ()
    drop: Sequence[str] = ()
    restore: Sequence[str] = ()


def edit(config: RunConfig, wanted: WantedEdits) -> tuple[list[AddedReference], EditedReferences]:
    """Makes the changes; returns the references that were added, and what all changes ever made leave.

    Raises DatasetError where a picture cannot be used, or an id is not known; nothing is dropped then.
    """
    edits = ReferenceEdits(Store(config.store), config.references.source)
    _check_known(config, wanted.drop)
    for reference_id in wanted.restore:
        edits.restore(reference_id)
    added = [add_reference(edits, new, config.models) for new in wanted.add]
    for reference_id in wanted.drop:
        edits.drop(reference_id)
    return added, edits.current()


def _check_known(config: RunConfig, wanted: Sequence[str]) -> None:
    if not wanted:
        return
    known = _known_ids(config)
    if unknown := [reference_id for reference_id in wanted if reference_id not in known]:
        raise DatasetError(
            f"--drop: {listed(map(_shown_id, unknown))} not among the references of this configuration, which are "
            f"{listed(in_natural_order(known), _SHOWN)}.{did_you_mean(unknown[0], known)}"
        )


def _shown_id(reference_id: str) -> str:
    return shortened(reference_id) or "''"


def _known_ids(config: RunConfig) -> list[str]:
    store, references = Store(config.store), config.references
    dataset = index_dataset.fn(store, references.source)
    sampled = sample_references.fn(
        store, dataset, references.sampling, references.named_ids, conventions=config.conventions
    )
    _, left = edit_references(store, references.source, dataset, sampled)
    return [str(annotation_id) for annotation_id in store.load(left, References).annotation_id]
