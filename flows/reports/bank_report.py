"""Prints what became of a bank, and what two banks differ in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flows.terminal import progress_bars, results, text_table
from refseg_core.errors import ConfigurationError, counted, in_natural_order, listed
from refseg_core.references.validation import given_mask_doubts, mask_doubts
from refseg_core.tables import References
from tasks.datasets.reference_edits import AddedReference, EditedReferences
from tasks.outputs.bank_difference import BankDifference, CategoryDifference
from tasks.outputs.reference_sheets import describe_negatives, draw_sheets, twins_of
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.lineage import references_of
from tasks.store.store import Artifact, Store

_HEADER = ("category", "references", "prototypes' cosine", "in both", "only first", "only second")
_WITHOUT_LABELS = 3
_SHOWN = 36


def report_bank(
    store_uri: str, prototypes: Artifact, added: Sequence[AddedReference], edits: EditedReferences, out: Path
) -> None:
    """Prints what was added, now and before, and dropped; draws the categories of what was added now into a folder."""
    store = Store(store_uri)
    for one in added:
        results.print(f"Added {_described(one)}. Take it out with --drop {one.id}.")
    if added:
        _show_added(store, prototypes, added, out)
    if edits.added:
        with_added = counted(len(edits.added), "added reference")
        more = f"; and {len(edits.added) - _SHOWN} more" if len(edits.added) > _SHOWN else ""
        results.print(f"With {with_added}: {'; '.join(map(_described, edits.added[:_SHOWN]))}{more}")
    if edits.dropped:
        without = counted(len(edits.dropped), "dropped one")
        ids = listed(in_natural_order(edits.dropped), _SHOWN)
        results.print(f"Without {without}: {ids}; --restore ID takes one back")
    if negatives := describe_negatives(store, prototypes):
        results.print(f"Not to be labeled: {negatives}")
    number_made = counted(prototypes.num_rows["prototypes"], "prototype")
    results.print(f"{number_made} in {redact(store_uri)}/{prototypes.name}")


def _show_added(store: Store, prototypes: Artifact, added: Sequence[AddedReference], out: Path) -> None:
    """Prints what is doubtful about added references, and draws them among those of their categories."""
    references = store.load(references_of(store, prototypes), References)
    own = references[np.isin(references.annotation_id.astype(str), [one.id for one in added])]
    twins = twins_of(store, prototypes)
    for annotation_id, source, mask, score in zip(
        own.annotation_id, own.mask_source, own.mask_rle, own.mask_score, strict=True
    ):
        made = mask_doubts(mask, None if score is None else float(score))
        for doubt in made if source == "segmenter" else given_mask_doubts(mask):
            results.print(f"  {annotation_id} is doubtful: {doubt}")
        if annotation_id in twins:
            results.print(f"  {annotation_id} is {twins[annotation_id]}")
    try:
        with progress_bars():
            draw_sheets(store, prototypes, Folder(str(out)), only=set(own.category_id.tolist()))
    except ConfigurationError as error:  # the folder is not apart from the images; what was added stays
        results.print(f"The masks are not drawn. --out: {error}")
    else:
        results.print(f"Look at the masks: {out}/")


def _described(added: AddedReference) -> str:
    return f"{added.id} ({added.category}, {added.picture_name})"


def report_difference(difference: BankDifference) -> None:
    """Prints references and categories, then the labels."""
    for title, references in (("Only in the first", difference.removed), ("Only in the second", difference.added)):
        for reference in references:
            results.print(f"{title}: {reference}")
    if difference.negatives[0] != difference.negatives[1]:
        named = (negatives or "nothing" for negatives in difference.negatives)
        results.print("Not to be labeled: in the first {}; in the second {}".format(*named))
    length = len(_HEADER) if difference.labels is not None else _WITHOUT_LABELS
    rows = [_row(category)[:length] for category in difference.categories]
    results.print(text_table(_HEADER[:length], rows))
    if difference.labels is None:
        results.print("No labels were made with both by the same settings; `refseg pilot` makes some.")
        return
    keys, number = difference.labels.keys, difference.labels.num_images
    results.print(f"Instances with {difference.labels.shown}, in {counted(number, 'image')}.")
    results.print(f"Labels {keys[0]} and {keys[1]}.")
    if difference.labels.average_precision is not None:
        first, second = difference.labels.average_precision
        results.print(f"AP of masks: {first:.3f}, then {second:.3f} ({second - first:+.3f}).")


def _row(category: CategoryDifference) -> tuple[str, ...]:
    first, second = category.num_references
    references = str(first) if first == second else f"{first} -> {second}"
    cosine = "-" if category.cosine is None else f"{category.cosine:.3f}"
    counts = map(str, (category.in_both, category.only_first, category.only_second))
    return category.name, references, cosine, *counts
