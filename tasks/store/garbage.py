"""Finds unneeded objects of a store, and removes them.

    leftover   an object that no manifest names: of a process that was killed, or that lost a race; and a file
               anywhere that was being written
    unused     an artifact that neither labels nor metrics were made from, such as last month's listing; the numbers of
               benchmarks, from which nothing is made, and the choices of pilots stay
    gone       a shard whose images were all removed or changed since; only on request
    labels     whole labels by key; only on request. What only they were made from is then unused
    proposals  what is kept so that labeling again is quick; only on request, and where a part of it is lost, which only
               costs time. Of images that no labels of the same models were requested for, it is unused

Leftovers and unused artifacts younger than a day may belong to a run in progress, and stay. Manifests are removed
before the parts that they name, and artifacts before those that they were made from, so that a reader in the meantime,
and a removal that resumes after a kill, find whole artifacts only. Where a manifest is lost or damaged, what it
names is unknown, and nothing is removed. Other objects outside the folders of steps are never garbage.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from refseg_core.errors import StoreError
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.leftovers import is_unfinished
from tasks.storage.listing import FileInfo
from tasks.storage.uris import redact
from tasks.store.kept_proposals import of_requested_images
from tasks.store.label_store import FOLDER, StoredLabels, open_labels
from tasks.store.lineage import reachable
from tasks.store.shard_plans import Wanted
from tasks.store.steps import (
    ARTIFACT_FOLDERS,
    ASSESS_REFERENCES,
    BENCHMARK,
    CHOOSE_PILOT,
    EVALUATE,
    KEEP_PROPOSALS,
    PROPOSE_THRESHOLDS,
)
from tasks.store.store import MANIFEST, Store, numbered_name

_ALWAYS_KEPT = (BENCHMARK.folder, CHOOSE_PILOT.folder)
Why = Literal["leftover", "unused", "gone", "labels", "proposals"]
# How the names of labels' objects begin, in the order of removal; artifacts follow. Parts of shards go before plans:
# a later plan with other images in shards of those names would take them for its own. The recipe goes before requests,
# of which the last but one may name a listing that was removed long ago.
_ON_REQUEST = ("gone", "labels", "proposals")  # whatever their age
_PARTS = ("detections/", "labeled_images/", "category_similarities/")
_ORDER = ("shards/", *_PARTS, "plans/", "plans/parts/", "recipe.json", "requests/")


@dataclass(frozen=True)
class Garbage:
    """An object to remove: its place below the store, its size in bytes, and why it is not needed."""

    name: str
    size: int
    why: Why


def find_garbage(
    store: Store,
    *,
    min_age_hours: float = 24,
    gone: bool = False,
    labels: Collection[str] = (),
    proposals: bool = False,
) -> list[Garbage]:
    """Returns what could be removed, in order. Raises StoreError if the store has no labels of a given key."""
    files = store.folder.list_files()
    objects = [file for file in files if _group(file.name)]
    groups = {_group(file.name) for file in objects}
    labels = [store.whole_key(FOLDER, key) for key in labels]
    for key in labels:
        if f"{FOLDER}/{key}" not in groups:  # also what a removal that was stopped left of them, without a recipe
            open_labels(store, key)
    needed, why = _needed(store, set(labels), drop_gone=gone, drop_proposals=proposals)
    missing = _missing(store, needed - {file.name for file in objects})
    useless = {_group(name) for name in missing if name.startswith(f"{KEEP_PROPOSALS.folder}/")}
    why |= dict.fromkeys(useless, "proposals")
    rest = [file for file in objects if file.name not in needed or _group(file.name) in useless]
    _check_shards(store, [file.name for file in rest if not (why.get(file.name) or why.get(_group(file.name)))])
    _check_parts(store, [name for name in missing if _group(name) not in useless])
    youngest_of = _youngest(rest)
    limit = time.time() - min_age_hours * 3600
    garbage = [
        Garbage(file.name, file.size, reason)
        for file in rest
        if (reason := why.get(file.name) or why.get(_group(file.name), "leftover")) in _ON_REQUEST
        or youngest_of[_group(file.name)] <= limit
    ]
    unfinished = [
        Garbage(file.name, file.size, "leftover")
        for file in files
        if not _group(file.name) and is_unfinished(file.name) and file.modified <= limit
    ]
    return [
        *unfinished,
        *sorted(sorted(garbage, key=lambda one: one.name, reverse=True), key=lambda one: _place(one.name)),
    ]


def check_is_store(store: Store) -> None:
    """Raises StoreError where a folder holds nothing of a store."""
    if not any(_group(file.name) or is_unfinished(file.name) for file in store.folder.list_files()):
        raise StoreError(
            f"{redact(store.uri)}: holds no store: expected the folders that runs write, as dataset/ and labels/, with "
            "their manifests. Check the path; it is the value of `store` in the configuration."
        )


def remove(store: Store, garbage: Collection[Garbage]) -> None:
    """Removes the objects, in their order; may be stopped and started again."""
    report(ProgressStep.REMOVE, total=len(garbage))
    for one in garbage:
        store.folder.delete(one.name)
        report(ProgressStep.REMOVE, advanced=1)


def _place(name: str) -> int:
    """Returns an object's place in the order of removal."""
    folder, _, inside = name.split("/", 2)
    if folder != FOLDER:
        return len(_ORDER) + int(inside != MANIFEST)
    return max((place for place, start in enumerate(_ORDER) if inside.startswith(start)), default=0)


def _group(name: str) -> str:
    """Returns the artifact or labels that an object belongs to, or '' where it belongs to none."""
    folder, _, rest = name.partition("/")
    key, _, inside = rest.partition("/")
    return f"{folder}/{key}" if folder in (*ARTIFACT_FOLDERS, FOLDER) and inside else ""


def _check_shards(store: Store, leftovers: Collection[str]) -> None:
    """Raises StoreError where labels have lost their recipe, or shards their plan: they would look like leftovers."""
    for name in sorted(leftovers):
        if name.startswith(f"{FOLDER}/") and "/shards/" in name and name.endswith(".json"):
            raise StoreError(
                f"{redact(store.folder.join(name))}: has no plan, or no recipe. Restore what is lost, as "
                "`refseg verify` says, or remove the object to have its images labeled again; nothing was removed."
            )


def _missing(store: Store, unlisted: Collection[str]) -> list[str]:
    """Returns those that are not there; others were made after the listing."""
    return [name for name in sorted(unlisted) if store.folder.read_if_there(name) is None]


def _check_parts(store: Store, missing: Collection[str]) -> None:
    """Raises StoreError where a manifest names what is not there: the rest would look like leftovers."""
    for name in missing:
        raise StoreError(
            f"{redact(store.folder.join(name))}: missing, though a manifest names it. Restore the object, or "
            "remove that manifest to have it made again; nothing was removed."
        )


def _youngest(files: Collection[FileInfo]) -> dict[str, float]:
    """Returns when the newest unneeded object of each group was written, which is the group's age."""
    youngest: dict[str, float] = {}
    for file in files:
        group = _group(file.name)
        youngest[group] = max(youngest.get(group, 0.0), file.modified)
    return youngest


def _needed(
    store: Store, dropped: set[str], *, drop_gone: bool, drop_proposals: bool
) -> tuple[set[str], dict[str, Why]]:
    """Returns the objects to keep, and why others, by name or by group, are not needed."""
    needed: set[str] = set()
    why: dict[str, Why] = {f"{FOLDER}/{key}": "labels" for key in dropped}
    roots: list[str] = []
    requested: list[tuple[Mapping[str, Any], str]] = []
    for recipe in store.manifests(FOLDER, "recipe.json"):
        if recipe["key"] not in dropped:
            run = StoredLabels(store, recipe["key"])
            datasets = run.last_requests().values()
            roots += [*recipe["inputs"].values(), *datasets]
            requested += [(recipe, dataset) for dataset in datasets]
            needed.update(_fixed_objects(run))
            for name, is_gone in _shard_objects(run):
                if is_gone and drop_gone:
                    why[name] = "gone"
                else:
                    needed.add(name)
            roots += _derived(store, run, datasets)
    manifests = {
        f"{folder}/{manifest['key']}": manifest for folder in ARTIFACT_FOLDERS for manifest in store.manifests(folder)
    }
    used = reachable(roots, manifests)
    if lost := [name for name in sorted(used) if name not in manifests]:
        raise StoreError(
            f"{redact(store.uri)}: {', '.join(lost)} is missing, though labels were made from it. Restore it, or give "
            "up these labels with --labels KEY; nothing was removed."
        )
    kept = set() if drop_proposals else of_requested_images(store, manifests, requested)
    for name, manifest in manifests.items():
        is_of_used = manifest["folder"] == ASSESS_REFERENCES.folder and manifest["inputs"]["prototypes"] in used
        if name in used or name in kept or is_of_used or manifest["folder"] in _ALWAYS_KEPT:
            needed.update([f"{name}/{MANIFEST}", *(f"{name}/{part['name']}" for part in manifest["tables"])])
        else:
            is_kept = drop_proposals and manifest["folder"] == KEEP_PROPOSALS.folder
            why[name] = "proposals" if is_kept else "unused"
    return needed, why


def _fixed_objects(run: StoredLabels) -> Iterator[str]:
    """Yields the objects of labels, except those of their shards."""
    yield f"{run.root}/recipe.json"
    for number, _ in enumerate(run.requests()):
        yield numbered_name(f"{run.root}/requests", number)
    for number, plan in enumerate(run.plans.manifests()):
        yield numbered_name(f"{run.root}/plans", number)
        yield from (f"{run.root}/plans/parts/{part['name']}" for part in plan["tables"])


def _shard_objects(run: StoredLabels) -> Iterator[tuple[str, bool]]:
    """Yields the objects of every labeled shard, and whether all its images are gone."""
    wanted = Wanted(run.images())
    for part in run.plans.parts():
        is_wanted = wanted.rows_of(part.images) >= 0
        for planned, segments in zip(part.shards, run.segments_of(part.shards), strict=True):
            is_gone = not is_wanted[planned.start : planned.stop].any()  # the first segment says where the others begin
            for shard, manifest in segments:
                if manifest is not None:
                    yield f"{run.root}/shards/{shard.name}.json", is_gone
                    for table in manifest["tables"]:
                        yield f"{run.root}/{table['table']}/{table['name']}", is_gone


def _derived(store: Store, run: StoredLabels, datasets: Collection[str]) -> Iterator[str]:
    """Yields the metrics and thresholds of labels, and the tables of gone ones that fit their datasets."""
    for folder in (EVALUATE.folder, PROPOSE_THRESHOLDS.folder):
        for manifest in store.manifests(folder):
            if manifest["inputs"]["labels"] == run.root:
                yield f"{folder}/{manifest['key']}"
    for manifest in store.manifests("gone_labels"):
        if manifest["inputs"]["labels"] == run.root and manifest["inputs"]["dataset"] in datasets:
            yield f"gone_labels/{manifest['key']}"
