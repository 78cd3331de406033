"""Draws some annotated images of a dataset on one sheet, so that misread annotations are seen at a glance."""

import numpy as np

from refseg_core.analysis.dataset_summary import pick_images
from refseg_core.datasets.dataset import Dataset
from refseg_core.tables import Annotations, Categories
from refseg_core.visualization import Picture, contact_sheet, draw_instances, to_jpeg
from tasks.datasets.image_reader import read_images
from tasks.outputs.pictures import MAX_PIXELS, fitting_masks
from tasks.storage.folder import Folder
from tasks.store.store import Artifact, Store

FOLDER = "overviews"
_NUM_IMAGES = 12
_TILE_SIDE = 400  # px


def draw_overview(store: Store, artifact: Artifact, dataset: Dataset, images_uri: str) -> str:
    """Puts the picture of an indexed dataset into the store; returns its name there.

    Images that cannot be read are left out, and the sheet says how many.
    """
    picked = pick_images(dataset, _NUM_IMAGES)
    tiles, titles = [], []
    for image in read_images(Folder(images_uri), picked, max_pixels=MAX_PIXELS):
        if image.pixels is not None:
            of_image = dataset.annotations[dataset.annotations.image_id == picked.image_id[image.row]]
            tiles.append(_draw(image.pixels, of_image, dataset.categories))
            titles.append(str(picked.file_name[image.row]))
    unreadable = len(picked) - len(tiles)
    heading = f"{len(tiles)} annotated images" + (f"; {unreadable} could not be read" if unreadable else "")
    name = f"{FOLDER}/{artifact.key}.jpg"
    sheet = contact_sheet(tiles, titles=titles, heading=heading, tile_side=_TILE_SIDE)
    store.folder.replace(name, to_jpeg(sheet))
    return name


def _draw(pixels: Picture, annotations: Annotations, categories: Categories) -> Picture:
    """Returns the image, uint8 RGB [H, W, 3], with all that is annotated in it; of masks those that have its size."""
    rows = np.searchsorted(categories.category_id, annotations.category_id)  # categories are by ascending id
    names, colors = categories.name[rows].tolist(), categories.class_index[rows]
    return draw_instances(pixels, fitting_masks(pixels, annotations), annotations.box_xyxy, names, colors)
