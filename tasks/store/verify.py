"""Checks that a store holds what its manifests say: every size, hash and row count, and every image once."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from refseg_core import tables
from refseg_core.analysis.decisions import fitting
from refseg_core.analysis.label_statistics import PromptShare
from refseg_core.errors import NotFoundError, StoreError, counted
from refseg_core.table_schema import Table
from refseg_core.tables import CategorySimilarities, Decisions, Detections, Images, LabeledImages
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.folder import Folder
from tasks.storage.prefetch import prefetch
from tasks.storage.uris import redact
from tasks.store.label_store import FOLDER, StoredLabels, count_statuses
from tasks.store.lineage import reachable
from tasks.store.manifests import PLAN, REQUEST, Shape
from tasks.store.parquet import table_from_parquet
from tasks.store.reviews import StoredReview
from tasks.store.shard_plans import PlanPart, Shard
from tasks.store.steps import ARTIFACT_FOLDERS, REVIEW
from tasks.store.store import MANIFEST, Store, numbered_name, table_name

_AT_ONCE = 8
_TABLES: dict[str, type[Table]] = {
    table_name(kind): kind for kind in vars(tables).values() if isinstance(kind, type) and issubclass(kind, Table)
}


@dataclass(frozen=True)
class Problem:
    """What is wrong with an object, named by its place below the store."""

    name: str
    what: str


@dataclass
class Verified:
    """What was checked, and what is wrong."""

    num_manifests: int = 0
    num_parts: int = 0
    num_rows: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)

    def note(self, name: str, what: str) -> None:
        """Adds a problem."""
        self.problems.append(Problem(name, what))


def verify_store(store: Store) -> Verified:
    """Reads every object that a manifest names. Raises StoreError only where the store cannot be read at all."""
    verified = Verified()
    manifests: dict[str, Mapping[str, Any]] = {}
    for folder in ARTIFACT_FOLDERS:
        for key in Folder(store.folder.join(folder)).list_folders():
            name = f"{folder}/{key}"
            if (manifest := _verify_artifact(store, name, verified)) is not None:
                manifests[name] = manifest
    for key in Folder(store.folder.join(FOLDER)).list_folders():
        _verify_labels(StoredLabels(store, key), manifests, verified)
    for key in Folder(store.folder.join(REVIEW.folder)).list_folders():
        _verify_review(StoredReview(store, key), verified)
    return verified


def _verify_artifact(store: Store, name: str, verified: Verified) -> Mapping[str, Any] | None:
    manifest: Mapping[str, Any] | None = _guarded(store, verified, f"{name}/{MANIFEST}", partial(store.manifest, name))
    if manifest is None:
        return None  # unfinished, and so not there; or damaged
    verified.num_manifests += 1
    for part in manifest["tables"]:
        _read_part(store, name, part, verified)
    return manifest


def _verify_labels(run: StoredLabels, manifests: Mapping[str, Mapping[str, Any]], verified: Verified) -> None:
    shards = run.store.listed(f"{run.root}/shards", ".json")
    recipe = _verify_recipe(run, manifests, verified, is_needed=bool(shards))
    if recipe is None and not shards:
        return
    planned: set[tuple[str, str]] = set()
    known: set[str] = set()
    for number, plan in _numbered(run, "plans", PLAN, verified):
        parts: list[PlanPart] | None = None
        if plan is not None:
            read: Callable[[], Any] = partial(list, run.plans.parts_of(number, plan))
            parts = _guarded(run.store, verified, f"{run.root}/plans", read)
        if parts is None:
            known.update(name for name in shards if name.startswith(f"{number:04d}-"))  # the plan is the problem
            continue
        for part in parts:
            _check_planned_once(run, part, planned, verified)
            known.update(f"{name}.json" for name in _verify_shards(run, part, verified))
    noted = {problem.name for problem in verified.problems}
    for name in shards:
        if name not in known and f"{run.root}/shards/{name}" not in noted:
            beginning, _, offset = name.removesuffix(".json").partition("_")
            is_planned = bool(offset) and f"{beginning}.json" in known
            lost = "no shard: what comes before it is lost or damaged" if is_planned else "no plan: a plan is lost"
            verified.note(f"{run.root}/shards/{name}", f"belongs to {lost}")


def _verify_review(review: StoredReview, verified: Verified) -> None:
    """Reads every part of people's decisions, whose names hold the hashes of their contents."""
    names = review.part_names()
    recipe = f"{review.root}/recipe.json"
    num_problems = len(verified.problems)
    if _guarded(review.store, verified, recipe, review.recipe) is not None:
        verified.num_manifests += 1
    elif names and len(verified.problems) == num_problems:
        verified.note(recipe, "is missing")
    for name in names:
        part = _guarded(review.store, verified, f"{review.root}/decisions/{name}", partial(review.read_part, name))
        verified.num_parts += part is not None
        verified.num_rows += 0 if part is None else len(part)
        if part is not None:
            for row in np.flatnonzero(~fitting(part)).tolist():
                verified.note(f"{review.root}/decisions/{name}", _misfit(part[row : row + 1]))


def _misfit(row: Decisions) -> str:
    """Returns what is wrong with a decision whose mask is not of its image."""
    given, expected = (f"{mask.size[1]} x {mask.size[0]}" for mask in (row.new_mask_rle[0], row.mask_rle[0]))
    of_whom = f"decision {row.decision_id[0]} of {row.reviewer[0]} on {row.image_id[0]}"
    return f"{of_whom} counts for nothing: its mask is of {given} pixels, expected {expected}"


def _verify_recipe(
    run: StoredLabels, manifests: Mapping[str, Mapping[str, Any]], verified: Verified, *, is_needed: bool
) -> Mapping[str, Any] | None:
    """Returns the recipe of labels, after checking it, the requests, and the artifacts that both name."""
    name = f"{run.root}/recipe.json"
    num_problems = len(verified.problems)
    recipe: Mapping[str, Any] | None = _guarded(run.store, verified, name, run.recipe)
    if recipe is None:
        if is_needed and len(verified.problems) == num_problems:
            verified.note(name, "is missing")
        return None
    verified.num_manifests += 1
    requests = [request for _, request in _numbered(run, "requests", REQUEST, verified)]
    if not requests and is_needed:
        verified.note(numbered_name(f"{run.root}/requests", 0), "is missing")
    last = [request["dataset"] for request in requests[-1:] if request]
    metrics = [name for name, manifest in manifests.items() if manifest["inputs"].get("labels") == run.root]
    metrics = [name for name in metrics if name.startswith("metrics/")]
    noted = {problem.name for problem in verified.problems}
    for needed in sorted({*reachable([*recipe["inputs"].values(), *last, *metrics], manifests), *last}):
        manifest = f"{needed}/{MANIFEST}"
        if needed not in manifests and manifest not in noted:
            verified.note(manifest, f"is missing, though {run.root} or its metrics were made from it")
    return recipe


def _numbered(
    run: StoredLabels, folder: str, shape: Shape, verified: Verified
) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """Yields the numbered json objects of a folder of labels; None, and a problem, for each that is lost or damaged."""
    listed = [name for name in run.store.listed(f"{run.root}/{folder}", ".json") if name[:-5].isdecimal()]
    for number in range(int(max(listed)[:-5]) + 1 if listed else 0):
        name = numbered_name(f"{run.root}/{folder}", number)
        if name.rpartition("/")[2] in listed:
            yield number, _guarded(run.store, verified, name, partial(run.store.read_json, name, shape))
        else:
            verified.note(name, "is missing")
            yield number, None


def _check_planned_once(run: StoredLabels, part: PlanPart, planned: set[tuple[str, str]], verified: Verified) -> None:
    identities = set(zip(part.images.image_id, part.images.version, strict=True))
    twice = identities & planned
    if twice or len(identities) < len(part.images):
        shown = ", ".join(sorted(image_id for image_id, _ in twice)[:3])
        verified.note(f"{run.root}/plans", f"plans {counted(len(twice), 'image')} twice: {shown}")
    planned |= identities


def _verify_shards(run: StoredLabels, part: PlanPart, verified: Verified) -> Iterator[str]:
    """Yields the names of the shards of a part, of which some may have been labeled in several segments."""
    report(ProgressStep.VERIFY, total=len(part.shards))
    check = partial(_verify_segments, run, part.images)
    for shard, names, found in prefetch(check, part.shards, _AT_ONCE):
        report(ProgressStep.VERIFY, advanced=1)
        yield from (shard.name, *names)
        verified.num_manifests += found.num_manifests
        verified.num_parts += found.num_parts
        verified.num_rows += found.num_rows
        verified.size += found.size
        verified.problems += found.problems


def _verify_segments(run: StoredLabels, planned: Images, shard: Shard) -> tuple[Shard, list[str], Verified]:
    """Returns the shard, the names of the segments that it was labeled in, and what is wrong with them."""
    verified, names = Verified(), list[str]()
    read: Callable[[], Any] = partial(list, run.segments_of([shard]))
    (segments,) = _guarded(run.store, verified, f"{run.root}/shards/{shard.name}.json", read) or [[]]
    for segment, manifest in segments:
        if manifest is not None:
            names.append(segment.name)
            _verify_shard(run, planned, segment, manifest, verified)
    return shard, names, verified


def _verify_shard(
    run: StoredLabels, planned: Images, shard: Shard, manifest: Mapping[str, Any], verified: Verified
) -> None:
    verified.num_manifests += 1
    name = f"{run.root}/shards/{shard.name}.json"
    read = [_read_part(run.store, f"{run.root}/{part['table']}", part, verified) for part in manifest["tables"]]
    match read:
        case [Detections() as detections, LabeledImages() as labeled, *others]:
            for what in _contradictions(planned[shard.start : shard.stop], manifest, detections, labeled):
                verified.note(name, what)
            for similarities in others:
                if isinstance(similarities, CategorySimilarities) and not _explains(similarities, labeled):
                    verified.note(name, "prompts other images than those whose similar categories it names")


def _contradictions(
    planned: Images, manifest: Mapping[str, Any], detections: Detections, labeled: LabeledImages
) -> Iterator[str]:
    """Yields what does not fit together in a shard."""
    columns = ((planned.image_id, labeled.image_id), (planned.version, labeled.version))
    if not all(np.array_equal(one, other) for one, other in columns):
        yield f"labels {counted(len(labeled), 'image')}, not the {len(planned)} that its plan names"
    if manifest["images"] != count_statuses(labeled):
        yield f"counts {manifest['images']}, but the table {count_statuses(labeled)}"
    if "prompts" in manifest and manifest["prompts"] != (prompts := PromptShare.of(labeled)._asdict()):
        yield f"counts {manifest['prompts']}, but the table {prompts}"
    found = Counter(detections.image_id.tolist())
    # A Counter is equal to another that lacks its zeros.
    expected = Counter(dict(zip(labeled.image_id, labeled.num_detections.tolist(), strict=True)))
    if found != expected:
        yield f"has {counted(len(detections), 'detection')} where its images count {expected.total()}"


def _explains(similarities: CategorySimilarities, labeled: LabeledImages) -> bool:
    """Returns whether every image that was prompted resembles a category, and none resembles one that is not there."""
    prompted = set(labeled.image_id[labeled.num_prompts.astype(bool)])
    return prompted <= set(similarities.image_id) <= set(labeled.image_id)


def _read_part(store: Store, folder: str, part: Mapping[str, Any], verified: Verified) -> Table | None:
    """Returns the part, after its size, hash, table and number of rows were compared with what the manifest says."""
    name = f"{folder}/{part['name']}"
    data = _guarded(store, verified, name, partial(store.folder.read, name))
    if data is None:
        return None
    verified.num_parts += 1
    verified.size += len(data)
    if len(data) != part["size"] or hashlib.sha256(data).hexdigest() != part["sha256"]:
        verified.note(name, f"is damaged: {len(data)} bytes, expected {part['size']} of sha256 {part['sha256']}")
        return None
    kind = _TABLES.get(part["table"])
    if kind is None:
        verified.note(name, f"holds {part['table']!r}, which refseg does not know")
        return None
    table: Table | None = _guarded(store, verified, name, partial(table_from_parquet, data, kind))
    if table is None:
        return None
    verified.num_rows += len(table)
    if len(table) != part["num_rows"]:
        verified.note(name, f"has {counted(len(table), 'row')}, expected {part['num_rows']}")
    return table


def _guarded(store: Store, verified: Verified, name: str, read: Callable[[], Any]) -> Any:
    """Returns what is read, or None after noting why it cannot be."""
    try:
        return read()
    except StoreError as error:
        place, _, what = str(error).partition(": ")
        below = redact(store.folder.join(""))
        if isinstance(error, NotFoundError):
            what = "is missing"
        verified.note(place.removeprefix(below) if place.startswith(below) else name, what or str(error))
    return None
