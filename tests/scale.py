"""What large datasets cost: `python -m tests.scale` prints seconds and peak memory, each job in a process of its own.

    plan     indexes and plans a prefix of a million images, whose listing is simulated; resumes; finds gone labels
    coco     indexes a COCO file of train2017's size: 118,000 images with 860,000 polygons; samples; both again
    labels   commits a million detections in 50,000 images, then exports and evaluates them
    evaluation   compares 500,000 detections in 5,000 images with 36,000 annotations; `--against-pycocotools` also
             lets pycocotools do so (some ten minutes) and says whether all numbers are equal

A benchmark and no test: seconds depend on the machine, and nothing here fails.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.protocols import evaluate
from refseg_core.masks.rle import Rle, encode_masks, mask_areas, rle_from_polygons
from refseg_core.settings import SamplingSettings
from refseg_core.tables import Annotations, Categories, Detections, Images, LabeledImages, Metrics, Prototypes
from tasks.index_dataset import index_dataset
from tasks.plan_shards import find_gone_labels
from tasks.sample_references import sample_references
from tasks.specs import DatasetSource
from tasks.storage.folder import Folder
from tasks.storage.listing import FileInfo
from tasks.store.label_store import StoredLabels
from tasks.store.store import Recipe, Store
from tests.support.oracles.coco import coco_numbers
from tests.support.oracles.evaluation_cases import Document, dataset_of, detections_of
from tests.support.samples import images_table

_NUM_LISTED = 1_000_000
_NUM_COCO_IMAGES, _NUM_COCO_ANNOTATIONS = 118_000, 860_000
_NUM_LABELED, _DETECTIONS_EACH, _OBJECTS_EACH, _NUM_CATEGORIES = 50_000, 20, 5, 80
_IMAGES_PER_SHARD = 500
_NUM_COMPARED, _CANDIDATES_EACH, _INSTANCES_EACH = 5_000, 100, 7.2
_HEIGHT, _WIDTH = 480, 640  # of the images compared
_AGAINST_PYCOCOTOOLS = "--against-pycocotools"
_RECIPE = Recipe("label_shard", "labels", version=1)


def plan(folder: Path) -> None:
    """A million images in a prefix."""
    (folder / "images").mkdir()
    source = DatasetSource(images=str(folder / "images"))
    store = Store(str(folder / "store"))
    run = StoredLabels.open(store, _RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "_walk", _listing)
        with _measured("index a million listed images"):
            dataset = index_dataset.fn(store, source)
    with _measured("plan them in shards of 64"):
        run.request(dataset)
        run.pending(run.plan(store.load(dataset, Images), 64))
    with _measured("plan them again, to resume"):
        run.pending(run.plan(store.load(dataset, Images), 64))
    with _measured("find gone labels among them"):
        find_gone_labels.fn(store.uri, dataset=dataset, labels_key=run.key)


def _listing(_: Folder) -> Iterator[FileInfo]:
    for number in range(_NUM_LISTED):
        etag = f"{number * 2654435761 % 2**64:032x}"
        yield FileInfo(f"camera-{number % 97:02d}/2026/{number:09d}.jpg", 100_000 + number % 5000, etag)


def coco(folder: Path) -> None:
    """A COCO file, written by a process of its own so that its memory does not count."""
    file = folder / "instances.json"
    program = f"from tests import scale; scale.write_coco({str(file)!r})"
    subprocess.run([sys.executable, "-c", program], check=True)
    store, source = Store(str(folder / "store")), DatasetSource(images=str(folder), annotations=str(file))
    with _measured(f"index {_NUM_COCO_ANNOTATIONS:,} annotations, {file.stat().st_size / 1e6:.0f} MB"):
        dataset = index_dataset.fn(store, source)
    with _measured("sample references of them"):
        sample_references.fn(store, dataset, SamplingSettings())
    with _measured("index and sample them again, as the next run does"):
        sample_references.fn(store, index_dataset.fn(store, source), SamplingSettings())


def write_coco(file: str) -> None:
    """Round outlines of two dozen points, about as large as COCO's instances are."""
    generator = np.random.default_rng(0)
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640}
        for number in range(1, _NUM_COCO_IMAGES + 1)
    ]
    annotations = []
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for number in range(1, _NUM_COCO_ANNOTATIONS + 1):
        radius = generator.uniform(5, 90) * generator.uniform(0.9, 1.1, (24, 1))
        polygon = (generator.uniform(100, 380, 2) + circle * radius).round(2).ravel().tolist()
        annotation = {"id": number, "image_id": number % _NUM_COCO_IMAGES + 1, "category_id": number % 80 + 1}
        shape = {"segmentation": [polygon], "bbox": [100, 100, 300, 300], "area": 5000.0, "iscrowd": 0}
        annotations.append(annotation | shape)
    categories = [{"id": number, "name": f"category {number}"} for number in range(1, 81)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    Path(file).write_text(json.dumps(content))


def labels(folder: Path) -> None:
    """A million detections."""
    store = Store(str(folder / "store"))
    images = images_table(*(f"{number:012d}.jpg" for number in range(_NUM_LABELED)))
    dataset = store.make(Recipe("index_dataset", "dataset", version=1), lambda: [images])
    run = StoredLabels.open(store, _recipe_with_categories(store))
    run.request(dataset)
    with _measured("commit a million detections in 100 shards"):
        for shard in run.plan(images, _IMAGES_PER_SHARD):
            run.commit(shard, *_found(run.plans.images_of(shard)))
    for form in ("coco-results", "coco", "parquet", "yolo", "cvat", "lvis"):
        _export(store, form)
    with _measured("evaluate them"):
        detections = Detections.concatenate([part for part, _ in run.read(images)])
        evaluate(Dataset(images, _objects(images), _categories()), detections)


def _export(store: Store, form: str) -> None:
    """Exports all labels by the command, whose memory is what counts."""
    options = ["--images", "none"] if form == "yolo" else []
    command = ["refseg", "export", store.uri, "--format", form, "--out", f"{store.uri}-{form}", *options]
    began = time.perf_counter()
    process = subprocess.Popen([Path(sys.executable).with_name(command[0]), *command[1:]])
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    _tell(f"export them as {form}", time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss)


def _recipe_with_categories(store: Store) -> Recipe:
    """Labels whose prototypes lead back to categories with names."""
    made = store.make(Recipe("index_dataset", "dataset", version=0), lambda: [_categories()])
    for step, folder, source in (
        ("sample_references", "references", "dataset"),
        ("fill_memory_bank", "memory_bank", "references"),
    ):
        made = store.make(Recipe(step, folder, version=0, inputs={source: made.name}), list)
    numbers = _categories().category_id
    table = Prototypes(category_id=numbers, num_references=numbers, prototype=np.ones((len(numbers), 2)))
    inputs = {"memory_bank": made.name}
    made = store.make(Recipe("postprocess_memory_bank", "prototypes", version=0, inputs=inputs), lambda: [table])
    return replace(_RECIPE, settings={"images": "/images"}, inputs={"prototypes": made.name})


def _found(images: Images) -> tuple[Detections, LabeledImages]:
    num = len(images) * _DETECTIONS_EACH
    generator = np.random.default_rng(len(images))
    corners = generator.integers(0, 100, (num, 2))
    boxes = np.concatenate([corners, corners + generator.integers(20, 100, (num, 2))], axis=1).astype(np.float64)
    detections = Detections(
        image_id=np.repeat(images.image_id, _DETECTIONS_EACH),
        category_id=generator.integers(1, _NUM_CATEGORIES + 1, num),
        score=generator.random(num, dtype=np.float32),
        predicted_iou=np.full(num, 0.9, dtype=np.float32),
        box_xyxy=boxes,
        mask_rle=_masks(boxes),
    )
    each = np.ones(len(images), dtype=np.int32)
    labeled = LabeledImages(
        image_id=images.image_id,
        version=images.version,
        status=np.full(len(images), "ok", dtype=object),
        error=np.full(len(images), None, dtype=object),
        height=each * 200,
        width=each * 200,
        num_proposals=each * 700,
        num_detections=each * _DETECTIONS_EACH,
        num_prompts=np.full(len(images), 1024, dtype=object),
        max_similarity=np.full(len(images), 0.75, dtype=object),
        seconds=each.astype(np.float32),
    )
    return detections, labeled


def _objects(images: Images) -> Annotations:
    num = len(images) * _OBJECTS_EACH
    boxes = np.random.default_rng(1).integers(10, 90, (num, 4)).astype(np.float64)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return Annotations(
        annotation_id=np.array([str(number) for number in range(num)], dtype=object),
        image_id=np.repeat(images.image_id, _OBJECTS_EACH),
        category_id=np.random.default_rng(2).integers(1, _NUM_CATEGORIES + 1, num),
        box_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        mask_rle=_masks(corners),
        is_crowd=np.zeros(num, dtype=bool),
        is_impossible=np.zeros(num, dtype=bool),
    )


def _masks(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Filled boxes as masks [N]; a few hundred different ones."""
    kinds, kind_of = np.unique(boxes_xyxy.astype(np.int64) // 25 * 25, axis=0, return_inverse=True)
    drawn = np.zeros((len(kinds), 200, 200), dtype=bool)
    for mask, (left, top, right, bottom) in zip(drawn, kinds, strict=True):
        mask[top : bottom + 1, left : right + 1] = True
    rles = np.empty(len(kinds), dtype=object)
    rles[:] = encode_masks(drawn)
    return rles[kind_of]


def _categories() -> Categories:
    numbers = np.arange(1, _NUM_CATEGORIES + 1)
    return Categories(
        category_id=numbers,
        class_index=numbers - 1,
        name=np.array([f"category {number}" for number in numbers], dtype=object),
        frequency=np.full(_NUM_CATEGORIES, None, dtype=object),
    )


def evaluation_speed(_: Path) -> None:
    """As many detections as there may be in images like COCO's val2017."""
    document, detections = _compared(_NUM_COMPARED)
    _evaluate_measured(document, detections)


def evaluation_against_pycocotools(_: Path) -> None:
    """The same, twice."""
    document, detections = _compared(_NUM_COMPARED)
    metrics = _evaluate_measured(document, detections)
    with _measured("let pycocotools compare them"):
        expected = coco_numbers(document, detections, "corrected")
    keys = zip(metrics.iou_type, metrics.metric, metrics.category_id, strict=True)
    is_equal = dict(zip(keys, metrics.value.tolist(), strict=True)) == expected
    sys.stdout.write(f"{len(expected)} numbers are {'equal to the last digit' if is_equal else 'NOT equal'}\n")


def _evaluate_measured(document: Document, detections: Detections) -> Metrics:
    dataset = dataset_of(document)
    with _measured(f"compare {len(detections):,} detections, {len(dataset.annotations):,} annotations"):
        return evaluate(dataset, detections)


def _compared(num_images: int) -> tuple[Document, Detections]:
    """Instances of few categories an image; of the detections half lie about them, half are of any category."""
    generator = np.random.default_rng(0)
    document: Document = {"images": [], "annotations": [], "categories": []}
    document["categories"] = [{"id": number, "name": f"category {number}"} for number in range(1, _NUM_CATEGORIES + 1)]
    rows = []
    for image_id in range(1, num_images + 1):
        document["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "height": _HEIGHT, "width": _WIDTH})
        present = generator.integers(1, _NUM_CATEGORIES + 1, 3)
        outlines = [_outline(generator) for _ in range(generator.poisson(_INSTANCES_EACH))]
        categories = generator.choice(present, len(outlines)).tolist()
        for outline, category_id in zip(outlines, categories, strict=True):
            document["annotations"].append(_annotation(outline, image_id, category_id, generator))
            document["annotations"][-1]["id"] = len(document["annotations"])
        for number in range(_CANDIDATES_EACH):
            near = int(generator.integers(len(outlines))) if outlines and number % 2 else None
            category_id = int(generator.integers(1, _NUM_CATEGORIES + 1)) if near is None else categories[near]
            outline = _outline(generator)
            if near is not None:
                outline = outlines[near] + (outline - outline.mean(axis=0)) * generator.uniform(-0.3, 0.3)
            score = round(generator.uniform(0.01, 1), 3)
            rows.append((str(image_id), category_id, score, _box(outline), _mask_of(outline)))
    return document, detections_of(rows)


def _annotation(outline: np.ndarray, image_id: int, category_id: int, generator: np.random.Generator) -> dict[str, Any]:
    left, top, right, bottom = _box(outline)
    mask = _mask_of(outline)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(mask_areas([mask])[0]),
        "iscrowd": int(generator.random() < 0.01),
        "segmentation": mask.to_coco(),
    }


def _outline(generator: np.random.Generator) -> np.ndarray:
    """A wobbly circle of two dozen points [24, 2] in the image, small, medium or large."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = np.exp(generator.uniform(np.log(5), np.log(150))) * generator.uniform(0.8, 1.2, 24)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return generator.uniform((20, 20), (_WIDTH - 20, _HEIGHT - 20)) + circle * radius[:, None]


def _box(outline: np.ndarray) -> tuple[float, ...]:
    inside = np.clip(outline, 0, (_WIDTH, _HEIGHT))
    return (*inside.min(axis=0).tolist(), *inside.max(axis=0).tolist())


def _mask_of(outline: np.ndarray) -> Rle:
    return rle_from_polygons([outline.ravel().tolist()], _HEIGHT, _WIDTH)


@contextmanager
def _measured(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    _tell(what, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _tell(what: str, wall: float, cpu: float, peak_kilobytes: int) -> None:
    sys.stdout.write(f"{what:<50} {wall:7.1f} s wall {cpu:7.1f} s cpu {peak_kilobytes / 1e6:6.2f} GB peak\n")
    sys.stdout.flush()


_JOBS: dict[str, Callable[[Path], None]] = {
    "plan": plan,
    "coco": coco,
    "labels": labels,
    "evaluation": evaluation_speed,
}


def main(arguments: list[str]) -> None:
    """Runs the named jobs, or all: one here, several each in a process of its own."""
    options = [_AGAINST_PYCOCOTOOLS] if _AGAINST_PYCOCOTOOLS in arguments else []
    jobs = _JOBS | ({"evaluation": evaluation_against_pycocotools} if options else {})
    names = [name for name in arguments if name not in options]
    if len(names) == 1:
        with tempfile.TemporaryDirectory() as folder:
            jobs[names[0]](Path(folder))
        return
    for name in names or jobs:
        subprocess.run([sys.executable, "-m", "tests.scale", name, *options], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
