"""Ground truth and detections to evaluate: by hand, or drawn by a seed."""

import json
from typing import Any

import numpy as np

from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.coco import compare_coco
from refseg_core.evaluation.summary import summarize
from refseg_core.masks.rle import Rle, encode_masks
from refseg_core.tables import Detections, Metrics

Document = dict[str, Any]


def a_mask(corners: tuple[int, int, int, int]) -> Rle:
    left, top, right, bottom = corners
    mask = np.zeros((1, 100, 200), dtype=bool)
    mask[0, top:bottom, left:right] = True
    return encode_masks(mask)[0]


def detections_of(rows: list[tuple[str, int, float, tuple[float, float, float, float], Rle]]) -> Detections:
    if not rows:
        return Detections.empty()
    image_id, category_id, score, box, mask = zip(*rows, strict=True)
    return Detections(
        image_id=np.array(image_id, dtype=object),
        category_id=np.array(category_id),
        score=np.array(score, dtype=np.float32),
        predicted_iou=np.ones(len(rows), dtype=np.float32),
        box_xyxy=np.array(box, dtype=np.float64),
        mask_rle=np.fromiter(mask, dtype=object, count=len(rows)),
    )


def found(image_id: int | str, category_id: int, score: float, corners: tuple[int, int, int, int]) -> Any:
    """A detection that fills its box, in a 100 x 200 image."""
    return str(image_id), category_id, score, corners, a_mask(corners)


def dataset_of(document: Document) -> Dataset:
    return parse_coco(json.dumps(document).encode(), source="x")


def blob(generator: np.random.Generator, height: int, width: int) -> Any:
    rows, columns = np.mgrid[:height, :width]
    y, x = generator.uniform(0, height), generator.uniform(0, width)
    ry, rx = generator.uniform(2, height / 2), generator.uniform(2, width / 2)
    mask = ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 <= 1
    mask[int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1))] = True
    return mask


def extent(mask: Any) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)]


def a_synthetic_case(seed: int, num_images: int = 12) -> tuple[Document, Detections]:
    """Blobs of three sizes, some crowds, found again with errors and tied scores; some images lack one or the other."""
    generator = np.random.default_rng(seed)
    ids = generator.permutation(1000)[:num_images].tolist()
    document: Document = {"images": [], "annotations": [], "categories": []}
    document["categories"] = [{"id": category, "name": f"c{category}"} for category in (9, 2, 40, 7)]
    rows = []
    for image_id in ids:
        height, width = generator.integers(40, 260, 2).tolist()
        document["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "height": height, "width": width})
        for _ in range(generator.integers(0, 5)):
            mask, category = blob(generator, height, width), int(generator.choice([9, 2, 40]))
            x1, y1, x2, y2 = extent(mask)
            box = [x1 + generator.uniform(0, 0.9), y1, x2 - x1, y2 - y1 - generator.uniform(0, 0.9)]
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box,
                    "area": float(mask.sum()) * generator.uniform(0.8, 1),
                    "iscrowd": int(generator.random() < 0.15),
                    "segmentation": encode_masks(mask[None])[0].to_coco(),
                }
            )
            for _ in range(generator.integers(0, 3)):
                moved = np.roll(mask, generator.integers(-3, 4, 2), axis=(0, 1))
                rows.append((image_id, category, moved))
        for _ in range(generator.integers(0, 4)):
            rows.append((image_id, int(generator.choice([9, 2, 40, 7])), blob(generator, height, width)))
    generator.shuffle(rows)
    scores = (generator.integers(1, 12, len(rows)) / 12).astype(np.float32).tolist()
    return document, detections_of(
        [
            (str(image_id), category, score, tuple(extent(mask)), encode_masks(mask[None])[0])
            for (image_id, category, mask), score in zip(rows, scores, strict=True)
        ]
    )


def a_federated_case(seed: int, num_images: int = 12) -> tuple[Document, Detections]:
    """The same with LVIS's labels: a category may be absent, annotated in part, both or unknown in any image."""
    document, detections = a_synthetic_case(seed, num_images)
    generator = np.random.default_rng(seed)
    ids = [category["id"] for category in document["categories"]]
    for category, frequency in zip(document["categories"], "rcfc", strict=True):
        category["frequency"] = frequency
    for image in document["images"]:
        image["neg_category_ids"] = [number for number in ids if generator.random() < 0.4]
        image["not_exhaustive_category_ids"] = [number for number in ids if generator.random() < 0.3]
    for annotation in document["annotations"]:
        annotation["iscrowd"] = 0
        if generator.random() < 0.1:
            annotation["area"] = 0
    return document, detections


def coco_metrics(dataset: Dataset, detections: Detections, **options: Any) -> Metrics:
    """Returns COCO's numbers."""
    return summarize(compare_coco(dataset, detections, **options))
