"""Draws the references and the labels of an image."""

import hashlib
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.analysis.label_filter import LabelFilter
from refseg_core.errors import ConfigurationError, ImageError, RefsegError
from refseg_core.masks.rle import Rle
from refseg_core.tables import Annotations, Categories, Detections, Images, Prototypes, References
from refseg_core.visualization import Picture, draw_instances, reference_panel, to_jpeg
from tasks.datasets.image_reader import read_image
from tasks.datasets.reference_images import ReferenceFolder
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.lineage import labeled_categories, negatives_of, reference_dataset, references_of
from tasks.store.store import Artifact, Store

MAX_PIXELS = 400_000_000
_LONGEST_NAME = 255  # bytes, on most file systems


class Palette:
    """The names and colors of the prototypes' categories, and the colors of negatives."""

    def __init__(self, store: Store, prototypes: Artifact) -> None:
        categories = store.load(reference_dataset(store, prototypes), Categories)
        names = dict(zip(categories.category_id.tolist(), categories.name, strict=True))
        ids = store.load(prototypes, Prototypes).category_id.tolist()
        self.name_of = {category_id: str(names[category_id]) for category_id in ids}  # in the order of the prototypes
        negatives = negatives_of(store, prototypes).category_id.tolist()
        self._color = {category_id: index for index, category_id in enumerate([*ids, *negatives])}

    def knows(self, category_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Returns whether there are prototypes of the categories [N]."""
        return np.isin(category_ids, list(self.name_of))

    def names(self, category_ids: npt.NDArray[np.int64]) -> list[str]:
        """Returns the names of categories."""
        return [self.name_of[category_id] for category_id in category_ids.tolist()]

    def colors(self, category_ids: npt.NDArray[np.int64]) -> list[int]:
        """Returns the color indices of categories."""
        return [self._color[category_id] for category_id in category_ids.tolist()]


class LabelPictures:
    """Writes a picture of each labeled image while it is in memory."""

    def __init__(self, store: Store, prototypes: Artifact, pictures_uri: str, kept: LabelFilter) -> None:
        self._folder = Folder(pictures_uri)
        self._palette = Palette(store, prototypes)
        self._kept = kept
        self._categories = labeled_categories(store, prototypes)

    def write(self, file_name: str, image: Picture, detections: Detections) -> None:
        """Draws the detections that are kept. `image`: uint8 RGB [H, W, 3]."""
        picture = draw_detections(image, self._kept.apply(detections, self._categories), self._palette)
        self._folder.replace(picture_name(file_name), to_jpeg(picture))


def picture_name(file_name: str) -> str:
    """Returns the name of an image's picture."""
    name = file_name if PurePosixPath(file_name).suffix.lower() == ".jpg" else f"{file_name}.jpg"
    folder, _, last = name.rpartition("/")
    if len(last.encode()) > _LONGEST_NAME:
        last = f"{last[: _LONGEST_NAME // 8]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}.jpg"
    return f"{folder}/{last}" if folder else last


def check_apart(pictures: Folder, images_uri: str) -> None:
    """Raises ConfigurationError where pictures would lie among the images: under the same names, in their place."""
    if pictures.overlaps(Folder(images_uri)):
        raise ConfigurationError(
            f"{redact(pictures.uri)}: pictures may not be written there, since {redact(images_uri)} holds images, and "
            "a picture has the name of its image. Choose a folder apart from it."
        )


def draw_detections(image: Picture, detections: Detections, palette: Palette) -> Picture:
    """Returns the image, uint8 RGB [H, W, 3], with the detections."""
    names, colors = palette.names(detections.category_id), palette.colors(detections.category_id)
    return draw_instances(image, list(detections.mask_rle), None, names, colors, scores=detections.score)


def draw_ground_truth(image: Picture, annotations: Annotations, palette: Palette) -> Picture:
    """Returns the image, uint8 RGB [H, W, 3], with its annotated instances of the prototypes' categories."""
    shown = annotations[palette.knows(annotations.category_id)]
    names, colors = palette.names(shown.category_id), palette.colors(shown.category_id)
    return draw_instances(image, fitting_masks(image, shown), shown.box_xyxy, names, colors)


def fitting_masks(image: Picture, annotations: Annotations) -> list[Rle | None]:
    """Returns the masks of an image's annotations, without those of another size than the image."""
    return [rle if rle is not None and rle.size == image.shape[:2] else None for rle in annotations.mask_rle]


class DrawnReference(NamedTuple):
    """A reference's picture, uint8 RGB [H, W, 3], its category, and the id by which `refseg bank --drop` knows it."""

    panel: Picture
    category_id: int
    annotation_id: str


def draw_references(
    store: Store, prototypes: Artifact, palette: Palette, *, most: int | None = None, side: int = 224
) -> list[DrawnReference]:
    """Returns the references with their masks, those whose images can be read; of more than `most` the first shots."""
    dataset = reference_dataset(store, prototypes)
    manifest = store.manifest(dataset.name) or {}
    folder = ReferenceFolder(manifest["settings"]["images"], store)
    references = store.load(references_of(store, prototypes), References)
    references = references[palette.knows(references.category_id)]
    shown = references[np.sort(np.argsort(references.shot, kind="stable")[:most])]
    images = store.load(dataset, Images)
    read = (_read(folder, images, str(image_id)) for image_id in shown.image_id)
    return [_drawn(image, shown, row, palette, side) for row, image in enumerate(read) if image is not None]


def _read(folder: Folder, images: Images, image_id: str) -> Picture | None:
    """Returns an image, or None where it cannot be read any more."""
    (row,) = np.flatnonzero(images.image_id == image_id).tolist()
    try:
        return read_image(folder, images, row, max_pixels=MAX_PIXELS)
    except (ImageError, RefsegError):
        return None


def _drawn(image: Picture, references: References, row: int, palette: Palette, side: int) -> DrawnReference:
    category, annotation_id = references.category_id[row : row + 1], str(references.annotation_id[row])
    panel = reference_panel(
        image,
        references.box_xyxy[row],
        references.mask_rle[row],
        category_name=palette.names(category)[0],
        color_index=palette.colors(category)[0],
        annotation_id=annotation_id,
        mask_source=str(references.mask_source[row]),
        mask_score=references.mask_score[row],
        side=side,
    )
    return DrawnReference(panel, int(category[0]), annotation_id)
