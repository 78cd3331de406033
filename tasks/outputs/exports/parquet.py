"""Labels as one Parquet file."""

from collections.abc import Iterator

from refseg_core.tables import ExportedDetections
from tasks.outputs.exports.exported import ExportedLabels
from tasks.store.parquet import stream_parquet


def write_table(labels: ExportedLabels) -> Iterator[bytes]:
    """Yields the file in pieces."""
    return stream_parquet(labels.detections(), ExportedDetections)
