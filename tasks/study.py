"""What a study reads from the store: the numbers that runs reached, and how long an image takes."""

from refseg_core.errors import DatasetError, StoreError
from refseg_core.tables import Metrics
from tasks.storage.uris import redact
from tasks.store.label_store import newest_labels
from tasks.store.store import Artifact, Store

_HEADLINES = ("AP", "mIoU")


def headline_numbers(store_uri: str, metrics: Artifact) -> dict[str, float]:
    """AP by IoU type, or mIoU, over all categories. Raises DatasetError where there is no ground truth for them."""
    table = Store(store_uri).load(metrics, Metrics)
    numbers = {f"{kind} {name}": value for name in _HEADLINES for kind, value in table.overall(name).items()}
    if min(numbers.values()) < 0:
        raise DatasetError(
            f"{redact(store_uri)}/{metrics.name}: the targets' annotations hold no instance of the referenced "
            "categories, so that nothing tells how good labels are."
        )
    return numbers


def seconds_per_image(store_uri: str) -> float | None:
    """What the newest labels of the store took; None where there are none."""
    try:
        return newest_labels(Store(store_uri))[0].seconds_per_image()
    except StoreError:
        return None
