"""How labels lie in a store: planned once, committed shard by shard.

    STORE/labels/<key>/recipe.json                     what decides the labels
                      /plans/0000.parquet, 0000.json   images to label, cut into shards; new images, new plan
                      /detections/0000-00012.parquet   one part per shard; the whole folder reads as one table
                      /labeled_images/0000-00012.parquet
                      /shards/0000-00012.json          a shard's manifest: the shard is labelled when it exists

A plan is never changed, so whoever resumes finds the same shards, and a part that was left by a killed process is the
part that the next one would write. Plans and shards are numbered: what exists is found by asking, not by listing.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from refseg_core.columns import Array
from refseg_core.errors import StoreError
from refseg_core.tables import Detections, Images, LabeledImages
from tasks.addresses import redact
from tasks.artifacts import Recipe, Store, made_by, table_name

FOLDER = "labels"


@dataclass(frozen=True)
class Shard:
    """Some images of a plan, labelled and committed together. `start` and `stop` are rows of the plan's images."""

    plan: int
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Its name in the store."""
        return f"{self.plan:04d}-{self.number:05d}"

    def __len__(self) -> int:
        return self.stop - self.start


class LabelRun:
    """The labels of one recipe: same weights, prototypes, settings and image folder."""

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key
        self.root = f"{FOLDER}/{key}"

    @classmethod
    def open(cls, store: Store, recipe: Recipe) -> "LabelRun":
        """The run of a recipe; the recipe is written down at the first opening."""
        run = cls(store, recipe.key)
        if run.recipe() is None:
            store.commit(f"{run.root}/recipe.json", {**asdict(recipe), "key": recipe.key, **made_by()})
        return run

    def recipe(self) -> dict[str, Any] | None:
        """What decides these labels, or None where the run does not exist."""
        return self.store.read_json(f"{self.root}/recipe.json")

    def recipe_or_error(self) -> dict[str, Any]:
        """What decides these labels. Raises StoreError where the run does not exist."""
        recipe = self.recipe()
        if recipe is None:
            raise StoreError(f"{redact(self.store.uri)}: has no labels {self.key!r}.")
        return recipe

    def images(self) -> Images:
        """Every planned image once, in its newest version, in the order of planning."""
        planned = Images.concatenate([images for _, images, _ in self.plans()])
        newest = {image_id: row for row, image_id in enumerate(planned.image_id)}
        return planned[np.array(list(newest.values()), dtype=np.int64)]

    def plan(self, images: Images, images_per_shard: int) -> list[Shard]:
        """Plans the images that no plan holds in their version yet; returns every shard that holds one of `images`.

        Safe to call from several processes at once: plans are created exclusively, and whoever loses looks again.
        """
        wanted = _identities(images)
        while True:
            plans = list(self.plans())
            planned = {identity for _, known, _ in plans for identity in _identities(known)}
            new = images[np.array([identity not in planned for identity in wanted], dtype=bool)]
            if len(new) == 0:
                return [shard for _, known, shards in plans for shard in _holding(shards, known, set(wanted))]
            self._create_plan(len(plans), new, images_per_shard)

    def plans(self) -> Iterator[tuple[int, Images, list[Shard]]]:
        """Every plan: its number, images and shards."""
        number = 0
        while (manifest := self.store.read_json(f"{self.root}/plans/{number:04d}.json")) is not None:
            images = self.store.folder.read_table(f"{self.root}/plans/{number:04d}.parquet", Images)
            yield number, images, _shards(number, len(images), manifest["images_per_shard"])
            number += 1

    def planned_images(self, shard: Shard) -> Images:
        """The images of one shard."""
        return self.store.folder.read_table(f"{self.root}/plans/{shard.plan:04d}.parquet", Images)[
            shard.start : shard.stop
        ]

    def is_labeled(self, shard: Shard) -> bool:
        """Whether the shard is committed."""
        return self.store.read_json(self._manifest(shard)) is not None

    def commit(self, shard: Shard, detections: Detections, labeled: LabeledImages) -> None:
        """Puts the shard's parts, then its manifest."""
        parts = [
            self.store.put_table(f"{self.root}/{table_name(type(table))}/{shard.name}.parquet", table)
            for table in (detections, labeled)
        ]
        self.store.commit(self._manifest(shard), {"shard": asdict(shard), **made_by(), "tables": parts})

    def read(self, images: Images | None = None) -> Iterator[tuple[Detections, LabeledImages]]:
        """The labels of every committed shard, or only those of the given images in their versions, shard by shard."""
        wanted = None if images is None else set(_identities(images))
        for _, known, shards in self.plans():
            for shard in shards if wanted is None else _holding(shards, known, wanted):
                if self.is_labeled(shard):
                    yield self._read_shard(shard, wanted)

    def _read_shard(self, shard: Shard, wanted: set[tuple[str, str]] | None) -> tuple[Detections, LabeledImages]:
        folder = self.store.folder
        detections = folder.read_table(f"{self.root}/detections/{shard.name}.parquet", Detections)
        labeled = folder.read_table(f"{self.root}/labeled_images/{shard.name}.parquet", LabeledImages)
        if wanted is None:
            return detections, labeled
        keep = np.array([identity in wanted for identity in _identities(labeled)], dtype=bool)
        labeled = labeled[keep]
        return detections[np.isin(detections.image_id, labeled.image_id)], labeled

    def _create_plan(self, number: int, images: Images, images_per_shard: int) -> None:
        part = self.store.put_table(f"{self.root}/plans/{number:04d}.parquet", images)
        manifest = {"images_per_shard": images_per_shard, **made_by(), "tables": [part]}
        self.store.folder.create(f"{self.root}/plans/{number:04d}.json", json.dumps(manifest, indent=2).encode())

    def _manifest(self, shard: Shard) -> str:
        return f"{self.root}/shards/{shard.name}.json"


def open_labels(store: Store, key: str) -> LabelRun:
    """The labels of a key. Raises StoreError where the store has none of it."""
    run = LabelRun(store, key)
    if run.recipe() is None:
        known = ", ".join(recipe["key"] for recipe in store.manifests(FOLDER, "recipe.json"))
        raise StoreError(f"{redact(store.uri)}: has no labels {key!r}; it has {known or 'none'}.")
    return run


def newest_labels(store: Store) -> tuple[LabelRun, int]:
    """The labels that were begun last, and how many others there are. Raises StoreError where there are none."""
    recipes = store.manifests(FOLDER, "recipe.json")
    if not recipes:
        raise StoreError(f"{redact(store.uri)}: holds no labels. `refseg run` makes some; check the store's path.")
    return LabelRun(store, recipes[-1]["key"]), len(recipes) - 1


def _identities(images: Images | LabeledImages) -> list[tuple[str, str]]:
    return list(zip(images.image_id, images.version, strict=True))


def _shards(plan: int, num_images: int, images_per_shard: int) -> list[Shard]:
    starts = range(0, num_images, images_per_shard)
    return [
        Shard(plan, number, start, min(start + images_per_shard, num_images)) for number, start in enumerate(starts)
    ]


def _holding(shards: list[Shard], images: Images, wanted: set[tuple[str, str]]) -> list[Shard]:
    is_wanted: Array = np.array([identity in wanted for identity in _identities(images)], dtype=bool)
    return [shard for shard in shards if is_wanted[shard.start : shard.stop].any()]
