"""Writes labels to a file in one of the export formats, streaming shard by shard."""

from refseg_core.settings import Conventions
from tasks.outputs.exports.formats import EXPORT_FORMATS
from tasks.outputs.exports.labels import ExportedLabels
from tasks.storage.objects import write_uri
from tasks.store.label_store import StoredLabels


def export_labels(
    run: StoredLabels, out: str, *, form: str, polygons: bool, min_score: float, conventions: Conventions
) -> None:
    """Writes the labels of the images that were labeled last to a file or URI, whole or not at all."""
    labels = ExportedLabels(run, run.images(), polygons, min_score, conventions)
    write_uri(out, EXPORT_FORMATS[form].load()(labels))
