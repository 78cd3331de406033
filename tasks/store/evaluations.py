"""What an evaluation left in the store, read back: its tables, and the protocol that gave them."""

from refseg_core.evaluation.diagnostics import Review
from refseg_core.settings import ProtocolName
from refseg_core.tables import Confusion, Metrics, Misses
from tasks.store.store import Artifact, Store, table_name


def load_review(store: Store, metrics: Artifact) -> Review:
    """Returns what the evaluation made. Metrics of older versions are all there is of them."""
    return Review(
        store.load(metrics, Metrics),
        store.load(metrics, Confusion) if table_name(Confusion) in metrics.num_rows else None,
        store.load(metrics, Misses) if table_name(Misses) in metrics.num_rows else None,
    )


def protocol_of(store: Store, metrics: Artifact) -> ProtocolName:
    """Returns the protocol that gave the metrics."""
    manifest = store.manifest(metrics.name) or {}
    protocol: ProtocolName = manifest.get("settings", {}).get("protocol", "coco")
    return protocol
