"""Names of images that are written otherwise than those of their files: './a.png', 'A.PNG', a composed é."""

from dataclasses import replace

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.datasets.image_files.names import OTHERWISE, RESEMBLED
from refseg_core.datasets.oddities import OddityCounter


def with_names_of_files(dataset: Dataset, folder: ImageFolder) -> Dataset:
    """Returns the dataset with each image named as its file is, and those told that several files may be, or none."""
    names, found = [], OddityCounter()
    for name in dataset.images.file_name:
        own = folder.find(name)
        names.append(own)
        if name != own:
            found.add(OTHERWISE, f"{name!r} for {own!r}")
        elif others := folder.resembling(name):
            found.add(RESEMBLED, f"{name!r}: {' or '.join(map(repr, others))}?")
    if not found.found():
        return dataset
    return replace(
        dataset,
        images=dataset.images.replace(file_name=np.array(names, dtype=object)),
        oddities=(*dataset.oddities, *found.found()),
        readings=(*dataset.readings, *(oddity.what for oddity in found.found())),
    )
