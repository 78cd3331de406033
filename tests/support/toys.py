"""An annotation format and an evaluation protocol, as small as they can be, to register in tests."""

from collections.abc import Iterator, Sequence

import numpy as np

from refseg_core.datasets.builder import AnnotationFolder, DatasetBuilder, Shape
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.lookup import ImageNames
from refseg_core.evaluation.protocols import Compared
from refseg_core.tables import Metrics
from tasks.outputs.exports.exported import ExportedLabels


def read_toy(files: AnnotationFolder, images: ImageNames, *, source: str, classes: Sequence[str] | None) -> Dataset:
    """Reads a file of a category and its box for each image."""
    builder = DatasetBuilder(source, classes)
    for file in files:
        label, *box = file.data.decode().split()
        image = images.find(file.name, builder.problems) or ""
        left, top, width, height = map(float, box)
        builder.add_image(image, 0, 0)
        builder.add_instance(f"{file.name}#1", image, label, Shape((left, top, width, height)))
    return builder.dataset()


def by_toy(given: Compared) -> Metrics:
    """Counts the images."""
    return Metrics(
        iou_type=np.array(["bbox"], dtype=object),
        metric=np.array(["number of images"], dtype=object),
        category_id=np.array([None], dtype=object),
        category_name=np.array([None], dtype=object),
        num_instances=np.array([0]),
        value=np.array([float(len(given.truth.images))]),
    )


def write_toy(labels: ExportedLabels) -> Iterator[bytes]:
    """Writes how many images were labeled."""
    yield str(len(labels.images)).encode()
