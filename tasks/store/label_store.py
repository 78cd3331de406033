"""How labels lie in a store: planned once, committed shard by shard.

    STORE/labels/<key>/recipe.json                       what decides the labels
                      /requests/0000.json                which datasets were requested, in order, and what for;
                                                         the last for a run counts, or where there is none the last
                      /plans/0000.json                   images to label, cut into shards; new images, new plan
                      /plans/parts/<hash>.parquet        the images that plans name
                      /detections/0000-00012.parquet     one part per shard; the whole folder reads as one table
                      /labeled_images/0000-00012.parquet
                      /category_similarities/0000-00012.parquet    on the path guided, and not in older stores
                      /shards/0000-00012.json            a shard's manifest: the shard is labeled when it exists
                      /shards/0000-00012_00025.json      as are the parts: of the shard's images from the 26th on

A plan is never changed, so a run that resumes finds the same shards. Objects are read by their names; listings only
suggest which names to read. Every image lies in one shard in each of its versions, so that no image is lost and none is
labeled twice, however many plan and label at the same time.

A run that is stopped commits the finished images of a shard, always its first ones, under the shard's name. Where a
manifest counts fewer images than are left of its shard, the rest is a shard of its own, named after the number of
images before it, and may be committed in two again. Parts are created once, so that everyone finds the same cuts.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice, tee
from typing import Any, NamedTuple, TypeVar

import numpy as np

from refseg_core.analysis.label_statistics import PromptShare
from refseg_core.errors import StoreError, brief, counted
from refseg_core.settings import Purpose
from refseg_core.table_schema import Array
from refseg_core.tables import CategorySimilarities, Detections, Images, LabeledImages
from tasks.storage.prefetch import prefetch
from tasks.storage.uris import redact, typed
from tasks.store.manifests import REQUEST, SCHEMA_OF_PARTIAL_SHARDS, SHARD
from tasks.store.parquet import notes_of_parquet, rows_of_parquet, table_from_parquet, table_to_parquet
from tasks.store.shard_plans import Plans, Shard, Wanted
from tasks.store.steps import LABEL_SHARD
from tasks.store.store import Artifact, Recipe, Store, describe_part, made_by, numbered_name, table_name

FOLDER = LABEL_SHARD.folder
STATUSES = ("ok", "empty", "unreadable")
_SHARDS_AHEAD = 8
_SHARDS_PER_LOOK = 256
_OUTCOMES = "labeled_images"
_SIMILARITIES = "category_similarities"

Labels = tuple[Detections, LabeledImages]
Result = TypeVar("Result")


class Segment(NamedTuple):
    """Images of a planned shard that lie together, and the manifest of their labels; None where they have none yet."""

    shard: Shard
    manifest: dict[str, Any] | None


class StoredLabels:
    """The labels of one recipe: same weights, prototypes, settings and image folder."""

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key
        self.root = f"{FOLDER}/{key}"
        self.plans = Plans(store, f"{self.root}/plans")

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> "StoredLabels":
        """Returns the run of a recipe; the recipe is written down at the first opening."""
        run = cls(store, recipe.key)
        if run.recipe() is None:
            store.commit(f"{run.root}/recipe.json", {**asdict(recipe), "key": recipe.key, **made_by()})
        return run

    def recipe(self) -> dict[str, Any] | None:
        """Returns what decides these labels, or None where the run does not exist."""
        return self.store.read_recipe(f"{self.root}/recipe.json")

    def recipe_or_error(self) -> dict[str, Any]:
        """Returns what decides these labels. Raises StoreError where the run does not exist."""
        recipe = self.recipe()
        if recipe is None:
            known = ", ".join(recipe["key"] for recipe in self.store.manifests(FOLDER, "recipe.json"))
            raise StoreError(f"{redact(self.store.uri)}: has no labels {brief(self.key)}; it has {known or 'none'}.")
        return recipe

    def as_argument(self) -> str:
        """Returns how commands are told these labels: the store, and their key where it would mean others without."""
        is_newest = newest_labels(self.store)[0].key == self.key
        return typed(self.store.uri) + ("" if is_newest else f" --labels {self.key}")

    def prototypes(self) -> Artifact:
        """Returns the prototypes that the labels are made with. Raises StoreError where the run does not exist."""
        return self.store.named(self.recipe_or_error()["inputs"]["prototypes"])

    # Requests.

    def request(self, dataset: Artifact, purpose: Purpose = "run") -> None:
        """Records that the labels of this dataset are wanted now, unless the last request of its purpose was for it."""
        while True:
            requests = self.requests()
            if _last_by_purpose(requests).get(purpose) == dataset.name:
                return
            noted = {"dataset": dataset.name, **({} if purpose == "run" else {"purpose": purpose}), **made_by()}
            self.store.commit(numbered_name(f"{self.root}/requests", len(requests)), noted)

    def requests(self) -> list[dict[str, Any]]:
        """Returns every request for a dataset, in order."""
        return list(self.store.numbered(f"{self.root}/requests", REQUEST))

    def last_requests(self) -> dict[str, str]:
        """Returns by purpose the name of the dataset that was requested last for it, in the order of the requests."""
        return _last_by_purpose(self.requests())

    def purpose(self) -> str:
        """Returns what the labels are for: a run, if ever they were requested for one, else the last purpose."""
        return _deciding(self.last_requests())[0]

    def requested(self) -> Artifact | None:
        """Returns the dataset that was requested last for a run; where there was no run, for whatever it was."""
        _, dataset = _deciding(self.last_requests())
        return None if dataset is None else self.store.named(dataset)

    def images(self) -> Images:
        """Returns the images of the dataset that `requested` returns; none without a request.

        Raises StoreError where shards show that a request or a plan is lost: whatever is made of the rest would be
        taken for all there is.
        """
        dataset = self.requested()
        self.check_plans(self.plans.count())
        if dataset is not None:
            return self.store.load(dataset, Images)
        if self.store.listed(f"{self.root}/shards", ".json"):
            raise self._lost(numbered_name(f"{self.root}/requests", 0))
        return Images.empty()

    def check_plans(self, num_plans: int) -> None:
        """Raises StoreError where shards are labeled whose plan is not among the given number of plans."""
        planned_in = [name.partition("-")[0] for name in self.store.listed(f"{self.root}/shards", ".json")]
        last = max((int(plan) for plan in planned_in if plan.isdecimal()), default=-1)
        if last >= num_plans and last >= self.plans.count():  # it may have been made since they were counted
            raise self._lost(numbered_name(f"{self.root}/plans", last))

    def _lost(self, name: str) -> StoreError:
        return StoreError(
            f"{redact(self.store.folder.join(name))}: missing, though shards are labeled that need it. Restore the "
            "object; `refseg verify` finds all that are missing."
        )

    # Plans.

    def plan(self, images: Images, images_per_shard: int) -> list[Shard]:
        """Plans the images that no plan holds in their version yet; returns every shard that holds one of `images`.

        Safe to call from several processes at once: plans are created exclusively, and the loser reads again.
        """
        wanted = Wanted(images)
        is_planned = np.zeros(len(images), dtype=bool)
        shards: list[Shard] = []
        number = 0
        while True:
            for manifest in self.plans.manifests(number):
                for part in self.plans.parts_of(number, manifest):
                    rows = wanted.rows_of(part.images)
                    is_planned[rows[rows >= 0]] = True
                    shards += part.holding(rows >= 0)
                number += 1
            new = images[~is_planned]
            if len(new) == 0:
                return shards
            self.check_plans(number)  # a new plan in the place of a lost one would take over its shards
            self.plans.create(number, new, images_per_shard)

    # Shards.

    def pending(self, shards: Sequence[Shard]) -> list[Shard]:
        """Returns the shards that are not labeled yet, as far as a listing shows.

        A listing says which manifests to read. `label_shard` reads them again, so a stale listing costs a request.
        """
        listed = {name.removesuffix(".json") for name in self.store.listed(f"{self.root}/shards", ".json")}
        ends = (segments[-1] for segments in self.segments_of(shards, listed))
        return [shard for shard, manifest in ends if manifest is None]

    def rest_of(self, shard: Shard) -> Shard | None:
        """Returns what is not labeled yet of a shard: all of it, its last images, or None."""
        (segments,) = self.segments_of([shard])
        rest, manifest = segments[-1]
        return rest if manifest is None else None

    def segments_of(self, shards: Iterable[Shard], listed: Container[str] | None = None) -> Iterator[list[Segment]]:
        """Yields of each shard the segments that are labeled, in order, and the rest if there is one.

        Where the names of the listed shards are given, only those are looked for.
        """
        left = iter(shards)
        while some := list(islice(left, _SHARDS_PER_LOOK)):
            found = [[Segment(shard, None)] for shard in some]
            grown = found
            while grown := [of for of in grown if of[-1].manifest is None and _may_be(of[-1].shard, listed)]:
                manifests = self.shard_manifests([of[-1].shard for of in grown])
                of_each = list(zip(grown, manifests, strict=True))
                grown = [of for of, manifest in of_each if manifest is not None and self._grow(of, manifest)]
            yield from found

    def _grow(self, segments: list[Segment], manifest: dict[str, Any]) -> bool:
        """Adds the manifest to the last segment, and what is left of that as another; returns whether there is one."""
        shard, _ = segments.pop()
        number = sum(manifest["images"].values())
        if not 0 < number <= len(shard):
            name = redact(self.store.folder.join(self._manifest(shard)))
            raise StoreError(
                f"{name}: damaged: counts {counted(number, 'image')}, where the plan has {len(shard)}. Restore the "
                "object; `refseg verify` finds all that are."
            )
        segments.append(Segment(shard.first(number), manifest))
        rest = shard.after(number)
        segments += [] if rest is None else [Segment(rest, None)]
        return rest is not None

    def shards_with_manifests(self, wanted: Wanted) -> Iterator[tuple[Shard, int, dict[str, Any] | None]]:
        """Yields every segment of shards that holds wanted images, how many of them, and its manifest if it has one."""
        shards, again = tee(self.plans.shards_of(wanted))
        for (_, is_wanted), segments in zip(again, self.segments_of(shard for shard, _ in shards), strict=True):
            for shard, manifest in segments:
                if num_wanted := int(is_wanted[shard.offset : shard.offset + len(shard)].sum()):
                    yield shard, num_wanted, manifest

    def shard_manifest(self, shard: Shard) -> dict[str, Any] | None:
        """Returns what is known of a shard's labels, or None where it is not labeled."""
        return self.store.read_json(self._manifest(shard), SHARD)

    def shard_manifests(self, shards: Sequence[Shard]) -> Iterator[dict[str, Any] | None]:
        """Returns what is known of each shard's labels, in order; None for each that is not labeled."""
        return self.store.read_jsons([self._manifest(shard) for shard in shards], SHARD)

    def commit(
        self,
        shard: Shard,
        detections: Detections,
        labeled: LabeledImages,
        similarities: CategorySimilarities | None = None,
    ) -> Shard | None:
        """Puts the parts of the shard's first images, then the manifest; returns the rest of the shard if there is one.

        The part of detections decides, also of how many images. It carries the other tables as well, so that a writer
        that finds another's part in its place completes that one's work, and all tables always come from one attempt.
        """
        name = f"{self.root}/detections/{shard.name}.parquet"
        # Without times, which differ between equal attempts.
        outcomes = labeled.to_arrow().drop_columns(["seconds"]).to_pydict()
        notes = {_OUTCOMES: json.dumps(outcomes, separators=(",", ":"))}
        if similarities is not None:  # as a Parquet file in text, which is smaller than rows as text
            notes[_SIMILARITIES] = b64encode(table_to_parquet(similarities)).decode()
        data = table_to_parquet(detections, notes)
        if not self.store.folder.create(name, data):
            data = self.store.folder.read(name)
            detections = self.store.unfinished_part(name, data, Detections)
            notes = notes_of_parquet(data)
            if _OUTCOMES not in notes and len(labeled) < len(shard):
                return shard  # an older version's, of a whole shard, which takes a whole shard to complete
            labeled = _first_written(labeled, json.loads(notes.get(_OUTCOMES, "{}")))
            note = notes.get(_SIMILARITIES)
            similarities = None if note is None else table_from_parquet(b64decode(note), CategorySimilarities)
        others = [labeled] if similarities is None else [labeled, similarities]
        parts = [
            describe_part(name, detections, data),
            *(
                self.store.put_table(f"{self.root}/{table_name(type(table))}/{shard.name}.parquet", table)
                for table in others
            ),
        ]
        counts: dict[str, Any] = {"images": count_statuses(labeled)}
        if similarities is not None:
            counts["prompts"] = PromptShare.of(labeled)._asdict()
        number = len(labeled)
        manifest = {"shard": asdict(shard.first(number)), **counts, **made_by(), "tables": parts}
        if number < len(shard):
            manifest["schema_version"] = SCHEMA_OF_PARTIAL_SHARDS
        self.store.commit(self._manifest(shard), manifest)
        return shard.after(number)

    def read(self, images: Images | None = None) -> Iterator[Labels]:
        """Yields the labels of every committed shard, or those of the given images in their versions only."""
        wanted = None if images is None else Wanted(images)
        for detections, labeled in self._of_shards(self._read_labels, wanted):
            if wanted is not None:
                labeled = wanted.among(labeled)  # noqa: PLW2901
                detections = detections[np.isin(detections.image_id, labeled.image_id)]  # noqa: PLW2901
            yield detections, labeled

    def read_labeled_images(self, images: Images) -> Iterator[LabeledImages]:
        """Yields what became of the given images in their versions, shard by shard."""
        wanted = Wanted(images)
        yield from map(wanted.among, self._of_shards(self.read_labeled_images_of, wanted))

    def read_shard(self, shard: Shard) -> Labels | None:
        """Returns the labels that have this shard's manifest: all of its images, or the first ones; None without it.

        Raises StoreError where they are damaged.
        """
        manifest = self.shard_manifest(shard)
        return None if manifest is None else self._read_labels(manifest)

    def _read_labels(self, manifest: Mapping[str, Any]) -> Labels:
        of_detections, of_images, *_ = manifest["tables"]
        return (
            self.store.read_part(f"{self.root}/detections", of_detections, Detections),
            self.store.read_part(f"{self.root}/labeled_images", of_images, LabeledImages),
        )

    def open_detections(self, shard: Shard) -> Callable[[Array], Detections] | None:
        """Returns what reads some rows, int64 [n], of a shard's detections, or None where it is not labeled."""
        manifest = self.shard_manifest(shard)
        if manifest is None:
            return None
        file = self.store.read_part_file(f"{self.root}/detections", manifest["tables"][0])
        return rows_of_parquet(file, Detections)

    def read_labeled_images_of(self, manifest: Mapping[str, Any]) -> LabeledImages:
        """Returns what became of the images of a shard with this manifest. Raises StoreError where it is damaged."""
        return self.store.read_part(f"{self.root}/{_OUTCOMES}", manifest["tables"][1], LabeledImages)

    def seconds_per_image(self) -> float | None:
        """Returns how long the model took for an image, in one of the labeled shards; None where there is none yet."""
        for name in self.store.listed(f"{self.root}/shards", ".json")[-1:]:
            manifest = self.store.read_json(f"{self.root}/shards/{name}", SHARD)
            if manifest is not None:
                return float(self.read_labeled_images_of(manifest).seconds.mean())
        return None

    def _of_shards(self, read: Callable[[Mapping[str, Any]], Result], wanted: Wanted | None) -> Iterator[Result]:
        """Yields what is read of each labeled shard that holds a wanted image, a few shards ahead."""

        def read_all(shard: Shard) -> list[Result]:
            (segments,) = self.segments_of([shard])
            return [read(manifest) for _, manifest in segments if manifest is not None]

        for part in self.plans.parts():
            shards = part.shards if wanted is None else part.holding(wanted.rows_of(part.images) >= 0)
            for contents in prefetch(read_all, shards, _SHARDS_AHEAD):
                yield from contents

    def _manifest(self, shard: Shard) -> str:
        return f"{self.root}/shards/{shard.name}.json"


def _last_by_purpose(requests: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the dataset that was requested last for each purpose, in the order of these requests."""
    last: dict[str, str] = {}
    for request in requests:
        purpose = request.get("purpose", "run")  # which older stores do not say
        last.pop(purpose, None)
        last[purpose] = request["dataset"]
    return last


def _deciding(last_requests: dict[str, str]) -> tuple[str, str | None]:
    """Returns the purpose and the dataset that count."""
    purpose = "run" if "run" in last_requests else next(reversed(last_requests), "run")
    return purpose, last_requests.get(purpose)


def _may_be(shard: Shard, listed: Container[str] | None) -> bool:
    return listed is None or shard.name in listed


def _first_written(labeled: LabeledImages, outcomes: Mapping[str, Any]) -> LabeledImages:
    """Returns the outcomes of the attempt that came first, of more images or fewer, with the times of this one."""
    rows = np.minimum(np.arange(len(outcomes.get("image_id", labeled))), len(labeled) - 1)
    return labeled[rows].replace(**outcomes)


def points_per_image(recipe: Mapping[str, Any]) -> int | None:
    """Returns the points of the grid where labels prompt only some of them, on the path `guided`; else None."""
    settings = recipe["settings"]
    return int(settings["points_per_side"]) ** 2 if "guidance_thresh" in settings else None


def count_statuses(labeled: LabeledImages) -> dict[str, int]:
    """Returns how many images ended in each status."""
    return {status: int((labeled.status == status).sum()) for status in STATUSES}


def holds_labels(store: Store) -> bool:
    """Returns whether there are labels, or were begun."""
    return bool(store.manifests(FOLDER, "recipe.json"))


def open_labels(store: Store, key: str) -> StoredLabels:
    """Returns the labels of a key, which may be shortened. Raises StoreError where the store has none of it."""
    run = StoredLabels(store, store.whole_key(FOLDER, key))
    run.recipe_or_error()
    return run


def newest_labels(store: Store) -> tuple[StoredLabels, int]:
    """Returns the labels of a run that were begun last, and how many others there are.

    Where there was no run they are those begun last, of a pilot or whatever it was: see `StoredLabels.purpose`.
    Raises StoreError if there are none.
    """
    recipes = store.manifests(FOLDER, "recipe.json")
    if not recipes:
        raise StoreError(f"{redact(store.uri)}: holds no labels. `refseg run` makes some; check the store's path.")
    newest = [StoredLabels(store, recipe["key"]) for recipe in reversed(recipes)]
    return next((run for run in newest if run.purpose() == "run"), newest[0]), len(newest) - 1
