"""Every table that is stored, one dataclass each; a dataclass's fields are the columns of its Parquet files.

Frames: boxes and masks are in the original frame, pixels. `box_xywh` is (x, y, width, height), `box_xyxy` the two
corners; both run along pixel edges, so that a box around one pixel has width 1. A table's key is what identifies a row.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from refseg_core.images import WHITE
from refseg_core.table_schema import RLE_TYPE, VECTOR_TYPE, Array, Table, column

_BOX = pa.list_(pa.float64(), 4)
_BY_AREA = pa.list_(pa.int64(), 4)
_NUMBERS = pa.list_(pa.int32())


@dataclass(frozen=True, eq=False)
class Images(Table):
    """The images of a dataset, in its own order. Key: image_id."""

    image_id: Array = column(pa.string(), "the dataset's id of the image, or its file name where it has none")
    has_integer_id: Array = column(pa.bool_(), "whether the dataset writes the id as a number; exports do too")
    file_name: Array = column(pa.string(), "path below the dataset's image folder or prefix, with '/'")
    height: Array = column(pa.int32(), "rows, as the annotations declare; 0 where nothing does", unit="px")
    width: Array = column(pa.int32(), "columns, as the annotations declare; 0 where nothing does", unit="px")
    size: Array = column(pa.int64(), "size of the file; -1 where it was not listed", unit="bytes")
    version: Array = column(pa.string(), "what changes with the content: etag or modification time; may be ''")
    frame: Array = column(
        pa.string(),
        "'upright' where boxes and masks are meant on the picture as people see it, by its EXIF orientation; '' where "
        "the declared size decides that",
        default="",
    )
    white: Array = column(pa.int32(), "the value of 16-bit grayscale files that is white", default=WHITE)


@dataclass(frozen=True, eq=False)
class Categories(Table):
    """The categories of a dataset, by ascending id. Key: category_id."""

    category_id: Array = column(pa.int64(), "the dataset's id of the category")
    class_index: Array = column(pa.int32(), "rank of the id among the dataset's categories, from 0")
    name: Array = column(pa.string(), "the category's name")
    frequency: Array = column(pa.string(), "LVIS's frequency group: 'r', 'c' or 'f'; null elsewhere", nullable=True)


@dataclass(frozen=True, eq=False)
class Annotations(Table):
    """Ground-truth instances, in the order of the annotation file (sampling depends on it). Key: annotation_id."""

    annotation_id: Array = column(pa.string(), "the dataset's id of the annotation")
    image_id: Array = column(pa.string(), "the image it lies in")
    category_id: Array = column(pa.int64(), "its category")
    box_xywh: Array = column(_BOX, "its box exactly as the file gives it", unit="px")
    area: Array = column(pa.float64(), "its area as the file gives it, else that of mask or box", unit="px^2")
    mask_rle: Array = column(RLE_TYPE, "its mask; null where the file has only a box", nullable=True)
    is_crowd: Array = column(pa.bool_(), "whether it stands for a group; ignored in matching")
    is_impossible: Array = column(pa.bool_(), "whether the file bars it from being a reference")

    @property
    def has_mask(self) -> Array:
        """Whether each annotation [N] has a mask."""
        return np.array([mask is not None for mask in self.mask_rle], dtype=bool)

    @property
    def box_xyxy(self) -> Array:
        """The corners (x1, y1, x2, y2) [N, 4] of the boxes, px."""
        return np.concatenate([self.box_xywh[:, :2], self.box_xywh[:, :2] + self.box_xywh[:, 2:]], axis=1)


@dataclass(frozen=True, eq=False)
class FederatedLabels(Table):
    """What LVIS's image entries say of categories beyond their annotations. Other datasets have no such table.

    Key: image_id, category_id, kind.
    """

    image_id: Array = column(pa.string(), "the image")
    category_id: Array = column(pa.int64(), "the category")
    kind: Array = column(pa.string(), "'negative': absent from the image; 'not_exhaustive': not all are annotated")


@dataclass(frozen=True, eq=False)
class DatasetOddities(Table):
    """What was odd or guessed when a dataset was read; only where there was anything. Key: what."""

    what: Array = column(pa.string(), "what it is, as it follows the count in a message")
    count: Array = column(pa.int64(), "how often it was found")
    examples: Array = column(pa.string(), "the first few, one a line")


@dataclass(frozen=True, eq=False)
class References(Table):
    """The reference instances, by category in the order of their first appearance, then by shot.

    Key: category_id, shot.
    """

    category_id: Array = column(pa.int64(), "the category it is an example of")
    shot: Array = column(pa.int32(), "its number among the category's references, from 0")
    image_id: Array = column(pa.string(), "the image it lies in")
    annotation_id: Array = column(pa.string(), "the annotation it was taken from")
    file_name: Array = column(pa.string(), "the image's path below the reference folder or prefix")
    box_xyxy: Array = column(_BOX, "its box", unit="px")
    mask_rle: Array = column(RLE_TYPE, "its mask; null until masks are segmented", nullable=True)
    mask_source: Array = column(pa.string(), "'dataset', 'segmenter', or 'none' while there is no mask")
    mask_score: Array = column(
        pa.float32(),
        "the segmenter's predicted IoU of the mask; null where the dataset gave it",
        nullable=True,
    )


@dataclass(frozen=True, eq=False)
class ReferenceSources(Table):
    """What the rows of a table of references were made from, so that other tables take over those of the same.

    Lies next to a memory bank, or to references with segmented masks; not in those of older stores. Key: row_index.
    """

    row_index: Array = column(pa.int64(), "the row of the table next to it")
    source: Array = column(pa.string(), "hash of the reference's image, box and mask, as far as the row depends on it")


@dataclass(frozen=True, eq=False)
class MemoryBank(Table):
    """The encoded references: one vector each. Key: category_id, shot."""

    category_id: Array = column(pa.int64(), "the category")
    shot: Array = column(pa.int32(), "the reference's number within the category")
    foreground_weight: Array = column(pa.float32(), "sum of the mask over the patch grid", unit="patches")
    feature: Array = column(VECTOR_TYPE, "mask-weighted mean of the patch features, not normalized")


@dataclass(frozen=True, eq=False)
class ReferenceQuality(Table):
    """How good references are, by comparing them with one another. Key: category_id, shot."""

    category_id: Array = column(pa.int64(), "the category it is an example of")
    category_name: Array = column(pa.string(), "its name")
    shot: Array = column(pa.int32(), "its number among the category's references, from 0")
    annotation_id: Array = column(pa.string(), "the annotation it was taken from")
    file_name: Array = column(pa.string(), "the image's path below the reference folder or prefix")
    mask_source: Array = column(pa.string(), "'dataset' or 'segmenter'")
    mask_score: Array = column(
        pa.float32(), "the segmenter's predicted IoU of the mask; null where the dataset gave it", nullable=True
    )
    num_patches: Array = column(pa.float32(), "sum of the mask over the patch grid; 0: it is not in the memory bank")
    own_similarity: Array = column(
        pa.float32(), "cosine with the mean of the other references of its category; null without others", nullable=True
    )
    other_similarity: Array = column(
        pa.float32(), "largest cosine with the prototype of another category; null without others", nullable=True
    )
    other_category_id: Array = column(pa.int64(), "that category; null without others", nullable=True)
    other_category_name: Array = column(pa.string(), "its name; null without others", nullable=True)
    is_outlier: Array = column(
        pa.bool_(), "whether another category is nearer than its own, or it is unlike the others of its own"
    )
    advice: Array = column(pa.string(), "what to look at; '' where nothing is odd")


@dataclass(frozen=True, eq=False)
class Prototypes(Table):
    """One vector per category, by ascending category id: what masks are matched to. Key: category_id."""

    category_id: Array = column(pa.int64(), "the category")
    num_references: Array = column(pa.int32(), "references it was made from")
    prototype: Array = column(VECTOR_TYPE, "mean of the references' features, unit length")


@dataclass(frozen=True, eq=False)
class ImageFeatures(Table):
    """A reference image as the encoder sees it whole, kept for the next choice of a threshold: a row for each patch.

    In the order of the patch grid, row by row. Key: none.
    """

    feature: Array = column(VECTOR_TYPE, "the patch's feature, not normalized")


@dataclass(frozen=True, eq=False)
class NegativePrototypes(Prototypes):
    """What is not to be labeled: a vector per category, or per instance that a review marked, and the background's.

    The background's have ids below 0, and count patches as references. Prototypes without any have no such table.
    Key: none.
    """

    @property
    def is_background(self) -> Array:
        """Whether each [N] is of the background."""
        return np.asarray(self.category_id < 0)


@dataclass(frozen=True, eq=False)
class GuidanceThresholds(Table):
    """From which likeness on points are prompted, in one row: of one model's features, and these prototypes."""

    thresh: Array = column(pa.float64(), "cosine with any prototype that a point must exceed")
    instance_similarity: Array = column(
        pa.float64(), "cosine that a quarter of its patches exceed in 9 of 10 references, in their whole images"
    )
    patch_similarity: Array = column(pa.float64(), "cosine that 40 % of all patches of these images exceed")
    num_images: Array = column(pa.int64(), "reference images that it was taken from")


@dataclass(frozen=True, eq=False)
class PilotImages(Table):
    """The images of a pilot, in the order in which they were chosen, and why. Key: image_id."""

    image_id: Array = column(pa.string(), "the image")
    cluster: Array = column(pa.int32(), "which of the groups of images that look alike it is of")
    category_id: Array = column(pa.int64(), "the category that it was chosen for")
    is_likely_present: Array = column(pa.bool_(), "whether it was chosen to show this category, else to lack it")
    similarity: Array = column(pa.float32(), "largest cosine of a patch with the category's prototype")


@dataclass(frozen=True, eq=False)
class Detections(Table):
    """The labeled instances, by image, then by falling score. Key: image_id, category_id, score."""

    image_id: Array = column(pa.string(), "the image it lies in")
    category_id: Array = column(pa.int64(), "its category")
    score: Array = column(
        pa.float32(),
        "similarity to the prototype, lowered where masks overlap; by the method 'accurate' its geometric mean with "
        "predicted_iou; in (0, 1]",
    )
    predicted_iou: Array = column(pa.float32(), "the segmenter's own estimate of the mask's quality, in [0, 1]")
    box_xyxy: Array = column(_BOX, "the box around the mask", unit="px")
    mask_rle: Array = column(RLE_TYPE, "the mask")

    def unrepeated(self) -> Array:
        """Returns the rows [n], ascending: of those that are one instance, equal but for their scores, the best one.

        Labels may hold a mask of a category more than once. A decision on it is one on all of these.
        """
        best: dict[tuple[object, ...], int] = {}
        keys = list(zip(self.image_id, self.category_id.tolist(), self.mask_rle, strict=True))
        for row in np.argsort(-self.score, kind="stable").tolist():
            best.setdefault(keys[row], row)
        return np.array(sorted(best.values()), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ExportedDetections(Detections):
    """The labeled instances as exports hand them on, with the categories' ids of the export. Key: instance_id."""

    number: Array = column(pa.int64(), "counts all instances from 1, before any is left out: ids of exports")
    instance_id: Array = column(pa.string(), "what identifies it in reviews, also where it comes back from other tools")
    file_name: Array = column(pa.string(), "its image's path below the image folder or prefix")
    category_name: Array = column(pa.string(), "the name of its category")


@dataclass(frozen=True, eq=False)
class LabeledImages(Table):
    """The images that were processed, with the outcome of each. Key: image_id."""

    image_id: Array = column(pa.string(), "the image")
    version: Array = column(pa.string(), "the version of its content that was labeled")
    status: Array = column(pa.string(), "'ok', 'empty' (no instance found) or 'unreadable'")
    error: Array = column(pa.string(), "why it could not be read", nullable=True)
    height: Array = column(pa.int32(), "rows of the labeled frame; 0 if unreadable", unit="px")
    width: Array = column(pa.int32(), "columns of the labeled frame; 0 if unreadable", unit="px")
    num_proposals: Array = column(pa.int32(), "masks proposed for it")
    num_detections: Array = column(pa.int32(), "instances found in it")
    num_prompts: Array = column(
        pa.int32(),
        "points that the segmenter was prompted with; null in labels of version 0.1.0",
        nullable=True,
        default=None,
    )
    max_similarity: Array = column(
        pa.float32(),
        "largest cosine of a patch with a prototype; null in labels of version 0.1.0, and if unreadable",
        nullable=True,
        default=None,
    )
    seconds: Array = column(
        pa.float32(), "time the models took; the only column that differs between equal runs", unit="s"
    )


@dataclass(frozen=True, eq=False)
class CategorySimilarities(Table):
    """The categories that an image resembles enough to be prompted for, by image, then as the prototypes are.

    What is not here was compared and found too dissimilar: it is absent. The path `guided` writes it.
    Key: image_id, category_id.
    """

    image_id: Array = column(pa.string(), "the image")
    category_id: Array = column(pa.int64(), "the category")
    similarity: Array = column(pa.float32(), "largest cosine of a patch with the category's prototype")


@dataclass(frozen=True, eq=False)
class Decisions(Table):
    """What people decided on instances, a row for each time they did; of an instance the last one counts.

    `refseg_core/analysis/decisions.py` says what each verdict does to labels. Key: decision_id.
    """

    decision_id: Array = column(pa.string(), "a random id")
    decided_at: Array = column(pa.string(), "when, in UTC: 2026-11-29T05:20:00.123456Z; sorts as time does")
    reviewer: Array = column(pa.string(), "who, by the name that they gave")
    source: Array = column(pa.string(), "where: 'review', the page, or the format of an imported file, such as 'cvat'")
    verdict: Array = column(
        pa.string(),
        "'accept', 'reject', 'category', 'part', 'merge', 'mask', 'add' or 'undecided' for labels; 'reference', "
        "'negative' or 'unused' for the bank",
    )
    image_id: Array = column(pa.string(), "the image")
    image_version: Array = column(pa.string(), "the version of its content that was looked at; '' where none is known")
    instance_id: Array = column(pa.string(), "hash of the image's id, the category and the mask that were shown")
    mask_rle: Array = column(RLE_TYPE, "the mask that was shown; of a missed object the one that was added")
    found_category_id: Array = column(pa.int64(), "the category that was shown; null: added", nullable=True)
    found_category_name: Array = column(pa.string(), "its name; null: added", nullable=True)
    score: Array = column(pa.float32(), "the score that was shown; null: added", nullable=True)
    predicted_iou: Array = column(pa.float32(), "the segmenter's own estimate of the mask's quality; 1: drawn by hand")
    category_id: Array = column(pa.int64(), "the category by the decision")
    category_name: Array = column(pa.string(), "its name, by which it is found in labels that number otherwise")
    new_mask_rle: Array = column(RLE_TYPE, "the mask by the decision; null: as it was shown", nullable=True)
    merged_into: Array = column(pa.string(), "for 'merge' the instance_id of the whole", nullable=True)
    is_audit: Array = column(pa.bool_(), "whether it was drawn by chance, which makes it fit to estimate precision")
    labels_key: Array = column(pa.string(), "the labels that it was seen in; '' where it was in none")


@dataclass(frozen=True, eq=False)
class ImageProposals(Table):
    """What the models made of an image, whatever the references, in one row; what they were asked later is in others.

    A mask's key is its point's row in the grid, times 3, plus which of the point's masks it is. Packed masks have a bit
    a pixel, column by column, each column from a whole byte on.
    """

    height: Array = column(pa.int32(), "rows of the image", unit="px")
    width: Array = column(pa.int32(), "columns of the image", unit="px")
    logits_size: Array = column(pa.int32(), "side of the segmenter's masks", unit="cells")
    num_channels: Array = column(pa.int32(), "channels of a feature")
    feature: Array = column(VECTOR_TYPE, "the encoder's features of the image, patch by patch; none in later rows")
    point: Array = column(_NUMBERS, "points of the grid that were asked")
    mask_key: Array = column(_NUMBERS, "the masks of these points, ascending")
    mask_predicted_iou: Array = column(VECTOR_TYPE, "their predicted IoU")
    mask_descriptor: Array = column(VECTOR_TYPE, "their mean features, unit length, mask by mask")
    mask_extent: Array = column(_NUMBERS, "their inclusive extents, x and y, mask by mask", unit="cells")
    mask_bits: Array = column(pa.binary(), "the masks, packed")
    num_edge_logits: Array = column(_NUMBERS, "how many logits near its edge each mask has")
    is_half: Array = column(pa.bool_(), "whether logits are of half precision, as where all masks of a point are kept")
    edge_logits: Array = column(pa.binary(), "the logits near edges, mask by mask, as edge_layout says")
    look_key: Array = column(_NUMBERS, "masks whose crops were encoded")
    look_inside: Array = column(VECTOR_TYPE, "the mean features inside of the masks, unit length or zeros")
    look_outside: Array = column(VECTOR_TYPE, "the mean features around the masks, unit length or zeros")
    look_has_mask: Array = column(pa.list_(pa.bool_()), "whether the mask covers anything in its crop")
    refined_key: Array = column(_NUMBERS, "masks that were decoded again from their boxes")
    refined_bits: Array = column(pa.binary(), "the masks that came of it, packed, of the image's size")
    edge_layout: Array = column(
        pa.int8(),
        "0: the logits within two cells of an edge, or more where the image is small, row by row; 1: those within one "
        "where no side of the image is smaller than the masks', column by column, first the first byte of all",
        default=0,
    )


@dataclass(frozen=True, eq=False)
class GoneLabels(Table):
    """The labels that no longer belong to any image: it was removed, or changed and was labeled again.

    Key: image_id, version.
    """

    image_id: Array = column(pa.string(), "the image")
    version: Array = column(pa.string(), "the version of its content that was labeled, or was to be")
    reason: Array = column(pa.string(), "'removed' or 'changed'")
    shard: Array = column(pa.string(), "the shard whose parts hold its labels")


@dataclass(frozen=True, eq=False)
class Metrics(Table):
    """The evaluation's numbers. Key: iou_type, metric, category_id."""

    iou_type: Array = column(pa.string(), "'bbox', 'segm' or 'semantic': what was compared")
    metric: Array = column(
        pa.string(),
        "its name: AP, AP50, APs, APr, AR100, ... as COCO and LVIS say; VOC_AP50 and VOC07_AP50 as VOC does; nAP, AP "
        "of novel categories; AP_low and AP_high, its 95 % interval; precision@0.5, and recall, TP, FP and FN, at a "
        "score, and precision@own, F1@own and score_thresh@own at that of the category; IoU, mIoU",
    )
    category_id: Array = column(pa.int64(), "the category; null for the mean over all", nullable=True)
    category_name: Array = column(pa.string(), "its name; null for the mean over all", nullable=True)
    num_instances: Array = column(pa.int64(), "ground-truth instances behind it, crowds left out")
    value: Array = column(pa.float64(), "the metric in [0, 1], TP, FP and FN counts; -1 where nothing defines it")

    def overall(self, metric: str) -> dict[str, float]:
        """Returns the metric over all categories, by what was compared."""
        rows = zip(self.iou_type, self.metric, self.category_id, self.value.tolist(), strict=True)
        return {kind: value for kind, name, category, value in rows if name == metric and category is None}


@dataclass(frozen=True, eq=False)
class Confusion(Table):
    """What lies on ground-truth instances: detections that cover them by an IoU of 0.5, of whatever category.

    Key: score_thresh, category_id, found_category_id.
    """

    score_thresh: Array = column(
        pa.float64(), "only detections of at least this score; null: of that of their category", nullable=True
    )
    category_id: Array = column(pa.int64(), "the instances' category")
    found_category_id: Array = column(pa.int64(), "that of what covers them; null: nothing does", nullable=True)
    count: Array = column(pa.int64(), "instances, crowds left out")


@dataclass(frozen=True, eq=False)
class Misses(Table):
    """The images with ground truth of which nothing was found, at the lowest of the evaluation's scores.

    Key: image_id.
    """

    image_id: Array = column(pa.string(), "the image")
    num_instances: Array = column(pa.int64(), "ground-truth instances, crowds left out")
    num_detections: Array = column(pa.int64(), "detections of at least that score, none of them right")


@dataclass(frozen=True, eq=False)
class CategoryThresholds(Table):
    """From which score on the labels of each category are worth keeping, and how sure that is. Key: category_id.

    What the labels at the threshold and above are worth is null where nothing says it.
    """

    category_id: Array = column(pa.int64(), "the category")
    category_name: Array = column(pa.string(), "its name")
    score_thresh: Array = column(pa.float64(), "the proposed threshold; null: nothing says one", nullable=True)
    thresh_low: Array = column(pa.float64(), "lower end of its 95 % interval, over draws of images", nullable=True)
    thresh_high: Array = column(pa.float64(), "its upper end", nullable=True)
    evidence: Array = column(
        pa.string(), "'ground truth', 'reviews' (labels that people decided on), 'references' or 'none'"
    )
    num_instances: Array = column(pa.int64(), "instances of the evidence: annotations, accepted labels or references")
    num_labels: Array = column(pa.int64(), "labels of this score and above that the evidence judges")
    num_images: Array = column(
        pa.int64(),
        "images that were labeled when it was proposed; null in older tables",
        nullable=True,
        default=None,
    )
    precision: Array = column(pa.float64(), "the share of these that are right", nullable=True)
    precision_low: Array = column(pa.float64(), "lower end of precision's 95 % interval (Wilson)", nullable=True)
    precision_high: Array = column(pa.float64(), "its upper end", nullable=True)
    recall: Array = column(pa.float64(), "the share of the instances that are found", nullable=True)
    f1: Array = column(pa.float64(), "harmonic mean of precision and recall", nullable=True)


@dataclass(frozen=True, eq=False)
class ThresholdCurves(Table):
    """What labels of a score and above are worth, where ground truth or reviews say it. Key: category_id, score."""

    category_id: Array = column(pa.int64(), "the category")
    score: Array = column(pa.float64(), "the score")
    precision: Array = column(pa.float64(), "the share of the labels that are right")
    recall: Array = column(pa.float64(), "the share of the instances that are found")


@dataclass(frozen=True, eq=False)
class BenchmarkNumbers(Table):
    """A benchmark's results and the published ones; all numbers in percent. Key: case, iou_type."""

    benchmark: Array = column(pa.string(), "its name")
    conventions: Array = column(pa.string(), "'as published' or 'corrected': by which conventions it was run")
    case: Array = column(pa.string(), "which of its runs, such as 'shots 5'; 'all' for all of them")
    iou_type: Array = column(pa.string(), "'bbox', 'segm' or 'semantic': what was compared")
    metric: Array = column(pa.string(), "the number that counts: AP, AP50 or mIoU over the evaluated categories")
    num_runs: Array = column(pa.int64(), "runs behind it")
    mean: Array = column(pa.float64(), "their mean", unit="%")
    deviation: Array = column(pa.float64(), "their standard deviation", unit="%")
    seconds: Array = column(pa.float64(), "mean time that the models took for an image", unit="s")
    published: Array = column(pa.float64(), "the published mean; null where none is known", unit="%", nullable=True)
    published_deviation: Array = column(
        pa.float64(), "the published standard deviation; null where none is known", unit="%", nullable=True
    )
    verified: Array = column(pa.string(), "what of the benchmark was run with refseg, and where not, why")


@dataclass(frozen=True, eq=False)
class VariantLabels(Detections):
    """The instances that variants of labeling found while they were compared.

    Key: variant, seed, image_id, category_id, score.
    """

    variant: Array = column(pa.string(), "the variant's name")
    seed: Array = column(pa.int64(), "seed of the references")

    @property
    def detections(self) -> Detections:
        """The instances alone."""
        return Detections.from_arrow(self.to_arrow())


@dataclass(frozen=True, eq=False)
class VariantImages(Table):
    """What labeling an image took, while variants of labeling were compared. Key: variant, seed, image_id."""

    variant: Array = column(pa.string(), "the variant's name")
    seed: Array = column(pa.int64(), "seed of the references")
    image_id: Array = column(pa.string(), "the image")
    num_prompts: Array = column(pa.int64(), "points that the segmenter was prompted with; 0: it never saw the image")
    prompt_share: Array = column(pa.float64(), "these as a share of the grid's points, in [0, 1]")
    num_proposals: Array = column(pa.int64(), "masks to choose from")
    num_detections: Array = column(pa.int64(), "instances found")
    num_instances: Array = column(_BY_AREA, "ground-truth instances, crowds left out: all, small, medium, large")
    num_proposed: Array = column(_BY_AREA, "those that a mask of some prompt covers, whatever became of that mask")


@dataclass(frozen=True, eq=False)
class VariantNumbers(Table):
    """What variants of labeling reached side by side, and what they cost. Key: variant, seed, iou_type, metric."""

    variant: Array = column(pa.string(), "the variant's name; the first is what others are compared with")
    seed: Array = column(pa.int64(), "seed of the references; null for the mean over all", nullable=True)
    iou_type: Array = column(pa.string(), "'bbox' or 'segm': what was compared; 'none' for cost")
    metric: Array = column(
        pa.string(),
        "AP, AP50, AP75, APs, APm and APl as COCO says; what limits them: covered, covered_s, covered_m, covered_l, "
        "labeled_right, mask_iou, and of all masks before matching proposed, proposed_s, proposed_m, proposed_l; "
        "cost for each image: num_prompts, prompt_share, skipped_share, seconds, also of each stage, and peak_bytes",
    )
    value: Array = column(pa.float64(), "the number; shares and AP in [0, 1], -1 where nothing defines it")
    difference: Array = column(pa.float64(), "the number minus the first variant's; null if undefined", nullable=True)
    low: Array = column(pa.float64(), "lower end of the difference's 95 % interval; null: not drawn", nullable=True)
    high: Array = column(pa.float64(), "its upper end", nullable=True)
