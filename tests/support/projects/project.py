"""A user's folder in small: references, targets, weights of tiny models, and the configuration of a run over them."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from flows.config.loading import parse_config
from flows.config.run_config import RunConfig
from tests.support.models import tiny_encoder, tiny_segmenter
from tests.support.samples import coco, write_images

CATEGORIES = {3: "box", 8: "bar"}
_PLACES = (
    "references.images",
    "references.annotations",
    "targets.images",
    "targets.annotations",
    "segmenter.weights",
    "encoder.weights",
)
_HEIGHT, _WIDTH = 96, 128
_OBJECTS = {3: (12, 14, 40, 40), 8: (68, 20, 36, 60)}  # category -> x, y, width, height
_COLORS = {3: (230, 60, 40), 8: (40, 90, 230)}


@dataclass(frozen=True)
class Project:
    """A folder with everything a run needs; `content` is its configuration file's."""

    folder: Path
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return self.config_with({})

    def config_with(self, changes: dict[str, Any]) -> RunConfig:
        """The configuration with other values; `changes` go by dotted key."""
        return parse_config(changed(self.content, changes), source="run.yaml")

    def write_config(self, **changes: Any) -> Path:
        """Writes the configuration file, with other values where `changes` name a key, dots as two underscores."""
        file = self.folder / "run.yaml"
        dotted = {name.replace("__", "."): value for name, value in changes.items()}
        file.write_text(yaml.safe_dump(changed(self.content, dotted)), encoding="utf-8")
        return file

    def add_target(self, name: str, seed: int) -> None:
        """Puts another image into the folder of targets."""
        write_images(self.folder / "targets", {name: scene(seed)})


def write_project(folder: Path, weights: Path, *, num_targets: int = 5) -> Project:
    """Writes references with masks and boxes, targets with ground truth, and refers to the weights."""
    target_names = [f"t{number}.png" for number in range(num_targets)]
    write_images(folder / "references", {f"r{number}.png": scene(100 + number) for number in range(2)})
    write_images(folder / "targets", {name: scene(number) for number, name in enumerate(target_names)})
    write_coco(folder / "references.json", ["r0.png", "r1.png"], with_masks=True)
    write_coco(folder / "boxes.json", ["r0.png", "r1.png"], with_masks=False)
    write_coco(folder / "targets.json", target_names, with_masks=True)
    content = {
        "store": str(folder / "store"),
        "references": {
            "images": str(folder / "references"),
            "annotations": str(folder / "references.json"),
        },
        "targets": {"images": str(folder / "targets"), "annotations": str(folder / "targets.json")},
        "segmenter": {"model": "sam2_demo", "weights": str(weights / "segmenter.pt")},
        "encoder": {"model": "dinov2_demo", "weights": str(weights / "encoder.pt")},
        "labeling": {"method": "published", "points_per_side": 3, "pred_iou_thresh": 0.0},
        "batches": {"images_per_shard": 2},
        "device": "cpu",
    }
    return Project(folder, content)


def in_bucket(project: Project, filesystem: Any, bucket: str) -> Project:
    """The same project with everything it refers to in a bucket, its store too."""
    for path in sorted(path for path in project.folder.rglob("*") if path.is_file()):
        filesystem.pipe_file(f"{bucket}/{path.relative_to(project.folder)}", path.read_bytes())
    changes = {}
    for key in ("store", *_PLACES):
        section, _, name = key.rpartition(".")
        path = Path((project.content[section] if section else project.content)[name])
        if path.is_file() and not path.is_relative_to(project.folder):  # weights are shared by all projects
            filesystem.pipe_file(f"{bucket}/weights/{path.name}", path.read_bytes())
            changes[key] = f"s3://{bucket}/weights/{path.name}"
        else:
            changes[key] = f"s3://{bucket}/{path.relative_to(project.folder)}"
    return Project(project.folder, changed(project.content, changes))


def save_tiny_weights(folder: Path) -> None:
    """Writes parameters of a tiny segmenter and a tiny encoder."""
    torch.save(tiny_segmenter().state_dict(), folder / "segmenter.pt")
    torch.save(tiny_encoder().state_dict(), folder / "encoder.pt")


def scene(seed: int) -> npt.NDArray[np.uint8]:
    """One object of each category on noise, uint8 RGB [96, 128, 3]."""
    pixels = np.random.default_rng(seed).integers(0, 90, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
    for category, (x, y, width, height) in _OBJECTS.items():
        pixels[y : y + height, x : x + width] = _COLORS[category]
    return pixels


def write_coco(
    path: Path, file_names: list[str], *, with_masks: bool, categories: dict[int, str] | None = None
) -> None:
    """Writes the annotations of scenes."""
    annotations = []
    for image_id in range(1, len(file_names) + 1):
        for category_id, (x, y, width, height) in _OBJECTS.items():
            annotation: dict[str, Any] = {"image_id": image_id, "category_id": category_id}
            annotation |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
            if with_masks:
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotation["segmentation"] = [corners]
            annotations.append(annotation)
    path.write_bytes(coco(file_names, annotations, categories or CATEGORIES, (_HEIGHT, _WIDTH)))


def read_coco(path: Path) -> dict[str, Any]:
    """A COCO file's content."""
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The content with changes by dotted key."""
    new = copy.deepcopy(content)
    for name, value in changes.items():
        *sections, last = name.split(".")
        inner = new
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return new
