"""A store with labels that no model made: nights of listings, planned and committed in milliseconds."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refseg_core.tables import Detections, Images, LabeledImages, Prototypes
from tasks.plan_shards import find_gone_labels
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import Shard
from tasks.store.store import Artifact, Recipe, Store
from tests.support.samples import categories_table, images_table, labels_of, similarities_of

_GUIDED: dict[str, Any] = {"points_per_side": 8, "guidance_thresh": 0.25}


@dataclass
class LabelStore:
    """A store whose images change from night to night."""

    store: Store = field(default_factory=lambda: Store(f"memory://{uuid.uuid4().hex}"))
    images_per_shard: int = 2
    recipe_version: int = 1
    is_guided: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> StoredLabels:
        """The labels, whose recipe names prototypes that exist."""
        recipe = Recipe(
            "label_shard",
            "labels",
            version=self.recipe_version,
            settings={"images": "s3://bucket/images"} | (_GUIDED if self.is_guided else {}) | self.settings,
            inputs={"prototypes": self.prototypes().name},
            weights={"segmenter": "0" * 64, "encoder": "1" * 64},
        )
        return StoredLabels.open(self.store, recipe)

    def prototypes(self) -> Artifact:
        """Prototypes of one category, and what they say they were made from."""
        dataset = self.store.make(Recipe("index_dataset", "dataset", version=1), lambda: [categories_table(boat=1)])
        references = self.store.make(
            Recipe("sample_references", "references", version=1, inputs={"dataset": dataset.name}), lambda: []
        )
        bank = self.store.make(
            Recipe("fill_memory_bank", "memory_bank", version=1, inputs={"references": references.name}), lambda: []
        )
        recipe = Recipe(
            "postprocess_memory_bank", "prototypes", version=self.recipe_version, inputs={"memory_bank": bank.name}
        )
        table = Prototypes(
            category_id=np.array([1]), num_references=np.array([1]), prototype=np.ones((1, 2), dtype=np.float32)
        )
        return self.store.make(recipe, lambda: [table])

    def dataset(self, images: Images) -> Artifact:
        """A listing."""
        content = str(list(zip(images.image_id, images.version, strict=True)))
        recipe = Recipe("index_dataset", "dataset", version=1, inputs={"content": content})
        return self.store.make(recipe, lambda: [images])

    def begin_night(self, *names: str, **versions: str) -> list[Shard]:
        """Lists these images and plans what is new; returns the shards to label."""
        images = images_table(*names, **versions)
        self.run.request(self.dataset(images))
        return self.run.pending(self.run.plan(images, self.images_per_shard))

    def night(
        self, *names: str, unreadable: Sequence[str] = (), skipped: Sequence[str] = (), **versions: str
    ) -> list[str]:
        """Lists these images and labels what is new; returns the names of the images that it worked on."""
        worked_on: list[str] = []
        for shard in self.begin_night(*names, **versions):
            worked_on += self.run.plans.images_of(shard).image_id.tolist()
            self.commit(shard, unreadable=unreadable, skipped=skipped)
        return worked_on

    def commit(
        self,
        shard: Shard,
        *,
        unreadable: Sequence[str] = (),
        skipped: Sequence[str] = (),
        number: int | None = None,
    ) -> None:
        """Labels a shard, or a number of its first images: one instance in each image but the unreadable ones;
        `skipped` are without any prompt.
        """
        images = self.run.plans.images_of(shard)[:number]
        detections, labeled = labels_of(images)
        failed = np.isin(labeled.image_id, list(unreadable))
        labeled = labeled.replace(
            status=np.where(failed, "unreadable", labeled.status).astype(object),
            error=np.where(failed, "not an image", None),
            num_detections=np.where(failed, 0, labeled.num_detections),
            num_prompts=np.where(failed | np.isin(labeled.image_id, list(skipped)), 0, labeled.num_prompts),
        )
        found = detections[~np.isin(detections.image_id, list(unreadable))]
        self.run.commit(shard, found, labeled, similarities_of(images) if self.is_guided else None)

    def stop_night(self, *names: str, after: int) -> Shard:
        """Lists these images, labels so many of the first new shard, and stops; returns the rest of that shard."""
        shard = self.begin_night(*names)[0]
        self.commit(shard, number=after)
        (rest, *_) = self.run.pending([shard])
        return rest

    def gone(self) -> Artifact:
        """The table of labels whose images are gone."""
        dataset = self.run.requested()
        assert dataset is not None
        return find_gone_labels.fn(self.store, dataset=dataset, labels_key=self.run.key)

    def names(self) -> set[str]:
        """Every object in the store."""
        return {file.name for file in self.store.folder.list_files()}

    def labels(self) -> tuple[Detections, LabeledImages]:
        """The labels of the images that were asked for last."""
        parts = list(self.run.read(self.run.images()))
        return Detections.concatenate([part for part, _ in parts]), LabeledImages.concatenate([p for _, p in parts])
