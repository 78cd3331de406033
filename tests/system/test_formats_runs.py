"""Whole runs over other formats than COCO: the labels and numbers of a run over COCO json of the same instances."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.config.loading import parse_config
from flows.pipeline import run_pipeline
from refseg_core.tables import Detections, Metrics
from tasks.store.label_store import StoredLabels
from tasks.store.store import Store
from tests.support.annotation_files import WRITERS, Instance, Kind, coco_document, write_all_images
from tests.support.samples import table_rows
from tests.support.servers.prefect_harness import prefect_harness

pytest_plugins = ["tests.support.projects.tiny_project"]
pytestmark = pytest.mark.slow

LARGE_ENOUGH = tuple(
    Instance(image, category, (left, 12, left + 40, 12, left + 40, 50, left, 50))
    for image in ("a.png", "sub/b.png")
    for category, left in (("bar", 14), ("box", 70))
)
CASES: list[tuple[str, Kind, str]] = [
    ("labelme", "polygons", ""),
    ("yolo", "boxes", "labels"),
    ("masks", "masks", ""),
    ("voc", "boxes", ""),
    ("cvat", "polygons", "annotations.xml"),
]


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """A Prefect server of the tests' own."""
    with prefect_harness():
        yield


def _run(folder: Path, weights: Path, store: str, annotations: Path) -> tuple[list[Any], list[Any]]:
    """The detections and metrics of a run whose references are also its targets."""
    data = {"images": str(folder / "images"), "annotations": str(annotations)}
    content = {
        "store": str(folder / store),
        "references": {**data, "sampling": {"num_shots": 1}},
        "targets": data,
        "segmenter": {"model": "sam2_demo", "weights": str(weights / "segmenter.pt")},
        "encoder": {"model": "dinov2_demo", "weights": str(weights / "encoder.pt")},
        "labeling": {"points_per_side": 3, "pred_iou_thresh": 0.0},
        "device": "cpu",
    }
    config = parse_config(content, source="run.yaml")
    result = run_pipeline(config)
    parts = [part for part, _ in StoredLabels(Store(config.store), result.plan.key).read()]
    assert result.metrics is not None
    return table_rows(Detections.concatenate(parts)), table_rows(Store(config.store).load(result.metrics, Metrics))


@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize(("format_name", "kind", "inner"), CASES)
def test_a_run_gives_what_a_run_over_coco_gives(
    format_name: str, kind: Kind, inner: str, tmp_path: Path, tiny_weights: Path
) -> None:
    write_all_images(tmp_path / "images")
    WRITERS[format_name](tmp_path / "annotations", LARGE_ENOUGH, kind)
    document = coco_document(LARGE_ENOUGH, kind, first_id=0 if format_name == "yolo" else 1)
    (tmp_path / "coco.json").write_bytes(document)
    detections, metrics = _run(tmp_path, tiny_weights, "store", tmp_path / "annotations" / inner)
    assert detections
    assert (detections, metrics) == _run(tmp_path, tiny_weights, "coco", tmp_path / "coco.json")
