"""Step 2: gives a mask to every reference that has only a box."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from refseg_core import images
from refseg_core.masks.rle import Masks, encode_masks
from refseg_core.models import preprocessing
from refseg_core.models.protocols import Segmenter
from refseg_core.models.registry import model_spec
from refseg_core.references import segmentation
from refseg_core.references.validation import problem_of_box
from refseg_core.settings import Conventions
from refseg_core.table_schema import Array, Table
from refseg_core.tables import Images, References, ReferenceSources
from refseg_core.versions import combined
from tasks.datasets.known_rows import known_rows
from tasks.datasets.reference_images import ReferenceFolder, ReferenceImages
from tasks.models.loading import load_segmenter
from tasks.models.weights import weights_sha256
from tasks.runtime.progress import ProgressStep, report
from tasks.runtime.retried_task import retried_task
from tasks.specs import Models
from tasks.store.steps import SEGMENT_REFERENCES
from tasks.store.store import Artifact, Recipe, Store


@retried_task("segment references")
def segment_references(
    store: Store,
    *,
    dataset: Artifact,
    references: Artifact,
    images_uri: str,
    models: Models,
    conventions: Conventions = "corrected",
) -> Artifact:
    """Segments boxes into masks; where every reference has a mask already, the references stay as they are.

    Masks that the store holds of the same boxes are taken from there.
    """
    table = store.load(references, References)
    if all(rle is not None for rle in table.mask_rle):
        return references
    reference_images = ReferenceImages(ReferenceFolder(images_uri, store), store.load(dataset, Images), table)
    segmenter_version = model_spec(models.segmenter.model).version
    recipe = Recipe(
        *SEGMENT_REFERENCES,
        version=combined(images.VERSION, preprocessing.VERSION, segmenter_version, segmentation.VERSION),
        # The corrected conventions go unsaid, and so keep the keys of older stores.
        settings={"conventions": conventions} if conventions == "original" else {},
        inputs={"references": references.name, "images": reference_images.content()},
        weights={"segmenter": weights_sha256(models.segmenter.model, models.segmenter.weights)},
    )

    def segmented() -> list[Table]:
        rows = np.flatnonzero([rle is None for rle in table.mask_rle])
        sources = reference_images.sources(table[rows])
        known = known_rows(store, recipe, References, sources)
        taken_over = _taken_over(table, rows, [known.get(source) for source in sources])
        masks = _with_masks(taken_over, reference_images, models, conventions)
        return [masks, ReferenceSources(row_index=rows, source=sources)]

    return store.make(recipe, segmented)


def _taken_over(references: References, rows: Array, known: Sequence[References | None]) -> References:
    """Returns the references with the masks that are known; `known`: for each of the rows one reference or None."""
    columns = {name: getattr(references, name).copy() for name in ("mask_rle", "mask_source", "mask_score")}
    for row, reference in zip(rows.tolist(), known, strict=True):
        if reference is not None:
            for name, values in columns.items():
                values[row] = getattr(reference, name)[0]
    return references.replace(**columns)


def _with_masks(
    references: References, reference_images: ReferenceImages, models: Models, conventions: Conventions
) -> References:
    masks, sources = references.mask_rle.copy(), references.mask_source.copy()
    scores = references.mask_score.copy()
    lacking = np.flatnonzero([rle is None for rle in references.mask_rle])
    report(ProgressStep.SEGMENT_REFERENCES, total=len(lacking))
    if len(lacking) == 0:
        return references
    segmenter = load_segmenter(models.segmenter, models.device)
    for file_name in sorted(set(references.file_name[lacking])):
        rows = lacking[references.file_name[lacking] == file_name]
        found, predicted_iou = _segment(
            segmenter, reference_images.read(file_name), references.box_xyxy[rows], conventions
        )
        for row, rle, score in zip(rows, encode_masks(found), predicted_iou.tolist(), strict=True):
            masks[row], sources[row], scores[row] = rle, "segmenter", score
        report(ProgressStep.SEGMENT_REFERENCES, advanced=len(rows))
    return references.replace(mask_rle=masks, mask_source=sources, mask_score=scores)


def _segment(
    segmenter: Segmenter, pixels: images.Pixels, boxes_N4: npt.NDArray[np.float64], conventions: Conventions
) -> tuple[Masks, npt.NDArray[np.float32]]:
    """Segments the boxes. Those that cover nothing get empty masks, which the next step leaves out, saying why."""
    height, width = pixels.shape[:2]
    usable = np.array([problem_of_box(box, height, width) is None for box in boxes_N4], dtype=bool)
    masks, scores = np.zeros((len(boxes_N4), height, width), dtype=bool), np.zeros(len(boxes_N4), dtype=np.float32)
    if usable.any():
        found = segmentation.segment_boxes(segmenter, pixels, boxes_N4[usable], conventions=conventions)
        masks[usable], scores[usable] = found
    return masks, scores
