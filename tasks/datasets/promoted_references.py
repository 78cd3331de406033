"""Instances that people use as references in a review become references of the store, and cease to be when undone.

Those used as negatives are references of categories of their own, one for each category that they were taken for.

Not here: what people decide (`tasks/store/reviews.py`), and what becomes of references that were added
(`reference_edits.py`).
"""

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from refseg_core.analysis.decisions import standing
from refseg_core.errors import ImageError, NotFoundError, counted
from refseg_core.images import Pixels, decode_image
from refseg_core.masks.rle import rle_boxes
from refseg_core.tables import Categories, Decisions, Images
from refseg_core.visualization import to_png
from tasks.datasets.image_reader import read_image
from tasks.datasets.reference_edits import AddedReference, EditedReferences, ReferenceEdits
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.store.label_store import FOLDER, StoredLabels
from tasks.store.lineage import decision_of
from tasks.store.reviews import StoredReview
from tasks.store.steps import REVIEW
from tasks.store.store import Artifact, NotMadeError, Store

logger = logging.getLogger(__name__)

_MAX_PIXELS = 400_000_000
_MARK = " #"  # between the name of the picture and the decision that made it a reference


class _Promoted(NamedTuple):
    """A decision that an instance is a reference or a negative, a table of one row, and the folder of its image."""

    decision: Decisions
    images_uri: str

    @property
    def id(self) -> str:
        return str(self.decision.decision_id[0])

    @property
    def category(self) -> str:
        """The category that it is a reference of."""
        name = str(self.decision.category_name[0])
        return f"not {name} (review)" if self.decision.verdict[0] == "negative" else name


def add_promoted(store: Store, source: DatasetSource, dataset: Artifact) -> list[str]:
    """Adds what was promoted since the last time to the references, and drops what no longer is.

    Returns the categories that are negatives by it. Those whose category the references have not are left out; so are,
    with a warning, those whose image has changed or cannot be read. Raises NotMadeError where the store shall make
    nothing, and there is something to add or drop.
    """
    edits = ReferenceEdits(store, source)
    current = edits.current()
    names = {*store.load(dataset, Categories).name, *(one.category for one in current.added if not _decision(one))}
    wanted = {one.id: one for one in _promoted(store) if one.decision.category_name[0] in names}
    known = {decision_of(name) for _, name in edits.original_names()}
    gone = [one.id for one in current.added if _decision(one) and _decision(one) not in wanted]
    new = [one for decision_id, one in wanted.items() if decision_id not in known]
    if (new or gone) and store.find_only:
        raise NotMadeError(f"{counted(len(new), 'instance')} to add to the references, {len(gone)} to drop.")
    for own_id in gone:
        edits.drop(own_id)
    for one in new:
        _add(store, edits, one)
    return _negatives(edits.current() if new or gone else current, wanted)


def _negatives(edits: EditedReferences, promoted: Mapping[str, _Promoted]) -> list[str]:
    """Returns the categories of the negatives that nobody dropped."""
    ids = {one.id for one in promoted.values() if one.decision.verdict[0] == "negative"}
    return sorted({one.category for one in edits.added if _decision(one) in ids})


def _decision(added: AddedReference) -> str | None:
    """Returns the decision that made an instance a reference; None for other references."""
    return decision_of(added.original_name)


def _promoted(store: Store) -> Iterator[_Promoted]:
    """Yields what people decided to use as references and negatives, of all images of the store, by time."""
    for recipe in store.manifests(REVIEW.folder, "recipe.json"):
        decisions = standing(StoredReview(store, recipe["key"]).read())
        for row in np.flatnonzero(np.isin(decisions.verdict, ("reference", "negative"))).tolist():
            yield _Promoted(decisions[row : row + 1], recipe["settings"]["images"])


def _add(store: Store, edits: ReferenceEdits, one: _Promoted) -> None:
    """Keeps the picture and the mask in the store, unless the image is another now."""
    decision = one.decision
    mask = decision.mask_rle[0] if decision.new_mask_rle[0] is None else decision.new_mask_rle[0]
    try:
        name, data, pixels = _read(store, one)
    except (ImageError, NotFoundError) as error:
        logger.warning("The instance %s was promoted to a reference, but: %s", decision.instance_id[0], error)
        return
    if mask.size != pixels.shape[:2]:
        logger.warning("The instance %s of %s is no reference: its image has changed", decision.instance_id[0], name)
        return
    left, top, right, bottom = rle_boxes([mask])[0].tolist()
    edits.add(
        AddedReference(
            id="",
            category=one.category,
            file_name=edits.put_picture(name, data) if data else edits.put_picture("frame.png", to_png(pixels)),
            original_name=f"{name}{_MARK}{one.id}",
            height=mask.size[0],
            width=mask.size[1],
            box_xyxy=(left, top, right, bottom),
            mask=mask,
            mask_source="segmenter",
            mask_score=float(decision.predicted_iou[0]),
        )
    )


def _read(store: Store, one: _Promoted) -> tuple[str, bytes, Pixels]:
    """Returns the image's name, its file and its pixels in the labeled frame.

    The file is b'' where people see it otherwise than it was labeled, turned by its EXIF entry. Raises ImageError or
    NotFoundError where there is no such image.
    """
    images, row = _row_of(store, one)
    folder, name = Folder(one.images_uri), str(images.file_name[row])
    pixels = read_image(folder, images, row, max_pixels=_MAX_PIXELS)
    data = folder.read(name)
    is_seen_so = np.array_equal(decode_image(data, max_pixels=_MAX_PIXELS, is_upright=True), pixels)
    return name, data if is_seen_so else b"", pixels


def _row_of(store: Store, one: _Promoted) -> tuple[Images, int]:
    decision = one.decision
    for recipe in reversed(store.manifests(FOLDER, "recipe.json")):
        if recipe["settings"]["images"] == one.images_uri:
            images = StoredLabels(store, recipe["key"]).images()
            rows = np.flatnonzero(images.image_id == decision.image_id[0])
            versions = {images.version[row] for row in rows} | {decision.image_version[0]}
            if len(rows) and len(versions - {""}) <= 1:
                return images, int(rows[0])
    raise ImageError(f"{decision.image_id[0]} is not among the labeled images any more, or has changed.")
