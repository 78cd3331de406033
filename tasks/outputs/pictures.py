"""Draws references and labels for people to look at."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.category_mapping import numbered_as
from refseg_core.errors import ConfigurationError, DatasetError, ImageError, RefsegError
from refseg_core.images import decode_image
from refseg_core.tables import Annotations, Categories, Detections, Images, Prototypes, References
from refseg_core.visualization import Picture, contact_sheet, draw_instances, reference_panel, side_by_side, to_jpeg
from tasks.datasets.image_reader import read_images
from tasks.datasets.indexed import load_dataset
from tasks.runtime.progress import report
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.label_store import LabelRun
from tasks.store.lineage import input_artifact, reference_dataset, references_of
from tasks.store.store import Artifact, Store

SCORE_THRESH = 0.5
MAX_PIXELS = 400_000_000
_LONGEST_NAME = 255  # bytes, on most file systems
_STEP = "draw pictures"


class Palette:
    """The names and colors of the prototypes' categories."""

    def __init__(self, store: Store, prototypes: Artifact) -> None:
        categories = store.load(reference_dataset(store, prototypes), Categories)
        names = dict(zip(categories.category_id.tolist(), categories.name, strict=True))
        ids = store.load(prototypes, Prototypes).category_id.tolist()
        self._name = {category_id: str(names[category_id]) for category_id in ids}
        self._color = {category_id: index for index, category_id in enumerate(ids)}

    def __contains__(self, category_id: int) -> bool:
        return category_id in self._name

    @property
    def name_of(self) -> Mapping[int, str]:
        """The categories' names by id, in the order of the prototypes."""
        return self._name

    def names(self, category_ids: npt.NDArray[np.int64]) -> list[str]:
        """The names of categories."""
        return [self._name[category_id] for category_id in category_ids.tolist()]

    def colors(self, category_ids: npt.NDArray[np.int64]) -> list[int]:
        """The color indices of categories."""
        return [self._color[category_id] for category_id in category_ids.tolist()]


class LabelPictures:
    """Writes a picture of each labeled image while it is at hand."""

    def __init__(self, store: Store, prototypes: Artifact, pictures_uri: str) -> None:
        self._folder = Folder(pictures_uri)
        self._palette = Palette(store, prototypes)

    def write(self, file_name: str, image: Picture, detections: Detections) -> None:
        """Draws the detections above the usual score threshold. `image`: uint8 RGB [H, W, 3]."""
        picture = draw_detections(image, detections, self._palette, SCORE_THRESH)
        self._folder.replace(picture_name(file_name), to_jpeg(picture))


def picture_name(file_name: str) -> str:
    """Where the picture of an image goes."""
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


def draw_detections(image: Picture, detections: Detections, palette: Palette, score_thresh: float) -> Picture:
    """The image, uint8 RGB [H, W, 3], with the detections whose score is at least the threshold."""
    shown = detections[detections.score >= score_thresh]
    return draw_instances(
        image,
        list(shown.mask_rle),
        None,
        palette.names(shown.category_id),
        palette.colors(shown.category_id),
        scores=shown.score,
    )


def draw_ground_truth(image: Picture, annotations: Annotations, palette: Palette) -> Picture:
    """The image, uint8 RGB [H, W, 3], with its annotated instances of the prototypes' categories."""
    known = np.array([category_id in palette for category_id in annotations.category_id.tolist()], dtype=bool)
    shown = annotations[known]
    corners = shown.box_xywh.copy()
    corners[:, 2:] += corners[:, :2]
    return draw_instances(
        image,
        list(shown.mask_rle),
        corners,
        palette.names(shown.category_id),
        palette.colors(shown.category_id),
    )


def show_labels(store_uri: str, labels_key: str, out_uri: str, *, score_thresh: float, limit: int | None) -> int:
    """Writes `references.jpg` and, per labeled image, ground truth (where known) beside predictions.

    Returns the number of pictures written.
    """
    store, out = Store(store_uri), Folder(out_uri)
    run = LabelRun(store, labels_key)
    recipe = run.recipe_or_error()
    check_apart(Folder(out.join("images")), recipe["settings"]["images"])
    prototypes = input_artifact(store, recipe["inputs"], "prototypes")
    palette = Palette(store, prototypes)
    panels = reference_panels(store, prototypes, palette)
    out.replace("references.jpg", to_jpeg(contact_sheet(panels, heading=f"{len(panels)} references")))
    annotations = _ground_truth(store, prototypes, recipe["settings"]["images"])
    num_pictures = 1
    source = Folder(recipe["settings"]["images"])
    for images, detections in _labels_by_shard(run, limit):
        report(_STEP, total=len(images))
        for image in read_images(source, images, max_pixels=MAX_PIXELS):
            report(_STEP, advanced=1)
            if image.pixels is None:
                continue
            image_id = images.image_id[image.row]
            found = detections[detections.image_id == image_id]
            picture = draw_detections(image.pixels, found, palette, score_thresh)
            if annotations is not None:
                truth = annotations[annotations.image_id == image_id]
                titles = ("ground truth", f"predictions, score at least {score_thresh:g}")
                picture = side_by_side(draw_ground_truth(image.pixels, truth, palette), picture, titles)
            out.replace(f"images/{picture_name(str(images.file_name[image.row]))}", to_jpeg(picture))
            num_pictures += 1
    return num_pictures


def _labels_by_shard(run: LabelRun, limit: int | None) -> Iterator[tuple[Images, Detections]]:
    left, images = limit, run.images()
    row_of = {image_id: row for row, image_id in enumerate(images.image_id)}
    for detections, labeled in run.read(images):
        readable = labeled.image_id[labeled.status != "unreadable"]
        known = images[np.array([row_of[image_id] for image_id in readable], dtype=np.int64)][:left]
        yield known, detections
        left = None if left is None else left - len(known)
        if left == 0:
            return


def _ground_truth(store: Store, prototypes: Artifact, images_uri: str) -> Annotations | None:
    """The annotations of the last indexed dataset over the same images, or None where it is not of these categories."""
    for manifest in reversed(store.manifests("dataset")):
        if manifest["settings"]["images"] == images_uri and manifest["settings"]["annotations"]:
            referenced = store.load(reference_dataset(store, prototypes), Categories)
            dataset = load_dataset(store, store.artifact("dataset", manifest["key"]))
            try:
                return numbered_as(referenced, dataset).annotations
            except DatasetError:
                return None
    return None


def reference_panels(
    store: Store, prototypes: Artifact, palette: Palette, *, most: int | None = None, side: int = 224
) -> list[Picture]:
    """The references with their masks, those whose images can be read; of more than `most` the first shots."""
    dataset = reference_dataset(store, prototypes)
    manifest = store.manifest(dataset.name) or {}
    folder = Folder(manifest["settings"]["images"])
    references = store.load(references_of(store, prototypes), References)
    references = references[np.array([category in palette for category in references.category_id.tolist()], dtype=bool)]
    shown = references[np.sort(np.argsort(references.shot, kind="stable")[:most])]
    panels = (_reference_panel(folder, shown, row, palette, side) for row in range(len(shown)))
    return [panel for panel in panels if panel is not None]


def _reference_panel(folder: Folder, references: References, row: int, palette: Palette, side: int) -> Picture | None:
    """One reference, or None where its image cannot be read any more."""
    category = references.category_id[row : row + 1]
    try:
        image = decode_image(folder.read(str(references.file_name[row])), max_pixels=MAX_PIXELS)
    except (ImageError, RefsegError):
        return None
    return reference_panel(
        image,
        references.box_xyxy[row],
        references.mask_rle[row],
        category_name=palette.names(category)[0],
        color_index=palette.colors(category)[0],
        shot=int(references.shot[row]),
        mask_source=str(references.mask_source[row]),
        mask_score=references.mask_score[row],
        side=side,
    )
