"""Prints the contents of a store, its problems and its unused objects."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Self

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
_SHORTEST_KEY, _SHORT_HASH = 7, 12


@dataclass(frozen=True)
class _Names:
    """Writes keys and hashes, with as many characters as are needed to tell them apart; None: with all."""

    length: int | None

    @classmethod
    def of(cls, status: StoreStatus, *, full: bool) -> Self:
        """Returns how names of this store are written."""
        keys = {named.name.rpartition("/")[2] for named in status.artifacts}
        keys |= {labels.key for labels in status.labels} | {review.key for review in status.reviews}
        if full:
            return cls(None)
        return cls(next(length for length in count(_SHORTEST_KEY) if len({key[:length] for key in keys}) == len(keys)))

    def key(self, key: str) -> str:
        """Returns a key."""
        return key[: self.length]

    def value(self, name: str, value: str) -> str:
        """Returns what something was made from: an artifact by its folder and key, anything else by its hash."""
        folder, _, key = value.rpartition("/")
        if folder:
            return f"{folder}/{self.key(key)}" if folder == name else f"{name} {folder}/{self.key(key)}"
        is_hash = self.length is not None and re.fullmatch(r"[0-9a-f]{64}", value)
        return f"{name} {value[:_SHORT_HASH] if is_hash else value}"

    def made_from(self, inputs: Mapping[str, str], weights: Mapping[str, str]) -> str:
        """Returns all that something was made from."""
        named = [*inputs.items(), *((f"{model} weights", sha256) for model, sha256 in weights.items())]
        return ", ".join(self.value(name, value) for name, value in named)


def report_status(store_uri: str, status: StoreStatus, *, all_failed: bool, full: bool = False) -> None:
    """Prints the artifacts by step, then each labeling with its finished, missing and failed parts.

    `full`: with whole keys and hashes, else as many characters of them as tell those of this store apart.
    """
    if not status.artifacts and not status.labels:
        results.print(f"{redact(store_uri)} holds nothing of refseg.")
        return
    names = _Names.of(status, full=full)
    step, key, made = (Column(name, no_wrap=True) for name in ("step", "key", "made"))
    table = TextTable(step, key, "rows", "size", made, "by", "from", title=redact(store_uri))
    for _, artifacts in groupby(status.artifacts, key=lambda artifact: artifact.step):
        for artifact in artifacts:
            table.add_row(*_artifact_row(artifact, names))
        table.add_section()
    if Measurement.get(results, results.options.update(max_width=_WIDEST), table).minimum <= results.width:
        results.print(table)
    else:  # keys and times are copied, and never broken
        for artifact in status.artifacts:
            results.print("  ".join(_artifact_row(artifact, names)))
    for labels in status.labels:
        results.print()
        for line in _labels_lines(labels, names, None if all_failed else _SHOWN):
            results.print(line)
    for kept in status.kept:
        results.print()
        results.print(_kept_line(kept))
    for review in status.reviews:
        results.print()
        for line in _review_lines(review, names):
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


def _artifact_row(artifact: ArtifactStatus, names: _Names) -> Iterator[str]:
    yield artifact.step
    yield names.key(artifact.name.rpartition("/")[2])
    yield ", ".join(counted(number, singular(table), table) for table, number in artifact.num_rows.items())
    yield decimal(artifact.size)
    yield artifact.created
    yield f"{artifact.created_by}, refseg {artifact.refseg_version}"
    yield names.made_from(artifact.inputs, artifact.weights)


def _labels_lines(labels: LabelsStatus, names: _Names, most: int | None) -> Iterator[str]:
    state = "complete" if labels.is_complete else "incomplete"
    begun = f"begun {labels.created} by {labels.created_by}, refseg {labels.refseg_version}"
    dataset = "no dataset" if labels.dataset is None else names.value("dataset", labels.dataset)
    yield f"labels/{names.key(labels.key)}: {state}, of a {labels.purpose}, {begun}"
    yield f"  method   {labels.method} on path {labels.path}"
    yield f"  from     {names.made_from(labels.inputs, labels.weights)}"
    yield f"  images   {labels.num_labeled} of {labels.num_images} in {dataset}: " + ", ".join(
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


def _review_lines(review: ReviewStatus, names: _Names) -> Iterator[str]:
    yield f"reviews/{names.key(review.key)}: of {redact(review.images)}, last decision {review.last_decision}"
    yield "  decided  " + ", ".join(f"{number} {verdict}" for verdict, number in review.verdicts.items())
    yield f"  by       {listed(review.reviewers, _SHOWN)}"
