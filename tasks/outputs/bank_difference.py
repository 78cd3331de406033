"""What two banks differ in: references, categories, prototypes, and the labels that were made by both.

Not here: printing it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refseg_core.analysis.label_agreement import compare_labels
from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.errors import StoreError
from refseg_core.tables import Categories, Detections, Images, LabeledImages, Metrics, Prototypes, References
from tasks.outputs.reference_sheets import describe_negatives
from tasks.storage.uris import redact
from tasks.store.label_store import FOLDER, StoredLabels
from tasks.store.lineage import labeled_categories, reference_dataset, referenced_categories, references_of, shown_names
from tasks.store.steps import EVALUATE, POSTPROCESS_MEMORY_BANK
from tasks.store.store import Artifact, Store
from tasks.store.thresholds import SCORE_THRESH, saved_thresholds

_OF_BANK = ("guidance_thresh", "negatives_version")  # settings that follow from the prototypes


@dataclass(frozen=True)
class Bank:
    """Prototypes in a store."""

    store: Store
    prototypes: Artifact

    @classmethod
    def at(cls, address: str) -> "Bank":
        """Returns the bank of an address such as runs/boats/prototypes/01234567, whose key may be shortened.

        Raises StoreError.
        """
        uri, separator, key = address.rstrip("/").rpartition(f"/{POSTPROCESS_MEMORY_BANK.folder}/")
        if not separator:
            raise StoreError(
                f"{redact(address)}: expected the address of prototypes, STORE/prototypes/KEY, which `refseg bank` "
                "prints."
            )
        store = Store(uri)
        folder = POSTPROCESS_MEMORY_BANK.folder
        return cls(store, store.named(f"{folder}/{store.whole_key(folder, key)}"))

    def references(self) -> References:
        """Reads what the prototypes were made from."""
        return self.store.load(references_of(self.store, self.prototypes), References)

    def categories(self) -> Categories:
        """Reads the categories."""
        return labeled_categories(self.store, self.prototypes)

    def names(self) -> dict[int, str]:
        """Reads the names of all categories that there are references of, negatives too."""
        categories = referenced_categories(self.store, self.prototypes)
        return dict(zip(categories.category_id.tolist(), map(str, categories.name), strict=True))

    def negatives(self) -> str:
        """Reads what is not to be labeled, in words."""
        return describe_negatives(self.store, self.prototypes)

    def table(self) -> Prototypes:
        """Reads the prototypes."""
        return self.store.load(self.prototypes, Prototypes)


@dataclass(frozen=True)
class CategoryDifference:
    """A category in both banks, or in one: references in each, and the cosine of the prototypes if it is in both.

    `in_both`, `only_first` and `only_second` count instances that are shown in images that both labeled: the same in
    both have masks of an IoU above 0.5.
    """

    name: str
    num_references: tuple[int, int]
    cosine: float | None
    in_both: int = 0
    only_first: int = 0
    only_second: int = 0


@dataclass(frozen=True)
class LabelsDifference:
    """The labels that were compared, how many images both have, and the AP of masks where both were evaluated.

    `shown`: by which thresholds the same of both are counted, in words.
    """

    keys: tuple[str, str]
    num_images: int
    shown: str
    average_precision: tuple[float, float] | None


@dataclass(frozen=True)
class BankDifference:
    """Everything that two banks differ in; `labels` is None where no images were labeled alike by both.

    `negatives`: what is not to be labeled by each, in words.
    """

    categories: tuple[CategoryDifference, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    negatives: tuple[str, str]
    labels: LabelsDifference | None


def compare_banks(first: Bank, second: Bank) -> BankDifference:
    """Compares two banks, and the newest labels that were made with them by the same settings."""
    removed, added = _only(first, second), _only(second, first)
    pair = _alike_labels(first, second)
    shown = LabelFilter(ScoreThresholds(SCORE_THRESH) if pair is None else _thresholds(*pair))
    found = (Detections.empty(), Detections.empty()) if pair is None else _detections(*pair, shown)
    negatives = first.negatives(), second.negatives()
    categories = tuple(_categories(first, second, *found))
    return BankDifference(categories, removed, added, negatives, pair and _labels(*pair, shown))


def _only(bank: Bank, other: Bank) -> tuple[str, ...]:
    """Returns the references that only the one bank has, as text."""
    theirs = {_identity(row) for row in _rows(other.references())}
    category_of, shown = bank.names(), shown_names(bank.store, reference_dataset(bank.store, bank.prototypes))
    lacking = [row for row in _rows(bank.references()) if _identity(row) not in theirs]
    return tuple(
        f"{row.annotation_id[0]} ({category_of[int(row.category_id[0])]}, "
        f"{shown.get(str(row.file_name[0]), row.file_name[0])})"
        for row in lacking
    )


def _rows(references: References) -> Iterator[References]:
    return (references[row : row + 1] for row in range(len(references)))


def _identity(row: References) -> tuple[str, str, str]:
    return str(row.annotation_id[0]), str(row.file_name[0]), str(row.box_xyxy[0].tolist())


def _categories(first: Bank, second: Bank, ours: Detections, theirs: Detections) -> Iterator[CategoryDifference]:
    tables, names = (first.table(), second.table()), dict[int, str]()
    for bank in (second, first):
        names |= zip(bank.categories().category_id.tolist(), map(str, bank.categories().name), strict=True)
    for category_id in sorted(names):
        rows = [table[table.category_id == category_id] for table in tables]
        numbers = [int(row.num_references[0]) if len(row) else 0 for row in rows]
        is_in_both = all(len(row) for row in rows) and rows[0].prototype.shape == rows[1].prototype.shape
        cosine = float(np.sum(rows[0].prototype * rows[1].prototype)) if is_in_both else None
        own = [found[found.category_id == category_id] for found in (ours, theirs)]
        agreement = compare_labels(own[0], own[1])
        yield CategoryDifference(
            name=names[category_id],
            num_references=(numbers[0], numbers[1]),
            cosine=cosine,
            in_both=agreement.num_paired,
            only_first=agreement.num_expected - agreement.num_paired,
            only_second=agreement.num_found - agreement.num_paired,
        )


def _alike_labels(first: Bank, second: Bank) -> tuple[StoredLabels, StoredLabels] | None:
    """Returns the newest labels of both banks that only the banks tell apart, those of a pilot included."""
    theirs = _recipes(second)
    for recipe in _recipes(first):
        for other in theirs:
            if _alike(recipe, other):
                return StoredLabels(first.store, recipe["key"]), StoredLabels(second.store, other["key"])
    return None


def _recipes(bank: Bank) -> list[dict[str, Any]]:
    recipes = bank.store.manifests(FOLDER, "recipe.json")
    return [recipe for recipe in reversed(recipes) if recipe["inputs"].get("prototypes") == bank.prototypes.name]


def _alike(recipe: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    settings = [
        {name: value for name, value in one["settings"].items() if name not in _OF_BANK} for one in (recipe, other)
    ]
    return (
        settings[0] == settings[1] and recipe["weights"] == other["weights"] and recipe["version"] == other["version"]
    )


def _thresholds(ours: StoredLabels, theirs: StoredLabels) -> ScoreThresholds:
    """Returns the thresholds by which both are shown: those saved for the second, else for the first, else 0.5."""
    saved = (saved_thresholds(run) for run in (theirs, ours))
    return next(filter(None, saved), ScoreThresholds(SCORE_THRESH))


def _detections(ours: StoredLabels, theirs: StoredLabels, shown: LabelFilter) -> tuple[Detections, Detections]:
    """Returns what is shown of what both found in the images that both labeled."""
    common = _common(ours, theirs)
    first, second = (
        shown.apply(
            Detections.concatenate([part for part, _ in run.read(common)]),
            labeled_categories(run.store, run.prototypes()),
        )
        for run in (ours, theirs)
    )
    return first, second


def _labels(ours: StoredLabels, theirs: StoredLabels, shown: LabelFilter) -> LabelsDifference:
    precisions = [_average_precision(run) for run in (ours, theirs)]
    both = None if precisions[0] is None or precisions[1] is None else (precisions[0], precisions[1])
    return LabelsDifference((ours.key, theirs.key), len(_common(ours, theirs)), shown.describe(), both)


def _common(ours: StoredLabels, theirs: StoredLabels) -> Images:
    images = ours.images()
    labeled = [LabeledImages.concatenate(list(run.read_labeled_images(images))).image_id for run in (ours, theirs)]
    return images[np.isin(images.image_id.astype(str), np.intersect1d(labeled[0].astype(str), labeled[1].astype(str)))]


def _average_precision(run: StoredLabels) -> float | None:
    """Returns the mask AP of the evaluation of the images that count for these labels, None where there is none."""
    dataset = run.requested()
    for manifest in reversed(run.store.manifests(EVALUATE.folder)):
        inputs = manifest["inputs"]
        if inputs.get("labels") == run.root and dataset is not None and inputs.get("dataset") == dataset.name:
            table = run.store.load(run.store.named(f"{EVALUATE.folder}/{manifest['key']}"), Metrics)
            return table.overall("AP").get("segm")
    return None
