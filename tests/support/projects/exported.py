"""A folder of images with known labels, made without models, to export and to read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from refseg_core.masks.rle import Rle, encode_masks, rle_boxes
from refseg_core.tables import Categories, Detections, LabeledImages, Prototypes
from tasks.store.label_store import StoredLabels
from tasks.store.store import Recipe, Store
from tests.support.samples import categories_table, images_table

Mask = npt.NDArray[np.bool_]
HEIGHT, WIDTH = 60, 80


class Labeled(NamedTuple):
    """An instance: its category by name, its score and its mask."""

    category: str
    score: float
    mask: Rle


def disc(y: float, x: float, radius: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Mask:
    """A round mask."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.asarray(np.hypot(rows - y, columns - x) <= radius)


def rle(mask: Mask) -> Rle:
    """The run lengths of one mask."""
    return encode_masks(mask[None])[0]


RING = disc(30, 25, 18) & ~disc(30, 25, 8)
PAIR = disc(15, 20, 9) | disc(40, 55, 12)
SPECKLED = disc(28, 40, 15)
SPECKLED[2, 2] = SPECKLED[57, 77] = SPECKLED[5, 70:73] = True
SPECKLED[28, 40] = False

INSTANCES: Mapping[str, Sequence[Labeled]] = {
    "a.png": [Labeled("boat", 0.9, rle(disc(20, 30, 14))), Labeled("cat & dog", 0.4, rle(RING))],
    "b.png": [Labeled("boat", 0.7, rle(PAIR))],
    "folder/c.png": [],
    "d.png": [Labeled("cat & dog", 0.55, rle(SPECKLED))],
}
IDS = {"boat": 4, "cat & dog": 9}


@dataclass
class ExportProject:
    """A store of labels. `ids`: the categories by name; `targets`: those of the targets' own file, if they have one."""

    folder: Path
    instances: Mapping[str, Sequence[Labeled]] = field(default_factory=lambda: INSTANCES)
    ids: Mapping[str, int] = field(default_factory=lambda: IDS)
    targets: Mapping[str, int] | None = None
    unreadable: Sequence[str] = ()
    unlabeled: Sequence[str] = ()
    size: tuple[int, int] = (HEIGHT, WIDTH)

    def __post_init__(self) -> None:
        self.images = self.folder / "images"
        self.names = sorted([*self.instances, *self.unreadable, *self.unlabeled])
        for number, name in enumerate(self.names):
            path = self.images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((*self.size, 3), 20 * (number + 1), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        for name in self.unreadable:
            (self.images / name).write_bytes(b"no image")
        self.run = self._labeled()

    def _labeled(self) -> StoredLabels:
        store = Store(str(self.folder / "store"))
        own = self._categories(self.ids)
        dataset = store.make(Recipe("index_dataset", "dataset", version=1), lambda: [own])
        inputs = {"dataset": dataset.name}
        references = store.make(Recipe("sample_references", "references", version=1, inputs=inputs), lambda: [])
        inputs = {"references": references.name}
        bank = store.make(Recipe("fill_memory_bank", "memory_bank", version=1, inputs=inputs), lambda: [])
        inputs = {"memory_bank": bank.name}
        ones = np.ones(len(own), dtype=np.int64)
        table = Prototypes(category_id=own.category_id, num_references=ones, prototype=np.ones((len(own), 2)))
        prototypes = store.make(Recipe("postprocess", "prototypes", version=1, inputs=inputs), lambda: [table])
        settings = {"images": str(self.images)}
        recipe = Recipe("label_shard", "labels", 1, settings, {"prototypes": prototypes.name}, {"encoder": "0" * 64})
        run = StoredLabels.open(store, recipe)
        images = images_table(*self.names)
        tables: list[Any] = [images] if self.targets is None else [images, self._categories(self.targets)]
        run.request(store.make(Recipe("index_dataset", "dataset", version=2), lambda: tables))
        for shard in run.plan(images, 1):
            (name,) = run.plans.images_of(shard).file_name
            if name not in self.unlabeled:
                run.commit(shard, *self._found(name))
        return run

    def _categories(self, ids: Mapping[str, int]) -> Categories:
        return categories_table(**dict(sorted(ids.items(), key=lambda pair: pair[1])))

    def _found(self, name: str) -> tuple[Detections, LabeledImages]:
        found, is_bad = list(self.instances.get(name, [])), name in self.unreadable
        masks = [one.mask for one in found]
        detections = Detections(
            image_id=np.full(len(found), name, dtype=object),
            category_id=np.array([self.ids[one.category] for one in found], dtype=np.int64),
            score=np.array([one.score for one in found], dtype=np.float32),
            predicted_iou=np.ones(len(found), dtype=np.float32),
            box_xyxy=rle_boxes(masks),
            mask_rle=np.fromiter(masks, dtype=object, count=len(masks)),
        )
        height, width = (0, 0) if is_bad else self.size
        labeled = LabeledImages.row(
            image_id=name,
            version="1",
            status="unreadable" if is_bad else "ok" if found else "empty",
            error="not an image" if is_bad else None,
            height=height,
            width=width,
            num_proposals=9,
            num_detections=len(found),
            num_prompts=16,
            max_similarity=0.5,
            seconds=0.1,
        )
        return detections, labeled
