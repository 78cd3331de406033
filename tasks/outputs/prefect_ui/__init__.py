"""What people see of a run in the Prefect UI: progress, tables, pictures and a summary, under keys that stay.

`keys.py` has the keys; `progress.py` tells how far a run is; `references.py`, `labels.py` and `metrics.py` load what
they show and hand it to `publishing.py`; the rest is text: `rows.py`, `summary.py`, `markdown.py`, `throughput.py`.
"""

from tasks.outputs.prefect_ui.benchmark import publish_benchmark
from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.labels import publish_labels
from tasks.outputs.prefect_ui.metrics import publish_metrics
from tasks.outputs.prefect_ui.progress import ProgressArtifact, progress_key
from tasks.outputs.prefect_ui.publishing import is_shown
from tasks.outputs.prefect_ui.references import publish_bank

__all__ = [
    "ProgressArtifact",
    "artifact_name",
    "is_shown",
    "progress_key",
    "publish_bank",
    "publish_benchmark",
    "publish_labels",
    "publish_metrics",
]
