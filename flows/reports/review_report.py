"""Prints what a review has decided, and what corrections that were made elsewhere change."""

from flows.review.importing import ImportedCorrections
from flows.review.session import ReviewSession
from flows.terminal import results
from refseg_core.errors import counted, listed

_SHOWN, _PEOPLE = 20, 5
_WORDS = {"accept": "unchanged", "mask": "with another mask", "category": "of another category", "reject": "removed"}


def report_review(session: ReviewSession) -> None:
    """Prints how many instances have each verdict when a review ends, and of whom."""
    verdicts = [f"{number} {verdict}" for verdict, number in session.verdicts().most_common()]
    people = [f"{name} ({number})" for name, number in session.by_reviewer.most_common()]
    decided = f"Decided so far: {', '.join(verdicts)}" if verdicts else "Nothing is decided yet"
    results.print(f"The server has ended. {decided}{f', by {listed(people, _PEOPLE)}' if people else ''}.")


def _boxes(found: ImportedCorrections, *, is_kept: bool) -> str:
    made = "made" if is_kept else "will make"
    return (
        f"{counted(found.num_boxes, 'annotation is a box', 'annotations are boxes')}, compared with the boxes of the "
        "labels, whose masks stay where these are unchanged. Of moved or drawn boxes the segmenter "
        f"{made} {counted(found.num_drawn, 'mask')}."
    )


def report_corrections(found: ImportedCorrections, *, is_kept: bool) -> None:
    """Prints the changes, the first ones by image and instance, and what could not be compared."""
    for line in found.lines[:_SHOWN]:
        results.print(f"  {line}")
    if len(found.lines) > _SHOWN:
        results.print(f"  and {len(found.lines) - _SHOWN} more")
    counts = [f"{found.counts[verdict]} {words}" for verdict, words in (_WORDS | {"add": "added"}).items()]
    results.print(f"{counted(found.num_images, 'image')} compared: {', '.join(counts)}.")
    if found.num_below:
        results.print(
            f"{counted(found.num_below, 'label of the file is', 'labels of the file are')} not among those that "
            "--thresholds and the other filters keep: give those of the export, or labels that were removed below "
            "them are not noticed."
        )
    if found.unknown:
        results.print(
            f"{counted(len(found.unknown), 'image is', 'images are')} not among the labels: {listed(found.unknown, 3)}."
        )
    if found.num_boxes:
        results.print(_boxes(found, is_kept=is_kept))
    if found.undrawn:
        results.print(
            f"{counted(len(found.undrawn), 'moved or drawn box has', 'moved or drawn boxes have')} no mask, so that "
            f"nothing is decided there: {listed(found.undrawn, 3)}"
        )
    kept = "kept; the page of `refseg review` can undo them" if is_kept else "not kept (--dry-run)"
    results.print(f"{counted(len(found.decisions), 'decision')} {kept}.")
