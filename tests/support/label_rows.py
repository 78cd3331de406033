"""Labels as rows, to compare those of one store with those of another."""

from collections import Counter
from typing import Any, NamedTuple

from refseg_core.tables import Detections, LabeledImages
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.counts import count
from tests.support.samples import table_rows


class LabelRows(NamedTuple):
    """The rows of both tables, shard by shard, without what differs from place to place and from time to time."""

    detections: list[dict[str, Any]]
    labeled_images: list[dict[str, Any]]


def read_label_rows(store_uri: str) -> LabelRows:
    """All labels of a store that holds one kind of them."""
    run, others = newest_labels(Store(store_uri))
    assert others == 0
    parts = list(run.read())
    return LabelRows(
        table_rows(Detections.concatenate([detections for detections, _ in parts])),
        table_rows(LabeledImages.concatenate([labeled for _, labeled in parts]), without=["seconds", "version"]),
    )


def assert_exact(store_uri: str, expected: LabelRows) -> None:
    """The labels are the expected ones, every image once, and the store is whole."""
    found = read_label_rows(store_uri)
    images = Counter(row["image_id"] for row in found.labeled_images)
    wanted = {row["image_id"] for row in expected.labeled_images}
    count("S3: stores compared with the local run's labels")
    count("S3: images labeled", len(images))
    count("S3: images lost", len(wanted - images.keys()))
    count("S3: images doubled", images.total() - len(images))
    assert found == expected
    assert verify_store(Store(store_uri)).problems == []
