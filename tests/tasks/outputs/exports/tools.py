"""Reads exports with other tools' own libraries: `python tools.py TOOL PATH...` prints what each found, as json.

Run by tests in a process of its own: these libraries take seconds to import, set what holds for the whole process, and
some do not fit beside refseg, so that their interpreter is another. Nothing of refseg is imported here.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def _counts(mask: Any) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, background first."""
    pixels = np.asarray(mask).astype(bool).T.ravel()
    ends = np.flatnonzero(np.diff(pixels)) + 1
    lengths = np.diff(np.concatenate(([0], ends, [len(pixels)]))).tolist()
    return [0, *lengths] if pixels[0] else lengths


def _found(image: str, category: str, mask: Any, score: float | None = None, **more: Any) -> Row:
    return {"image": image, "category": category, "score": score, "counts": _counts(mask), **more}


def pycocotools(file: str) -> Row:
    """A COCO file."""
    from pycocotools.coco import COCO

    coco = COCO(file)
    rows = [
        _found(
            coco.imgs[one["image_id"]]["file_name"],
            coco.cats[one["category_id"]]["name"],
            coco.annToMask(one),
            one["score"],
            box=one["bbox"],
            area=one["area"],
        )
        for one in coco.anns.values()
    ]
    return {"images": [image["file_name"] for image in coco.imgs.values()], "found": rows}


def results(file: str, dataset: str) -> Row:
    """COCO results, together with a dataset file."""
    from pycocotools.coco import COCO

    coco = COCO(dataset).loadRes(file)
    rows = [
        _found(
            coco.imgs[one["image_id"]]["file_name"],
            coco.cats[one["category_id"]]["name"],
            coco.annToMask(one),
            one["score"],
        )
        for one in coco.anns.values()
    ]
    return {"images": [image["file_name"] for image in coco.imgs.values()], "found": rows}


def lvis(file: str) -> Row:
    """An LVIS file."""
    from lvis import LVIS

    data = LVIS(file)
    rows = [
        _found(
            data.imgs[one["image_id"]]["file_name"],
            data.cats[one["category_id"]]["name"],
            data.ann_to_mask(one),
            one["score"],
        )
        for one in data.anns.values()
    ]
    categories = [{key: one[key] for key in ("name", "frequency", "image_count")} for one in data.cats.values()]
    images = {one["file_name"]: one["neg_category_ids"] for one in data.imgs.values()}
    return {"images": list(images), "absent": images, "categories": categories, "found": rows}


def ultralytics(folder: str, split: str, task: str) -> Row:
    """What Ultralytics would train from, as its own dataset reads it."""
    from PIL import Image, ImageDraw
    from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label

    data = check_det_dataset(str(Path(folder) / "data.yaml"), autodownload=False)
    paths = sorted(str(path) for path in Path(data[split]).rglob("*") if path.suffix in (".png", ".jpg"))
    images, rows, problems = [], [], []
    for image, label in zip(paths, img2label_paths(paths), strict=True):
        read = verify_image_label((image, label, "", False, len(data["names"]), 0, 0, False))
        _, lines, shape, segments, _, missing, _, empty, corrupt, message = read
        name = Path(image).resolve().name
        images.append({"name": name, "empty": bool(empty), "missing": bool(missing)})
        problems += [message] if corrupt or message else []
        for row, line in enumerate(lines):
            box = line[1:] * [shape[1], shape[0], shape[1], shape[0]]
            mask = np.zeros(shape, dtype=bool)
            if task == "segment":
                drawn = Image.new("1", (shape[1] * 8, shape[0] * 8))
                points = [tuple(point) for point in (segments[row] * [shape[1] * 8, shape[0] * 8]).tolist()]
                ImageDraw.Draw(drawn).polygon(points, fill=1)
                mask = np.asarray(drawn).reshape(shape[0], 8, shape[1], 8).mean(axis=(1, 3)) > 0.5
            rows.append(_found(name, data["names"][int(line[0])], mask, box=box.tolist()))
    return {"images": images, "problems": problems, "names": data["names"], "found": rows}


def labelme(folder: str) -> Row:
    """A folder of labelme files, each with its image."""
    from labelme._label_file import read_label_file
    from labelme.utils import shape_to_mask

    images, rows = [], []
    for path in sorted(Path(folder).rglob("*.json")):
        data = read_label_file(str(path))
        images.append(data.image_path)
        size = json.loads(path.read_text("utf-8"))
        shape = (size["imageHeight"], size["imageWidth"])
        for one in data.shapes:
            if one["shape_type"] == "mask":
                mask = np.zeros(shape, dtype=bool)
                (left, top), (right, bottom) = one["points"]
                mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = one["mask"]
            else:
                mask = shape_to_mask(shape, one["points"], one["shape_type"])
            more = {"kind": one["shape_type"], "group": one["group_id"]}
            rows.append(_found(data.image_path, one["label"], mask, one["other_data"]["score"], **more))
    return {"images": images, "found": rows}


def label_studio(folder: str) -> Row:
    """Tasks of Label Studio: brushes as its converter decodes them."""
    from label_studio_sdk.converter.brush import decode_rle

    images, rows = [], []
    for task in json.loads((Path(folder) / "tasks.json").read_text("utf-8")):
        name = task["data"]["file_name"]
        images.append(name)
        for one in task["predictions"][0]["result"]:
            height, width = one["original_height"], one["original_width"]
            pixels = decode_rle(one["value"]["rle"]).reshape(height, width, 4)
            rows.append(_found(name, one["value"]["brushlabels"][0], pixels[..., 3] > 0, one["score"]))
    return {"images": images, "found": rows}


def label_studio_sdk(folder: str) -> Row:
    """Whether Label Studio takes the predictions for its configuration."""
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((Path(folder) / "label_config.xml").read_text("utf-8"))
    interface.validate()
    tasks = json.loads((Path(folder) / "tasks.json").read_text("utf-8"))
    valid = [interface.validate_prediction(one) for task in tasks for one in task["predictions"]]
    return {"images": [task["data"]["file_name"] for task in tasks], "valid": valid}


def datasets(folder: str) -> Row:
    """An imagefolder of Hugging Face."""
    from datasets import load_dataset
    from pycocotools import mask as coco_mask

    read = load_dataset("imagefolder", data_dir=folder, cache_dir=str(Path(folder).with_suffix(".cache")))
    images, rows, splits = [], [], {}
    for split, table in read.items():
        splits[split] = len(table)
        for row in table:
            images.append({"id": row["image_id"], "size": [row["width"], row["height"]], "pixels": row["image"].size})
            objects = row["objects"]
            for number, mask in enumerate(objects["mask"]):
                decoded = coco_mask.decode({"size": list(mask["size"]), "counts": mask["counts"]})
                more = {"box": objects["bbox"][number], "area": objects["area"][number]}
                rows.append(
                    _found(str(row["image_id"]), objects["category"][number], decoded, objects["score"][number], **more)
                )
    return {"images": images, "splits": splits, "found": rows}


def supervision(folder: str, file: str) -> Row:
    """A COCO file with its images, as supervision's own dataset."""
    from supervision import DetectionDataset

    read = DetectionDataset.from_coco(folder, file, force_masks=True)
    images, rows = [], []
    for path, _, found in read:
        name = str(Path(path).relative_to(folder))
        images.append(name)
        for number in range(len(found)):
            category = read.classes[int(found.class_id[number])]
            rows.append(_found(name, category, found.mask[number]))
    scores = [one["score"] for one in json.loads(Path(file).read_text("utf-8"))["annotations"]]
    return {"images": images, "scores": scores, "found": rows}


def fiftyone(folder: str, file: str) -> Row:
    """A COCO file with its images, as FiftyOne's predictions, without its database."""
    import fiftyone.utils.coco as fouc

    info, classes, _, images, annotations = fouc.load_coco_detection_annotations(file, extra_attrs=True)
    rows = []
    for image_id, image in images.items():
        size = (image["width"], image["height"])
        for one in annotations.get(image_id, []):
            found = one.to_detection(size, classes, load_segmentation=True)
            mask = np.zeros((image["height"], image["width"]), dtype=bool)
            left, top = round(found.bounding_box[0] * size[0]), round(found.bounding_box[1] * size[1])
            mask[top : top + found.mask.shape[0], left : left + found.mask.shape[1]] = found.mask
            rows.append(_found(image["file_name"], found.label, mask, found.confidence))
    return {"images": [image["file_name"] for image in images.values()], "info": info, "found": rows}


def datumaro(path: str, form: str) -> Row:
    """Any format that Datumaro reads, by its name there."""
    from datumaro.components.dataset import Dataset

    read = Dataset.import_from(path, form)
    names = [label.name for label in read.categories()[next(iter(read.categories()))]]
    items = [
        {"id": item.id, "labels": sorted(names[one.label] for one in item.annotations), "kinds": _kinds(item)}
        for item in read
    ]
    return {"images": [item["id"] for item in items], "items": items}


def _kinds(item: Any) -> list[str]:
    return sorted(one.type.name for one in item.annotations)


_TOOLS: dict[str, Callable[..., Row]] = {
    tool.__name__: tool
    for tool in (
        *(pycocotools, results, lvis, ultralytics, labelme, label_studio, label_studio_sdk, datasets, supervision),
        *(fiftyone, datumaro),
    )
}


def _lines() -> Iterator[str]:
    tool, *arguments = sys.argv[1:]
    yield "\n"  # what libraries print stands before it
    yield json.dumps(_TOOLS[tool](*arguments))


if __name__ == "__main__":
    sys.stdout.writelines(_lines())
