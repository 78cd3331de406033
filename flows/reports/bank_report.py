"""Prints what two banks differ in."""

from flows.terminal import results, text_table
from tasks.outputs.bank_difference import BankDifference, CategoryDifference

_HEADER = ("category", "references", "prototypes' cosine", "in both", "only first", "only second")
_WITHOUT_LABELS = 3


def report_difference(difference: BankDifference) -> None:
    """Prints references and categories, then the labels."""
    for title, references in (("Only in the first", difference.removed), ("Only in the second", difference.added)):
        for reference in references:
            results.print(f"{title}: {reference}")
    length = len(_HEADER) if difference.labels is not None else _WITHOUT_LABELS
    rows = [_row(category)[:length] for category in difference.categories]
    results.print(text_table(_HEADER[:length], rows))
    if difference.labels is None:
        results.print("No labels were made with both by the same settings; `refseg pilot` makes some.")
        return
    keys, number = difference.labels.keys, difference.labels.num_images
    results.print(f"Instances of a score of 0.5 and above in {number} images: labels {keys[0]} and {keys[1]}.")
    if difference.labels.average_precision is not None:
        first, second = difference.labels.average_precision
        results.print(f"AP of masks: {first:.3f}, then {second:.3f} ({second - first:+.3f}).")


def _row(category: CategoryDifference) -> tuple[str, ...]:
    first, second = category.num_references
    references = str(first) if first == second else f"{first} -> {second}"
    cosine = "-" if category.cosine is None else f"{category.cosine:.3f}"
    counts = map(str, (category.in_both, category.only_first, category.only_second))
    return category.name, references, cosine, *counts
