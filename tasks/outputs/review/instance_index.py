"""All instances of labels without their masks, so that only what is shown is read again.

An instance takes some hundred bytes here, and its masks are read from its shard when it is shown.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from refseg_core.analysis.decisions import instance_ids
from refseg_core.analysis.label_filter import ScoreThresholds
from refseg_core.analysis.review_queue import Instances, reference_sides, same_place
from refseg_core.errors import StoreError
from refseg_core.masks.rle import mask_areas
from refseg_core.table_schema import Array
from refseg_core.tables import Categories, Detections, Images, LabeledImages, References
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.uris import redact
from tasks.store.label_store import FOLDER, StoredLabels
from tasks.store.lineage import labeled_categories, reference_dataset, references_of, shown_names
from tasks.store.shard_plans import Shard, Wanted

_SHARDS_KEPT = 8  # whose masks stay in memory


@dataclass(frozen=True)
class LabeledImage:
    """An image that was labeled: `row` is that of the dataset's table, `rows` are those of its instances."""

    image_id: str
    version: str
    height: int
    width: int
    row: int
    rows: range


class InstanceIndex:
    """The instances of labels, each once: what is known of them, and where their masks are."""

    def __init__(self, run: StoredLabels, thresholds: ScoreThresholds) -> None:
        self.run = run
        self.categories = labeled_categories(run.store, run.prototypes())
        self.dataset_images = run.images()
        self.references = run.store.load(references_of(run.store, run.prototypes()), References)
        self.added_names = shown_names(run.store, reference_dataset(run.store, run.prototypes()))
        self.images: list[LabeledImage] = []
        self._shards: list[Shard] = []
        self.num_labeled = 0  # images, with those that could not be read
        self._num_read = 0
        self._columns: defaultdict[str, list[Array]] = defaultdict(list)
        self._read(Wanted(self.dataset_images))
        self.instances = self._instances(thresholds)
        self.row_of = {identity: row for row, identity in enumerate(self.instances.identity)}
        self.image_of = {image.image_id: number for number, image in enumerate(self.images)}
        self._shard_of, self._row_in_shard = self._column("shard"), self._column("row_in_shard")
        self._open = lru_cache(_SHARDS_KEPT)(self._open_shard)

    def __len__(self) -> int:
        return len(self.instances)

    def detection(self, row: int) -> Detections:
        """Returns an instance with its mask, as a table of one row. Raises StoreError where its labels are gone."""
        return self.detections(range(row, row + 1))

    def detections(self, rows: range) -> Detections:
        """Returns some instances of one shard with their masks."""
        if not rows:
            return Detections.empty()
        return self._open(int(self._shard_of[rows.start]))(self._row_in_shard[rows.start : rows.stop])

    def image_at(self, row: int) -> int:
        """Returns the number of an instance's image."""
        return int(self.instances.image[row])

    def _open_shard(self, number: int) -> Callable[[Array], Detections]:
        read = self.run.open_detections(self._shards[number])
        if read is None:
            raise StoreError(
                f"{redact(self.run.store.uri)}: the labels {self.run.key} were removed meanwhile. Decisions are kept; "
                "start `refseg review` again, to review those that there are."
            )
        return read

    def _read(self, wanted: Wanted) -> None:
        report(ProgressStep.READ_LABELS, total=len(self.dataset_images))
        for shard, num_wanted, manifest in self.run.shards_with_manifests(wanted):
            report(ProgressStep.READ_LABELS, advanced=num_wanted)
            labels = None if manifest is None else self.run.read_shard(shard)
            if labels is not None:
                self._add(shard, wanted, *labels)

    def _add(self, shard: Shard, wanted: Wanted, detections: Detections, labeled: LabeledImages) -> None:
        dataset_rows = wanted.rows_of(labeled)
        self.num_labeled += int((dataset_rows >= 0).sum())
        rows_of: defaultdict[str, list[int]] = defaultdict(list)
        for row in detections.unrepeated().tolist():
            rows_of[detections.image_id[row]].append(row)
        taken: list[int] = []
        images: list[int] = []
        for number in np.flatnonzero((dataset_rows >= 0) & (labeled.status != "unreadable")).tolist():
            found = rows_of.get(labeled.image_id[number], [])
            start = self._num_read + len(taken)
            images += [len(self.images)] * len(found)
            taken += found
            self.images.append(_labeled_image(labeled, number, int(dataset_rows[number]), start, len(found)))
        self._append(detections[np.array(taken, dtype=np.int64)], image=images, row_in_shard=taken)
        self._num_read += len(taken)
        self._shards.append(shard)

    def _append(self, found: Detections, *, image: list[int], row_in_shard: list[int]) -> None:
        columns = {
            "identity": np.array(instance_ids(found), dtype=object),
            "image": np.array(image, dtype=np.int64),
            "category": found.category_id,
            "score": found.score.astype(np.float64),
            "predicted_iou": found.predicted_iou,
            "box_xyxy": found.box_xyxy,
            "area": mask_areas(found.mask_rle.tolist()).astype(np.float64),
            "shard": np.full(len(found), len(self._shards), dtype=np.int64),
            "row_in_shard": np.array(row_in_shard, dtype=np.int64),
        }
        for name, values in columns.items():
            self._columns[name].append(values)

    def _column(self, name: str) -> Array:
        parts = self._columns.pop(name, [])  # none before the first image is labeled
        return np.concatenate(parts) if parts else np.zeros(0)

    def _instances(self, thresholds: ScoreThresholds) -> Instances:
        thresh_of = {
            category: thresholds.of(str(name))
            for category, name in zip(self.categories.category_id.tolist(), self.categories.name, strict=True)
        }
        category = self._column("category").astype(np.int64)
        image, box = self._column("image").astype(np.int64), self._column("box_xyxy").reshape(-1, 4)
        return Instances(
            identity=self._column("identity").tolist(),
            image=image,
            category=category,
            score=self._column("score"),
            thresh=np.array([thresh_of[one] for one in category.tolist()], dtype=np.float64),
            box_xyxy=box,
            area=self._column("area"),
            reference_side=reference_sides(category, _areas(self.references)),
            is_lacking=self._is_lacking(image, category, box),
        )

    def _is_lacking(self, image: Array, category: Array, box: Array) -> Array:
        """Returns which instances [N] other labels of the same images have not; none where there are no others."""
        others = other_labels(self.run)
        if others is None:
            return np.zeros(len(image), dtype=bool)
        found = _boxes_by_image(others, self.categories, self.dataset_images)
        names = set(labeled_categories(others.store, others.prototypes()).name)
        shared = self.categories.category_id[[name in names for name in self.categories.name]]
        is_lacking = np.zeros(len(image), dtype=bool)
        for labeled in self.images:
            if (boxes := found.get(labeled.image_id)) is not None:
                rows = np.arange(labeled.rows.start, labeled.rows.stop)
                is_lacking[rows] = ~same_place(box[rows], category[rows], *boxes).any(axis=1)
        return is_lacking & np.isin(category, shared)


def _labeled_image(labeled: LabeledImages, number: int, row: int, start: int, num_found: int) -> LabeledImage:
    return LabeledImage(
        image_id=str(labeled.image_id[number]),
        version=str(labeled.version[number]),
        height=int(labeled.height[number]),
        width=int(labeled.width[number]),
        row=row,
        rows=range(start, start + num_found),
    )


def _areas(references: References) -> Mapping[int, list[float]]:
    """Returns the areas of each category's references, px; of those with a mask."""
    areas: defaultdict[int, list[float]] = defaultdict(list)
    masks = [mask for mask in references.mask_rle if mask is not None]
    categories = references.category_id[np.array([mask is not None for mask in references.mask_rle], dtype=bool)]
    for category, area in zip(categories.tolist(), mask_areas(masks).tolist(), strict=True):
        if area:
            areas[category].append(area)
    return areas


def other_labels(run: StoredLabels) -> StoredLabels | None:
    """Returns the newest other labels of the same images, made by another method or from other references."""
    images = run.recipe_or_error()["settings"]["images"]
    keys = [
        recipe["key"]
        for recipe in run.store.manifests(FOLDER, "recipe.json")
        if recipe["key"] != run.key and recipe["settings"]["images"] == images
    ]
    return StoredLabels(run.store, keys[-1]) if keys else None


def _boxes_by_image(run: StoredLabels, categories: Categories, images: Images) -> dict[str, tuple[Array, Array]]:
    """Returns boxes [M, 4] and categories [M] of each labeled image, these by the ids of `categories`."""
    id_of = dict(zip(categories.name, categories.category_id.tolist(), strict=True))
    own = labeled_categories(run.store, run.prototypes())
    known = {category: id_of.get(name, -1) for category, name in zip(own.category_id.tolist(), own.name, strict=True)}
    found: dict[str, tuple[Array, Array]] = {}
    for detections, labeled in run.read(images):
        order, bounds = _by_image(detections, labeled)
        category = np.array([known[one] for one in detections.category_id.tolist()], dtype=np.int64)[order]
        boxes = detections.box_xyxy[order]
        found |= {image_id: (boxes[rows], category[rows]) for image_id, rows in bounds}
    return found


def _by_image(detections: Detections, labeled: LabeledImages) -> tuple[Array, Iterator[tuple[str, slice]]]:
    """Returns the rows of detections by image, and each image's slice of these."""
    rows_of: dict[str, list[int]] = {image_id: [] for image_id in labeled.image_id}
    for row, image_id in enumerate(detections.image_id):
        rows_of[image_id].append(row)
    stops = np.cumsum([0, *map(len, rows_of.values())]).tolist()
    order = np.array([row for rows in rows_of.values() for row in rows], dtype=np.int64)
    return order, zip(rows_of, map(slice, stops[:-1], stops[1:]), strict=True)
