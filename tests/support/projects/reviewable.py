"""A project with labels to review, right ones and wrong ones, that no model made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refseg_core.analysis.label_filter import ScoreThresholds
from refseg_core.masks.rle import Rle, encode_masks, rle_boxes
from refseg_core.tables import Detections, Images, LabeledImages
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.store.label_store import StoredLabels
from tests.support.projects.steps import Steps

SIZE = (96, 128)
OBJECTS = {3: (12, 14, 40, 40), 8: (68, 20, 36, 60)}  # category -> x, y, width, height, as in the scenes
# Category, score and box of what is found in every image: both objects, a part, a rival, and three that are nothing.
FOUND = (
    (3, 0.81, OBJECTS[3]),
    (8, 0.72, OBJECTS[8]),
    (8, 0.52, (68, 20, 36, 24)),
    (8, 0.55, (13, 14, 39, 40)),
    (3, 0.48, (100, 4, 20, 14)),
    (3, 0.35, (2, 70, 20, 20)),
    (8, 0.05, (30, 70, 20, 20)),
)


def rectangle(x: int, y: int, width: int, height: int) -> Rle:
    """The mask of a rectangle in the scenes' size."""
    mask = np.zeros((1, *SIZE), dtype=bool)
    mask[0, y : y + height, x : x + width] = True
    return encode_masks(mask)[0]


@dataclass
class Reviewable:
    """The steps of a project, and its labels."""

    steps: Steps
    run: StoredLabels

    def of(self, steps: Steps) -> "Reviewable":
        """The same labels in a copy of the store."""
        return Reviewable(steps, StoredLabels(steps.store, self.run.key))

    def twice(self) -> "Reviewable":
        """The same labels by another key, which hold each instance a second time, with half its score."""
        return self.changed(lambda found: Detections.concatenate([found, found.replace(score=found.score / 2)]))

    def changed(self, change: Callable[[Detections], Detections]) -> "Reviewable":
        """Labels by another key, as `change` makes them of each shard's."""
        settings = self.steps.config.labeling.model_copy(update={"points_per_side": 2})
        plan = self.steps.plan(self.steps.prototypes(), labeling=settings)
        changed = StoredLabels(self.steps.store, plan.key)
        for shard in plan.pending:
            found, labeled = self.run.read_shard(shard) or (Detections.empty(), LabeledImages.empty())
            changed.commit(shard, change(found), labeled)
        return Reviewable(self.steps, changed)

    def index(self, thresh: float = 0.5) -> InstanceIndex:
        """The instances of the labels."""
        return InstanceIndex(self.run, ScoreThresholds(thresh))

    def images(self) -> Images:
        """The images of the labels."""
        return self.run.images()


@contextmanager
def without_images(reviewable: Reviewable) -> Iterator[None]:
    """Within the block the images, which tests share, are gone."""
    folder = Path(reviewable.steps.config.targets.images)
    moved = folder.rename(folder.with_name("moved"))
    folder.mkdir()
    try:
        yield
    finally:
        folder.rmdir()
        moved.rename(folder)


def label_by_hand(steps: Steps) -> Reviewable:
    """Labels five images with seven instances each."""
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    run = StoredLabels(steps.store, plan.key)
    for shard in plan.pending:
        images = run.plans.images_of(shard)
        labels = [_labels(str(one), str(version)) for one, version in zip(images.image_id, images.version, strict=True)]
        run.commit(
            shard,
            Detections.concatenate([found for found, _ in labels]),
            LabeledImages.concatenate([labeled for _, labeled in labels]),
        )
    return Reviewable(steps, run)


def _labels(image_id: str, version: str) -> tuple[Detections, LabeledImages]:
    ranked = sorted(FOUND, key=lambda one: -one[1])
    masks = [rectangle(*box) for _, _, box in ranked]
    detections = Detections(
        image_id=np.full(len(ranked), image_id, dtype=object),
        category_id=np.array([category for category, _, _ in ranked]),
        score=np.array([score for _, score, _ in ranked], dtype=np.float32),
        predicted_iou=np.full(len(ranked), 0.9, dtype=np.float32),
        box_xyxy=rle_boxes(masks),
        mask_rle=np.fromiter(masks, dtype=object, count=len(masks)),
    )
    labeled = LabeledImages.row(
        **{"image_id": image_id, "version": version, "status": "ok", "error": None},
        **{"height": SIZE[0], "width": SIZE[1], "num_proposals": 9, "num_detections": len(ranked)},
        **{"num_prompts": 16, "max_similarity": 0.75, "seconds": 0.5},
    )
    return detections, labeled
