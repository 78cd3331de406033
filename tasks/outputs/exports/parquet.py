"""Labels as one Parquet file."""

from collections.abc import Iterator

from refseg_core.tables import Detections
from tasks.outputs.exports.labels import ExportedLabels
from tasks.store.parquet import stream_parquet


def write_table(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the file in pieces."""
    kept = (part[part.score >= labels.min_score] for part in labels.detections())
    return stream_parquet(kept, Detections)
