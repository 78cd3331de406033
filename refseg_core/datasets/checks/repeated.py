"""Images that are listed more than once: one file under several ids, as merged files have them."""

from dataclasses import replace

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.oddities import OddityCounter
from refseg_core.errors import Problems
from refseg_core.table_schema import Array

REPEATED = "files that several entries name: labeled once, by the id of the first, with the annotations of all"
_SIZES = "entries that name one file declare different sizes: correct width and height, or the file's name"


def merge_repeated(dataset: Dataset, source: str) -> Dataset:
    """Returns the dataset with one image for each file. Raises DatasetError where sizes contradict each other."""
    images = dataset.images
    names = images.file_name.tolist()
    first_of = {name: row for row, name in reversed(list(enumerate(names)))}
    if len(first_of) == len(names):
        return dataset
    rows = np.array([first_of[name] for name in names], dtype=np.int64)
    is_other = (images.height != images.height[rows]) | (images.width != images.width[rows])
    problems, found = Problems(), OddityCounter()
    problems.add_all(_SIZES, [names[row] for row in np.flatnonzero(is_other).tolist()])
    problems.raise_if_any(source)
    repeated = dict.fromkeys(names[row] for row in np.flatnonzero(rows != np.arange(len(rows))).tolist())
    found.add_all(REPEATED, [f"{names.count(name)} entries name {name}" for name in repeated])
    id_of = dict(zip(images.image_id, images.image_id[rows], strict=True))
    labels = dataset.federated_labels
    return replace(
        dataset,
        images=images[rows == np.arange(len(rows))],
        annotations=dataset.annotations.replace(image_id=_renamed(dataset.annotations.image_id, id_of)),
        federated_labels=None if labels is None else labels.replace(image_id=_renamed(labels.image_id, id_of)),
        oddities=(*dataset.oddities, *found.found()),
        readings=(*dataset.readings, REPEATED),
    )


def _renamed(ids: Array, id_of: dict[str, str]) -> Array:
    return np.array([id_of[one] for one in ids], dtype=object)
