"""Prints the contents of a store, its problems and its unused objects."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.filesize import decimal
from rich.measure import Measurement
from rich.table import Column
from rich.table import Table as TextTable

from flows.terminal import results
from refseg_core.errors import counted, listed, singular
from tasks.storage.uris import redact
from tasks.store.garbage import Garbage
from tasks.store.kept_proposals import KeptStatus
from tasks.store.status import ArtifactStatus, LabelsStatus, ReviewStatus, StoreStatus
from tasks.store.verify import Verified

_SHOWN = 10
_WIDEST = 10_000  # columns


def report_status(store_uri: str, status: StoreStatus, *, all_failed: bool) -> None:
    """Prints the artifacts by step, then each labeling with its finished, missing and failed parts."""
    if not status.artifacts and not status.labels:
        results.print(f"{redact(store_uri)} holds nothing of refseg.")
        return
    step, key, made = (Column(name, no_wrap=True) for name in ("step", "key", "made"))
    table = TextTable(step, key, "rows", "size", made, "by", "from", title=redact(store_uri))
    for _, artifacts in groupby(status.artifacts, key=lambda artifact: artifact.step):
        for artifact in artifacts:
            table.add_row(*_artifact_row(artifact))
        table.add_section()
    if Measurement.get(results, results.options.update(max_width=_WIDEST), table).minimum <= results.width:
        results.print(table)
    else:  # keys and times are copied, and never cut
        for artifact in status.artifacts:
            results.print("  ".join(_artifact_row(artifact)))
    for labels in status.labels:
        results.print()
        for line in _labels_lines(labels, None if all_failed else _SHOWN):
            results.print(line)
    for kept in status.kept:
        results.print()
        results.print(_kept_line(kept))
    for review in status.reviews:
        results.print()
        for line in _review_lines(review):
            results.print(line)


def report_verified(verified: Verified) -> None:
    """Prints every problem and how much was checked."""
    for problem in verified.problems:
        results.print(f"{problem.name}: {problem.what}", style="red")
    verdict = counted(len(verified.problems), "problem") if verified.problems else "no problems"
    results.print(
        f"{counted(verified.num_manifests, 'manifest')}, {counted(verified.num_parts, 'part')}, "
        f"{counted(verified.num_rows, 'row')}, {decimal(verified.size)}: {verdict}"
    )


def report_garbage(garbage: Sequence[Garbage], *, removing: bool) -> None:
    """Prints every object that can be removed, and their size."""
    for one in garbage:
        results.print(f"{one.why:10}{decimal(one.size):>10}  {one.name}")
    counts = Counter(one.why for one in garbage)
    total = ", ".join(f"{number} {why}" for why, number in counts.items()) or "nothing"
    hint = "" if removing or not garbage else " Nothing was removed; --yes removes it."
    results.print(f"To remove: {total}, {decimal(sum(one.size for one in garbage))}.{hint}")


def _artifact_row(artifact: ArtifactStatus) -> Iterator[str]:
    yield artifact.step
    yield artifact.name.rpartition("/")[2]
    yield ", ".join(counted(number, singular(table), table) for table, number in artifact.num_rows.items())
    yield decimal(artifact.size)
    yield artifact.created
    yield f"{artifact.created_by}, refseg {artifact.refseg_version}"
    yield _made_from(artifact.inputs, artifact.weights)


def _labels_lines(labels: LabelsStatus, most: int | None) -> Iterator[str]:
    state = "complete" if labels.is_complete else "incomplete"
    begun = f"begun {labels.created} by {labels.created_by}, refseg {labels.refseg_version}"
    yield f"labels/{labels.key}: {state}, of a {labels.purpose}, {begun}"
    yield f"  method   {labels.method} on path {labels.path}"
    yield f"  from     {_made_from(labels.inputs, labels.weights)}"
    yield f"  images   {labels.num_labeled} of {labels.num_images} in {labels.dataset or 'no dataset'}: " + ", ".join(
        f"{number} {status}" for status, number in labels.images.items()
    )
    num_done, last = labels.num_shards - len(labels.missing_shards), labels.last_commit or "-"
    yield f"  shards   {num_done} of {labels.num_shards}, {decimal(labels.size)}, last committed {last}"
    yield f"  found    {counted(labels.num_detections, 'instance')}"
    if labels.prompted is not None:
        yield f"  guided   {labels.prompted}"
    if labels.missing_shards:
        yield f"  missing  {listed(labels.missing_shards, _SHOWN)}"
    for image in labels.failed[:most]:
        yield f"  failed   {image.image_id}: {image.error}"
    if most is not None and len(labels.failed) > most:
        yield f"  failed   and {len(labels.failed) - most} more; --failed lists all"


def _kept_line(kept: KeptStatus) -> str:
    of_points = "all masks" if kept.all_masks else "the best mask"
    grid = f"{of_points} of points of a grid of {kept.points_per_side}x{kept.points_per_side}"
    images = f"{counted(kept.num_images, 'image')} of {redact(kept.images)}"
    return f"proposals: {decimal(kept.size)} in {counted(kept.num_parts, 'part')}, {grid}, {images}"


def _review_lines(review: ReviewStatus) -> Iterator[str]:
    yield f"reviews/{review.key}: of {redact(review.images)}, last decision {review.last_decision}"
    yield "  decided  " + ", ".join(f"{number} {verdict}" for verdict, number in review.verdicts.items())
    yield f"  by       {listed(review.reviewers, _SHOWN)}"


def _made_from(inputs: Mapping[str, str], weights: Mapping[str, str]) -> str:
    named = [*(f"{name} {value}" for name, value in inputs.items())]
    named += [f"{model} weights {sha256[:12]}" for model, sha256 in weights.items()]
    return ", ".join(named)
