"""Rows that other artifacts of a store hold of the same references, so that adding one encodes only that one.

An artifact's key follows all that it is made from, so another reference makes another artifact. Next to its rows it
says what each was made from (`ReferenceSources`), and rows made from the same, by the same models and settings, are
the same.
"""

import logging
from collections.abc import Collection, Iterator

from refseg_core.errors import StoreError
from refseg_core.table_schema import Array
from refseg_core.tables import ReferenceSources
from tasks.store.parquet import AnyTable
from tasks.store.store import Artifact, Recipe, Store, table_name

log = logging.getLogger(__name__)


def known_rows(store: Store, recipe: Recipe, table: type[AnyTable], sources: Array) -> dict[str, AnyTable]:
    """Returns those of the sources that artifacts of the recipe hold, whatever their inputs; each a table of a row."""
    wanted, found = set(sources.tolist()), dict[str, AnyTable]()
    for artifact in _alike(store, recipe):
        if wanted <= found.keys():
            break
        try:
            found |= _rows_of(store, artifact, table, wanted - found.keys())
        except StoreError as error:
            log.warning("%s is not used again: %s", artifact.name, error)
    return found


def _rows_of(store: Store, artifact: Artifact, table: type[AnyTable], wanted: Collection[str]) -> dict[str, AnyTable]:
    held = store.load(artifact, ReferenceSources)
    rows = {source: row for source, row in zip(held.source, held.row_index.tolist(), strict=True) if source in wanted}
    whole = store.load(artifact, table) if rows else table.empty()
    return {source: whole[row : row + 1] for source, row in rows.items()}


def _alike(store: Store, recipe: Recipe) -> Iterator[Artifact]:
    """Yields, newest first, artifacts of the recipe but for inputs, if they say what their rows were made from."""
    for manifest in reversed(store.manifests(recipe.folder)):
        other = Recipe.of(manifest)
        is_alike = all(getattr(other, name) == getattr(recipe, name) for name in ("step", "version", "weights"))
        num_rows = {part["table"]: part["num_rows"] for part in manifest["tables"]}
        if is_alike and dict(other.settings) == dict(recipe.settings) and table_name(ReferenceSources) in num_rows:
            yield Artifact(recipe.folder, manifest["key"], num_rows)
