"""What people see of a run in the Prefect UI: progress, tables, pictures and a summary, under keys that stay.

`names.py` has the keys; `progress.py` tells how far a run is; `bank.py`, `labels.py` and `metrics.py` load what they
show and hand it to `sending.py`; the rest is text: `tables.py`, `summary.py`, `markdown.py`, `pace.py`.
"""

from tasks.publish.bank import publish_bank
from tasks.publish.benchmark import publish_benchmark
from tasks.publish.labels import publish_labels
from tasks.publish.metrics import publish_metrics
from tasks.publish.names import artifact_name
from tasks.publish.progress import ProgressArtifact, progress_key
from tasks.publish.sending import is_shown

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
