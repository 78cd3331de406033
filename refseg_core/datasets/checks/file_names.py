"""Names of images that are written otherwise than those of their files: './a.png', 'A.PNG', a composed é."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.names import OTHERWISE
from refseg_core.datasets.oddities import OddityCounter


def with_names_of_files(dataset: Dataset, find: Callable[[str], str]) -> Dataset:
    """Returns the dataset with each image named as its file is; `find` returns the file that a name means."""
    names = [find(name) for name in dataset.images.file_name]
    found = OddityCounter()
    for name, own in zip(dataset.images.file_name, names, strict=True):
        if name != own:
            found.add(OTHERWISE, f"{name!r} for {own!r}")
    if not found.found():
        return dataset
    return replace(
        dataset,
        images=dataset.images.replace(file_name=np.array(names, dtype=object)),
        oddities=(*dataset.oddities, *found.found()),
        readings=(*dataset.readings, OTHERWISE),
    )
