"""What is exported: the current labels of a run, streamed shard by shard to a file in one of the formats."""

from collections.abc import Iterator
from dataclasses import dataclass

from refseg_core.settings import Conventions
from refseg_core.tables import Categories, Detections, Images, LabeledImages
from tasks.outputs.exports.formats import EXPORT_FORMATS
from tasks.storage.objects import write_uri
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import labeled_categories
from tasks.store.reviews import read_reviewed


@dataclass(frozen=True)
class ExportedLabels:
    """The labels of the images that were labeled last, by what people have decided on them.

    Labels of images that are gone, or were labeled again since they changed, are left out. `polygons`: outlines
    instead of run lengths, for formats that have both. `min_score`: the lowest score that is written. `conventions`
    "original" writes boxes as the published code does.
    """

    run: StoredLabels
    images: Images
    polygons: bool
    min_score: float
    conventions: Conventions

    def detections(self) -> Iterator[Detections]:
        """Reads the detections of all scores, one table for each shard."""
        return (part for part, _ in read_reviewed(self.run, self.images))

    def labeled_images(self) -> LabeledImages:
        """Reads what became of each image."""
        return LabeledImages.concatenate(list(self.run.read_labeled_images(self.images)))

    def categories(self) -> Categories:
        """Reads the categories that were labeled."""
        return labeled_categories(self.run.store, self.run.prototypes())


def export_labels(
    run: StoredLabels, out: str, *, form: str, polygons: bool, min_score: float, conventions: Conventions
) -> None:
    """Writes the labels of the images that were labeled last to a file or URI, whole or not at all, in any format."""
    labels = ExportedLabels(run, run.images(), polygons, min_score, conventions)
    write_uri(out, EXPORT_FORMATS[form].load()(labels))
