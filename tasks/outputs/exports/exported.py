"""What is exported: the labels of a run as a person left them, streamed shard by shard to a format.

The only place where labels are read for exports: what people decided on them, what is left out of them, their numbering
and the state of their masks are the same in every format. Not here: what files look like (the format's module), and how
they come into being (`writing.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from refseg_core.analysis.decisions import instance_ids
from refseg_core.analysis.label_filter import LabelFilter
from refseg_core.datasets.category_mapping import exported_ids
from refseg_core.datasets.coco.writer import export_ids
from refseg_core.datasets.image_files.names import check_file_name
from refseg_core.errors import ConfigurationError, StoreError, counted
from refseg_core.masks.cleanup import clean_masks
from refseg_core.masks.polygons import Polygons, polygons_of
from refseg_core.masks.rle import Rle, rle_boxes
from refseg_core.settings import Conventions
from refseg_core.table_schema import Array
from refseg_core.tables import Categories, Detections, ExportedDetections, Images
from tasks.outputs.exports.formats import EXPORT_FORMATS, ExportFormat, ImageMode, Shape
from tasks.runtime.progress import ProgressStep, report
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import labeled_categories
from tasks.store.reviews import read_reviewed_and_removed
from tasks.store.shard_plans import Wanted
from tasks.store.thresholds import shown_thresholds

_MOST_SPLITS = 3
_POLYGON_ISLAND = 16  # px; in polygons, fewer are specks that nobody wants to edit
_UNLABELED, _UNREADABLE, _LABELED = range(3)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is chosen about an export.

    `kept`: which labels are written. `shape`: what instances are written as; None: what the format writes by default.
    `conventions` "original" writes the boxes of results as the published code does. `simplify`: how far corners that
    polygons leave out may lie from them, pixels. `min_island`: islands and holes of fewer pixels are dropped; None: 16
    in polygons, else 0. `split`: shares of training, validation and test. `images`: whether images are linked or copied
    into a folder. `keep_ids`: category ids as the store has them. `partial`: whether unfinished labels may be exported.
    `image_url`: what stands before file names where a format names images by URL. `label_map`: one map of categories
    for each image, instead of a file for each instance.
    """

    kept: LabelFilter = LabelFilter()
    shape: Shape | None = None
    conventions: Conventions = "corrected"
    simplify: float = 1.0
    min_island: int | None = None
    split: tuple[float, ...] = ()
    seed: int = 0
    images: ImageMode = "auto"
    keep_ids: bool = False
    partial: bool = False
    image_url: str = "/data/local-files/?d="
    label_map: bool = False

    def check(self, form: ExportFormat) -> None:
        """Raises ConfigurationError where something is chosen that the format does not have."""
        shape = self.shape_in(form)
        if shape not in form.shapes:
            raise ConfigurationError(
                f"The format {form.name} writes instances as {' or '.join(form.shapes)}, not as {shape}."
            )
        _allow(bool(self.split), "--split", form, [one.name for one in EXPORT_FORMATS.values() if one.has_splits])
        _allow(
            self.images != "auto", "--images", form, [one.name for one in EXPORT_FORMATS.values() if one.holds_images]
        )
        _allow(self.label_map, "--label-map", form, ["masks"])
        if self.split and not (2 <= len(self.split) <= _MOST_SPLITS and abs(sum(self.split) - 1) < 1e-6):  # noqa: PLR2004 train and val
            raise ConfigurationError(
                f"--split {','.join(map(str, self.split))}: expected the shares of train, val and, if wanted, test, "
                "which add up to 1, such as 0.8,0.1,0.1."
            )

    def shape_in(self, form: ExportFormat) -> Shape:
        """Returns what instances are written as."""
        return self.shape or form.shapes[0]

    def island_in(self, form: ExportFormat) -> int:
        """Returns how many pixels an island or hole has at least."""
        if self.min_island is not None:
            return self.min_island
        return _POLYGON_ISLAND if self.shape_in(form) == "polygons" else 0


def _allow(is_chosen: bool, option: str, form: ExportFormat, having: list[str]) -> None:
    if is_chosen and form.name not in having:
        raise ConfigurationError(f"{option} is for the formats {', '.join(having)}; {form.name} has no use for it.")


class ImageCounts(NamedTuple):
    """How many images there are, and how many of them were labeled, could not be read, or are not labeled yet."""

    total: int
    labeled: int
    unreadable: int
    unlabeled: int


@dataclass
class Written:
    """What went into an export so far: images with and without instances, instances, and the IoU of polygons.

    `left_out`: instances that the filter does not keep. `removed`: those that people rejected or merged. `repeated`:
    those that are there a second time, with the same mask and category. `reaching`: of those written, how many reach
    the thresholds by which pictures show them.
    """

    with_instances: int = 0
    empty: int = 0
    instances: int = 0
    left_out: int = 0
    removed: int = 0
    repeated: int = 0
    reaching: int = 0
    polygons: int = 0
    iou_sum: float = 0.0
    iou_min: float = 1.0

    @property
    def iou_mean(self) -> float | None:
        """Mean IoU of the polygons with their masks; None where none were made."""
        return self.iou_sum / self.polygons if self.polygons else None


class Instance(NamedTuple):
    """An instance: its row in `ExportedDetections`, with `class_index` 0..K-1 of its category."""

    number: int
    instance_id: str
    category_id: int
    class_index: int
    category_name: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    mask: Rle


class ExportedImage(NamedTuple):
    """An image that was labeled: its id in the export, its path, its size in pixels, and its instances if any."""

    row: int
    export_id: int | str
    file_name: str
    height: int
    width: int
    instances: list[Instance]


class ExportedLabels:
    """The labels of the images that were labeled last, by what people have decided on them.

    Left out are labels of images that are gone, or were labeled again since they changed, and images that could not be
    read. `images`: those that are exported, with the size that they were labeled at. Raises StoreError where not all
    images are labeled, unless the options allow that.
    """

    def __init__(self, run: StoredLabels, form: ExportFormat, options: ExportOptions) -> None:
        options.check(form)
        self.run = run
        self.form = form
        self.options = options
        self.written = Written()
        everything = run.images()
        state, sizes_N2 = _outcomes(run, everything)
        self.counts = ImageCounts(len(state), *(int((state == one).sum()) for one in (2, 1, 0)))
        self._check_complete()
        self.export_id = export_ids(everything)
        is_labeled = state == _LABELED
        self.images = everything[is_labeled].replace(height=sizes_N2[is_labeled, 0], width=sizes_N2[is_labeled, 1])
        _check_names(self.images)

    @cached_property
    def usual(self) -> LabelFilter:
        """What pictures show: labels that reach the thresholds that were saved for them, else 0.5."""
        return LabelFilter(shown_thresholds(self.run))

    @property
    def shape(self) -> Shape:
        """What instances are written as."""
        return self.options.shape_in(self.form)

    def detections(self) -> Iterator[ExportedDetections]:
        """Reads the instances to write, one table for each shard."""
        return (table for table, _ in self._shards())

    def each_image(self) -> Iterator[ExportedImage]:
        """Reads the images to write with their instances, also those without any, one after the other."""
        row_of = {image_id: row for row, image_id in enumerate(self.images.image_id)}
        for table, image_ids in self._shards():
            rows: dict[str, list[int]] = {}
            for row, image_id in enumerate(table.image_id):
                rows.setdefault(image_id, []).append(row)
            for image_id in image_ids:
                row = row_of[image_id]
                yield ExportedImage(
                    row,
                    self.export_id[image_id],
                    str(self.images.file_name[row]),
                    int(self.images.height[row]),
                    int(self.images.width[row]),
                    [self._instance(table, one) for one in rows.get(image_id, [])],
                )

    def categories(self) -> Categories:
        """Returns the categories that were labeled, by the ids of the export."""
        return self._numbered[1]

    @property
    def has_categories(self) -> bool:
        """Whether the categories were asked for."""
        return "_numbered" in self.__dict__

    def renumbered(self) -> dict[str, tuple[int, int]]:
        """Returns the categories whose id differs from the store's, by name: that one, and the id of the export."""
        ids, categories = self._numbered
        name_of = dict(zip(categories.category_id.tolist(), categories.name, strict=True))
        return {name_of[new]: (old, new) for old, new in ids.items() if old != new}

    def numbered_images(self) -> list[tuple[int | str, str]]:
        """Returns the id and file name of each image whose id differs from the store's, where the format has ids."""
        if not self.form.names_images_in:
            return []
        named = zip(self.images.image_id.tolist(), self.images.file_name.tolist(), strict=True)
        return [(self.export_id[one], str(name)) for one, name in named if str(self.export_id[one]) != one]

    def polygons(self, mask: Rle, *, with_holes: bool) -> Polygons:
        """Returns a mask's polygons, and counts their likeness to it."""
        found = polygons_of(mask, tolerance=self.options.simplify, with_holes=with_holes)
        self.written.polygons += 1
        self.written.iou_sum += found.iou
        self.written.iou_min = min(self.written.iou_min, found.iou)
        return found

    @cached_property
    def _numbered(self) -> tuple[dict[int, int], Categories]:
        """The id of the export for each of the store's, and the categories by ascending id."""
        own = self._own_categories
        ids = {one: one for one in own.category_id.tolist()}
        if not self.options.keep_ids:
            ids = exported_ids(own, self._target_categories(), from_one=not self.form.keeps_target_ids)
        numbers = np.array([ids[one] for one in own.category_id.tolist()], dtype=np.int64)
        order = np.argsort(numbers)
        indices = np.arange(len(own), dtype=np.int32)
        return ids, own[order].replace(category_id=numbers[order], class_index=indices)

    @cached_property
    def _own_categories(self) -> Categories:
        return labeled_categories(self.run.store, self.run.prototypes())

    def _target_categories(self) -> Categories:
        dataset = self.run.requested()
        if dataset is None or "categories" not in dataset.num_rows:
            return Categories.empty()
        return self.run.store.load(dataset, Categories)

    @cached_property
    def _class_index(self) -> dict[int, int]:
        categories = self.categories()
        return dict(zip(categories.category_id.tolist(), categories.class_index.tolist(), strict=True))

    def _instance(self, table: ExportedDetections, row: int) -> Instance:
        category_id = int(table.category_id[row])
        return Instance(
            int(table.number[row]),
            str(table.instance_id[row]),
            category_id,
            self._class_index[category_id],
            str(table.category_name[row]),
            float(table.score[row]),
            tuple(table.box_xyxy[row].tolist()),
            table.mask_rle[row],
        )

    def _shards(self) -> Iterator[tuple[ExportedDetections, Array]]:
        """Yields what is written of a shard's instances, and the ids of its images that are written."""
        self.written = Written()
        file_name_of = dict(zip(self.images.image_id, self.images.file_name, strict=True))
        report(ProgressStep.EXPORT, total=len(self.images))
        num_before = 0
        for (read, labeled), num_removed in read_reviewed_and_removed(self.run, self.images):
            once = read.unrepeated()
            found, numbers = read[once], num_before + 1 + once
            num_before += len(read)
            is_kept = exported_rows(self.options.kept, found, self._own_categories)
            table = self._exported(found[is_kept], numbers[is_kept], file_name_of)
            num_with = len(set(table.image_id))
            self.written.with_instances += num_with
            self.written.empty += len(labeled) - num_with
            self.written.instances += len(table)
            self.written.left_out += len(found) - len(table)
            self.written.removed += num_removed
            self.written.repeated += len(read) - len(found)
            self.written.reaching += int(self.usual.keep(found[is_kept], self._own_categories).sum())
            yield table, labeled.image_id
            report(ProgressStep.EXPORT, advanced=len(labeled))

    def _exported(self, found: Detections, numbers: Array, file_name_of: dict[str, str]) -> ExportedDetections:
        ids, categories = self._numbered
        category_ids = [ids[one] for one in found.category_id.tolist()]
        name_of = dict(zip(categories.category_id.tolist(), categories.name, strict=True))
        masks, boxes = self._cleaned(found)
        return ExportedDetections(
            image_id=found.image_id,
            category_id=np.array(category_ids, dtype=np.int64),
            score=found.score,
            predicted_iou=found.predicted_iou,
            box_xyxy=boxes,
            mask_rle=masks,
            number=numbers,
            instance_id=np.array(instance_ids(found), dtype=object),
            file_name=np.array([file_name_of[one] for one in found.image_id], dtype=object),
            category_name=np.array([name_of[one] for one in category_ids], dtype=object),
        )

    def _cleaned(self, found: Detections) -> tuple[Array, Array]:
        """Returns masks and boxes without small islands and holes."""
        masks = list(found.mask_rle)
        cleaned = exported_masks(masks, self.options.island_in(self.form))
        changed = [row for row, (old, new) in enumerate(zip(masks, cleaned, strict=True)) if old is not new]
        boxes = found.box_xyxy.copy()
        boxes[changed] = rle_boxes([cleaned[row] for row in changed])
        return np.fromiter(cleaned, dtype=object, count=len(cleaned)), boxes

    def _check_complete(self) -> None:
        total, labeled, unreadable, unlabeled = self.counts
        if unlabeled and not self.options.partial:
            raise StoreError(
                f"{labeled + unreadable} of {counted(total, 'image is', 'images are')} labeled: finish the run with "
                "`refseg run`, which labels only what is missing, or export with --partial, which writes only those."
            )
        if total and not labeled:
            raise StoreError(
                f"None of {counted(total, 'image')} has labels to export: {unreadable} could not be read, {unlabeled} "
                "not labeled yet. `refseg status` says why."
            )


def exported_masks(masks: Sequence[Rle], min_island: int) -> list[Rle]:
    """Returns masks as an export holds them, without islands and holes of fewer pixels."""
    return clean_masks(masks, min_island=min_island, min_hole=min_island)


def exported_rows(kept: LabelFilter, found: Detections, categories: Categories) -> Array:
    """Returns which instances [N] an export holds; an empty mask, which no format has a word for, never."""
    is_kept: Array = kept.keep(found, categories)
    return is_kept & (found.box_xyxy[:, 2] > found.box_xyxy[:, 0])


def _outcomes(run: StoredLabels, images: Images) -> tuple[Array, Array]:
    """Returns whether each image is unlabeled, unreadable or labeled [N], and its height and width then [N, 2]."""
    state, sizes_N2 = np.full(len(images), _UNLABELED, dtype=np.int8), np.zeros((len(images), 2), dtype=np.int32)
    wanted = Wanted(images)
    for labeled in run.read_labeled_images(images):
        rows = wanted.rows_of(labeled)
        state[rows] = np.where(labeled.status == "unreadable", _UNREADABLE, _LABELED)
        sizes_N2[rows] = np.stack([labeled.height, labeled.width], axis=1)
    return state, sizes_N2


def _check_names(images: Images) -> None:
    """Raises StoreError where a file name would lead out of the folder that is written."""
    for name in images.file_name:
        if reason := check_file_name(str(name)):
            raise StoreError(
                f"The store names an image {str(name)!r}, which {reason}: expected a path below the image folder. "
                "Index the images again."
            )


def summary_of(labels: ExportedLabels) -> dict[str, Any]:
    """Returns the counts of an export, as its provenance says them."""
    written = labels.written
    counted: dict[str, Any] = {
        "images": labels.counts._asdict() | {"with_instances": written.with_instances, "empty": written.empty},
        "instances": {"written": written.instances, "left_out": written.left_out, "removed": written.removed},
    }
    if written.repeated:
        counted["instances"]["repeated"] = written.repeated
    if written.iou_mean is not None:
        counted["iou_of_polygons"] = {"mean": round(written.iou_mean, 4), "lowest": round(written.iou_min, 4)}
    return counted
