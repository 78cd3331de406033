"""The output of `refseg references`: a table of the references, and what to do about some in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.terminal import progress_bars, results, text_table
from refseg_core.errors import counted, listed
from refseg_core.table_schema import Array
from refseg_core.tables import ReferenceQuality
from tasks.outputs.reference_sheets import NEGATIVE, assess, describe_negatives, draw_sheets
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.lineage import negatives_of, reference_dataset, shown_names
from tasks.store.store import Artifact, Store

_ROWS_SHOWN = 100
_HEADER = ("category", "annotation", "image", "mask", "patches", "own", "other", "nearest other", "advice")


def report_references(store_uri: str, prototypes: Artifact, out: Path) -> None:
    """Prints the references' table, those with advice first where there are many, and draws their sheets."""
    store = Store(store_uri)
    artifact = assess(store, prototypes)
    quality = store.load(artifact, ReferenceQuality)
    has_advice = quality.advice.astype(bool)
    shown = np.sort(np.argsort(~has_advice, kind="stable")[:_ROWS_SHOWN])
    rows = _Rows(shown_names(store, reference_dataset(store, prototypes)), negatives_of(store, prototypes).category_id)
    title = "References: likeness (cosine) to the others of their own category, and to the nearest other category"
    results.print(text_table(_HEADER, map(rows.cells, (quality[row : row + 1] for row in shown.tolist())), title))
    if len(shown) < len(quality):
        results.print(f"and {len(quality) - len(shown)} more, without advice, in the table below")
    for sentence in _findings(quality):
        results.print(sentence)
    if negatives := describe_negatives(store, prototypes):
        results.print(f"Not to be labeled: {negatives}")
    with progress_bars():
        num_sheets = draw_sheets(store, prototypes, Folder(str(out)))
    results.print(f"Sheets:  {num_sheets} in {out}/")
    results.print(f"Table:   {redact(store_uri)}/{artifact.name}/reference_quality.parquet")


@dataclass(frozen=True)
class _Rows:
    """Writes references as rows, with the names that people know added pictures by, and with negatives told."""

    shown_names: Mapping[str, str]
    negative_ids: Array

    def cells(self, row: ReferenceQuality) -> tuple[str, ...]:
        """Returns the cells of a table of one row."""
        source, score, file_name = row.mask_source[0], row.mask_score[0], str(row.file_name[0])
        is_negative = row.category_id[0] in self.negative_ids
        return (
            f"{row.category_name[0]}{NEGATIVE if is_negative else ''}",
            str(row.annotation_id[0]),
            self.shown_names.get(file_name, file_name),
            str(source) if score is None else f"{source} {score:.2f}",
            f"{row.num_patches[0]:.0f}",
            _number(row.own_similarity[0]),
            _number(row.other_similarity[0]),
            str(row.other_category_name[0] or "-"),
            str(row.advice[0]),
        )


def _findings(quality: ReferenceQuality) -> Iterator[str]:
    """Yields how many references are where they belong, which are not, and categories with one only."""
    compared = np.array([own is not None for own in quality.own_similarity], dtype=bool)
    ids, counts = np.unique(quality.category_id, return_counts=True)
    if compared.any():
        right = int((compared & ~quality.is_outlier.astype(bool)).sum())
        yield f"{right} of {counted(int(compared.sum()), 'reference')} most like the others of the same category."
    for row in np.flatnonzero(quality.advice.astype(bool))[:_ROWS_SHOWN].tolist():
        yield f"  {quality.category_name[row]} {quality.annotation_id[row]}: {quality.advice[row]}"
    name_of = dict(zip(quality.category_id.tolist(), quality.category_name, strict=True))
    single = [str(name_of[category_id]) for category_id in ids[counts == 1].tolist()]
    if single:
        yield f"One example only, so that nothing can be compared: {listed(single)}. A second one tells more."
    if quality.is_outlier.any():
        yield (
            "Leave one out with `refseg bank CONFIG.yaml --drop ANNOTATION`, or correct its annotation; one that shows "
            "its category from another side may be worth keeping."
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
