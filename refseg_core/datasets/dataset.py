"""A dataset as tables, whatever its format was: the tables together, a plain listing as one, a selection of images.

Not here: reading annotation files (the other modules of this folder).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.image_files.names import BAD_FILE_NAME, check_file_name
from refseg_core.datasets.oddities import Oddity
from refseg_core.errors import Problems
from refseg_core.images import WHITE
from refseg_core.tables import Annotations, Categories, FederatedLabels, Images

VERSION = 1  # of tables made from annotations and listings

_REPEATED_FILE = "a file is listed more than once: list it once"
_UNKNOWN_SELECTED = "an image id is not among the dataset's images: correct image_ids"


@dataclass(frozen=True)
class Dataset:
    """A dataset as tables; images and annotations in the file's order (sampling depends on it).

    `federated_labels` is None where the images say nothing of categories, as everywhere but in LVIS. `oddities`: what
    was odd or guessed when it was read. `readings`: how files were understood where version 1 of this reader took them
    otherwise, and `reframed`: images by name whose frame it took otherwise, with the frame. Both belong to the recipe
    of a dataset, so that one that was misread is made again, and all others keep their keys.
    """

    images: Images
    annotations: Annotations
    categories: Categories
    federated_labels: FederatedLabels | None = None
    oddities: tuple[Oddity, ...] = ()
    readings: tuple[str, ...] = ()
    reframed: Mapping[str, str] = field(default_factory=dict)


NOTHING = Dataset(Images.empty(), Annotations.empty(), Categories.empty())


def dataset_of_files(names: Sequence[str], sizes: Sequence[int], versions: Sequence[str]) -> Dataset:
    """Returns the dataset of a plain listing: no annotations, ids are the names, images sorted by name.

    `names` are relative to the listed folder, `sizes` in bytes, `versions` what changes with the content.
    Raises DatasetError when names repeat or leave the folder.
    """
    problems = Problems()
    problems.add_repeated(_REPEATED_FILE, names)
    for name in names:
        if reason := check_file_name(name):
            problems.add(BAD_FILE_NAME, f"{name} {reason}")
    problems.raise_if_any("The listing of the image folder")
    order = sorted(range(len(names)), key=names.__getitem__)
    zeros = np.zeros(len(names), dtype=np.int32)
    images = Images(
        image_id=np.array([names[row] for row in order], dtype=object),
        has_integer_id=zeros.astype(bool),
        file_name=np.array([names[row] for row in order], dtype=object),
        height=zeros,
        width=zeros,
        size=np.array([sizes[row] for row in order], dtype=np.int64),
        version=np.array([versions[row] for row in order], dtype=object),
        frame=np.full(len(names), "", dtype=object),
        white=np.full(len(names), WHITE, dtype=np.int32),
    )
    return Dataset(images, Annotations.empty(), Categories.empty())


def select_images(dataset: Dataset, image_ids: Collection[str]) -> Dataset:
    """Returns the images with these ids, in the dataset's order, with their annotations and all categories.

    Raises DatasetError naming the ids that the dataset does not have.
    """
    wanted = set(image_ids)
    problems = Problems()
    problems.add_all(_UNKNOWN_SELECTED, sorted(wanted - set(dataset.images.image_id)))
    problems.raise_if_any("The selection of images")
    labels = dataset.federated_labels
    return replace(
        dataset,
        images=dataset.images[is_among(dataset.images.image_id, wanted)],
        annotations=dataset.annotations[is_among(dataset.annotations.image_id, wanted)],
        federated_labels=None if labels is None else labels[is_among(labels.image_id, wanted)],
    )


def first_images(dataset: Dataset, number: int) -> Dataset:
    """Returns the first images, with their annotations and all categories."""
    return select_images(dataset, dataset.images.image_id[:number].tolist())


def is_among(ids: npt.NDArray[Any], wanted: set[str]) -> npt.NDArray[np.bool_]:
    """Returns whether each id [N] is one of those."""
    return np.fromiter((one in wanted for one in ids), dtype=bool, count=len(ids))
