"""The demo: drawn scenes, toy models and a run configuration, written to a folder; and pictures of its labels."""

from pathlib import Path
from typing import Any

import yaml

from flows.terminal import results
from refseg_core.analysis.label_filter import LabelFilter
from tasks.datasets.demo_files import demo_scenes, demo_weights
from tasks.outputs.show_labels import show_labels
from tasks.storage.objects import write_uri
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tasks.store.thresholds import shown_thresholds

_MODELS = ("sam2_demo", "dinov2_demo")


def show_demo(store_uri: str, pictures: Path) -> None:
    """Draws the labels of the demo's store into a folder and prints the next steps."""
    run, _ = newest_labels(Store(store_uri))
    show_labels(store_uri, run.key, str(pictures), kept=LabelFilter(shown_thresholds(run)), limit=None)
    results.print(f"Pictures:   {pictures}/references.jpg and {pictures}/images/")
    results.print("The demo's models are toys that only know drawn scenes. For your own images:")
    results.print("  refseg weights pull sam2_hiera_large dinov2_vitl14")
    results.print("  refseg init run.yaml      # fill in the paths")
    results.print("  refseg run run.yaml")


def write_demo(folder: Path) -> Path:
    """Writes images, annotations, weights and `run.yaml`, whose paths are relative to the folder; returns the file."""
    for name, content in demo_scenes():
        _write(folder / name, content)
    for model in _MODELS:
        _write(folder / "weights" / f"{model}.pt", demo_weights(f"{model}.pt").read_bytes())
    file = folder / "run.yaml"
    _write(file, yaml.safe_dump(_configuration(), sort_keys=False).encode())
    return file


def _configuration() -> dict[str, Any]:
    return {
        "store": "store",
        "references": {
            "images": "references",
            "annotations": "references.json",
            "sampling": {"num_shots": 1, "seed": 33},
        },
        "targets": {"images": "targets", "annotations": "targets.json"},
        "segmenter": {"model": "sam2_demo", "weights": "weights/sam2_demo.pt"},
        "encoder": {"model": "dinov2_demo", "weights": "weights/dinov2_demo.pt"},
        "labeling": {"points_per_side": 16},
    }


def _write(path: Path, data: bytes) -> None:
    write_uri(str(path.absolute()), [data])
