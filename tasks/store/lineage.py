"""Follows artifacts back to what they were made from, through their manifests."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from refseg_core.errors import StoreError
from refseg_core.tables import Categories, NegativePrototypes, Prototypes, References
from tasks.storage.uris import redact
from tasks.store.steps import ARTIFACT_FOLDERS
from tasks.store.store import Artifact, Store, table_name

_PROMOTED = re.compile(r" #([0-9a-f-]{8,64})$")  # as `tasks/datasets/promoted_references.py` marks it


def reference_dataset(store: Store, prototypes: Artifact) -> Artifact:
    """Returns the dataset that the prototypes' references were sampled from."""
    return _follow(store, references_of(store, prototypes), "dataset")


def labeled_categories(store: Store, prototypes: Artifact) -> Categories:
    """Returns the categories of the prototypes, with their names, by ascending id."""
    categories = store.load(reference_dataset(store, prototypes), Categories)
    return categories[np.isin(categories.category_id, store.load(prototypes, Prototypes).category_id)]


def referenced_categories(store: Store, prototypes: Artifact) -> Categories:
    """Returns the categories that the prototypes' references show, negatives too, by ascending id."""
    categories = store.load(reference_dataset(store, prototypes), Categories)
    references = store.load(references_of(store, prototypes), References)
    return categories[np.isin(categories.category_id, references.category_id)]


def added_references(store: Store, dataset: Artifact) -> list[dict[str, Any]]:
    """Returns the references that were added to a dataset, each with its file's name in it and its original name."""
    added: list[dict[str, Any]] = (store.manifest(dataset.name) or {"settings": {}})["settings"].get("added", [])
    return added


def shown_names(store: Store, dataset: Artifact) -> dict[str, str]:
    """Returns what people call the pictures that were added to a dataset of references, by their file names in it."""
    return {one["file_name"]: without_decision(one["original_name"]) for one in added_references(store, dataset)}


def without_decision(original_name: str) -> str:
    """Returns the name of an added picture without the decision that made an instance of it a reference."""
    return _PROMOTED.sub("", original_name)


def decision_of(original_name: str) -> str | None:
    """Returns the decision that made an instance of an added picture a reference; None for other references."""
    found = _PROMOTED.search(original_name)
    return found and found[1]


def negatives_of(store: Store, prototypes: Artifact) -> NegativePrototypes:
    """Returns what is not to be labeled: no rows where nothing is named."""
    has_some = table_name(NegativePrototypes) in prototypes.num_rows
    return store.load(prototypes, NegativePrototypes) if has_some else NegativePrototypes.empty()


def references_of(store: Store, prototypes: Artifact) -> Artifact:
    """Returns the references, with masks, that the prototypes were made from."""
    return _follow(store, memory_bank_of(store, prototypes), "references")


def memory_bank_of(store: Store, prototypes: Artifact) -> Artifact:
    """Returns the memory bank that the prototypes were made from."""
    return _follow(store, prototypes, "memory_bank")


def reachable(roots: Collection[str], manifests: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Returns the artifacts that the roots were made from, there or not, and the roots themselves."""
    reached: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name.partition("/")[0] in ARTIFACT_FOLDERS and name not in reached:
            reached.add(name)
            pending += manifests[name]["inputs"].values() if name in manifests else ()
    return reached


def _follow(store: Store, artifact: Artifact, name: str) -> Artifact:
    manifest = store.manifest(artifact.name)
    if manifest is None:
        raise StoreError(f"{redact(store.uri)}: has no {artifact.name}, which other artifacts were made from.")
    if name not in manifest["inputs"]:
        # Segmented references were made from sampled ones, and those from the dataset.
        return _follow(store, store.named(manifest["inputs"][artifact.folder]), name)
    return store.named(manifest["inputs"][name])
