"""Corrections that were made on an export come back as decisions, and undo as one."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.review.importing import ImportedCorrections, find_corrections
from flows.review.session import Decision, ReviewSession
from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.masks.rle import Rle, decode_mask, encode_masks, rle_boxes
from refseg_core.settings import LabelingSettings
from refseg_core.tables import Detections
from tasks.datasets.annotation_files import read_annotations
from tasks.outputs.exports.origin import ExportedFilter
from tasks.specs import DatasetSource
from tasks.store.reviews import StoredReview, read_reviewed
from tests.support.commands import done, refseg, refused
from tests.support.projects.project import CATEGORIES
from tests.support.projects.reviewable import OBJECTS, SIZE, Reviewable, rectangle

pytest_plugins = ["tests.support.projects.reviewable_project"]
pytestmark = pytest.mark.slow  # together

_Row = tuple[str, int, Rle]


def _labels(reviewable: Reviewable, least: float = 0.5) -> Counter[_Row]:
    """(image, category, mask) of every label of a score and above."""
    rows: Counter[_Row] = Counter()
    for found, _ in read_reviewed(reviewable.run, reviewable.images()):
        kept = found[found.score >= np.float32(least)]
        rows.update(zip(kept.image_id, kept.category_id.tolist(), kept.mask_rle, strict=True))
    return rows


def _export(reviewable: Reviewable, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A COCO file of the labels of a score of 0.5 and above."""
    images = reviewable.images()
    named = [
        {"id": image_id, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for image_id, name in zip(images.image_id, images.file_name, strict=True)
    ]
    annotations = [
        {"id": number, "image_id": image_id, "category_id": category, "iscrowd": 0, "segmentation": mask.to_coco()}
        | {"bbox": _xywh(mask), "area": 1}
        for number, (image_id, category, mask) in enumerate(_labels(reviewable), start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return folder / "labels.json", {"images": named, "annotations": annotations, "categories": categories}


def _xywh(mask: Rle) -> list[float]:
    x1, y1, x2, y2 = rle_boxes([mask])[0].tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _mask(annotation: dict[str, Any]) -> Rle:
    height, width = annotation["segmentation"]["size"]
    return Rle((height, width), annotation["segmentation"]["counts"])


def _import(reviewable: Reviewable, file: Path, content: dict[str, Any], *options: str) -> str:
    file.write_text(json.dumps(content))
    return done(refseg("review", "import", reviewable.steps.store.uri, file, "--reviewer", "Anna", *options))


def test_what_was_changed_removed_and_added_comes_back_and_nothing_else(reviewable: Reviewable, tmp_path: Path) -> None:
    before = _labels(reviewable)
    file, content = _export(reviewable, tmp_path)
    annotations = content["annotations"]
    removed, renamed, moved = annotations[0], annotations[1], annotations[4]
    gone = {(one["image_id"], one["category_id"], _mask(one)) for one in (removed, renamed, moved)}
    renamed["category_id"] = {3: 8, 8: 3}[renamed["category_id"]]
    x, y, width, height = map(int, moved["bbox"])
    moved["segmentation"] = rectangle(x, y, width, height - 12).to_coco()
    added = {**moved, "id": 999, "category_id": 3, "segmentation": rectangle(40, 70, 30, 20).to_coco()}
    content["annotations"] = [*annotations[1:], added | {"bbox": [40, 70, 30, 20]}]
    output = _import(reviewable, file, content)
    assert "1 with another mask, 1 of another category, 1 removed, 1 added" in output
    after = _labels(reviewable)
    assert set(before - after) == gone
    assert set(after - before) == {(one["image_id"], one["category_id"], _mask(one)) for one in (renamed, moved, added)}
    decisions = StoredReview.of_labels(reviewable.run).read()
    assert (set(decisions.source), set(decisions.reviewer), len(decisions)) == ({"coco"}, {"Anna"}, 4)


@pytest.mark.slow  # with the others here
def test_an_export_that_comes_back_as_it_was_decides_nothing_unless_the_rest_is_accepted(
    reviewable: Reviewable, tmp_path: Path
) -> None:
    file, content = _export(reviewable, tmp_path)
    before = _labels(reviewable)
    assert "0 decisions kept" in _import(reviewable, file, content)
    assert "20 decisions not kept (--dry-run)" in _import(reviewable, file, content, "--accept-rest", "--dry-run")
    assert _labels(reviewable) == before
    assert "20 decisions kept" in _import(reviewable, file, content, "--accept-rest")
    assert _labels(reviewable, 1.0) == before
    assert "20 decisions kept" in _import(reviewable, file, content, "--accept-rest")
    assert _labels(reviewable, 1.0) == before


@pytest.mark.slow  # with the others here
def test_labels_that_are_there_twice_are_one_also_where_an_export_held_both(
    reviewable: Reviewable, tmp_path: Path
) -> None:
    once, twice = _export(reviewable, tmp_path), reviewable.twice()
    session = ReviewSession(twice.index(), StoredReview.open(twice.run))
    file, content = once
    annotations = content["annotations"]
    content["annotations"] = [*annotations, {**annotations[2], "id": 997}, {**annotations[3], "id": 998}]
    assert _compared(session, file, content) == {"accept": 20}
    x, y, width, height = map(int, annotations[1]["bbox"])
    moved = {**annotations[1], "segmentation": rectangle(x, y, width, height - 12).to_coco()}
    content["annotations"] = [moved, *annotations[2:]]
    assert _compared(session, file, content) == {"accept": 18, "mask": 1, "reject": 1}
    session.decide(Decision("0" * 32, "Anna", "reject", session.index.instances.identity[0]))
    assert sum(_labels(twice, 0).values()) == 2 * len(session.index) - 2


def test_labels_that_a_review_made_the_same_are_one_and_removed_together(
    reviewable: Reviewable, tmp_path: Path
) -> None:
    session = ReviewSession(reviewable.index(), StoredReview.open(reviewable.run))
    file, content = _export(reviewable, tmp_path)
    first, mask = content["images"][0]["id"], rectangle(*OBJECTS[8])
    rival = session.index.instances.identity[2]
    session.decide(Decision("0" * 32, "Anna", "mask", rival, image=0, mask=(mask, 1.0)))
    was_rival = (first, _mask_of(session, 2))
    annotations = [one for one in content["annotations"] if (one["image_id"], _mask(one)) != was_rival]
    content["annotations"] = annotations
    assert _found(session, file, content).counts == {"accept": 19}
    content["annotations"] = [one for one in annotations if (one["image_id"], _mask(one)) != (first, mask)]
    removed = _found(session, file, content)
    assert removed.counts == {"accept": 18, "reject": 1}
    assert {one.instance for one in removed.decisions} == {rival, session.index.instances.identity[1]}


def _mask_of(session: ReviewSession, row: int) -> Rle:
    """The mask that an instance was found with."""
    return session.index.detection(row).mask_rle[0]  # type: ignore[no-any-return]


def _compared(session: ReviewSession, file: Path, content: dict[str, Any]) -> Counter[str]:
    """What became of labels, of an export with a threshold of 0.5."""
    return _found(session, file, content).counts


def _found(session: ReviewSession, file: Path, content: dict[str, Any]) -> ImportedCorrections:
    """The corrections of an export with a threshold of 0.5."""
    file.write_text(json.dumps(content))
    source = DatasetSource(images=str(file.parent), annotations=str(file))
    kept = ExportedFilter(LabelFilter(ScoreThresholds(0.5)), is_known=True)
    return find_corrections(session, read_annotations(source, None).dataset, "Anna", kept, accepts_rest=False)


def test_images_that_do_not_come_back_stay_as_they_are(reviewable: Reviewable, tmp_path: Path) -> None:
    file, content = _export(reviewable, tmp_path)
    before, first = _labels(reviewable), content["images"][0]["id"]
    content["images"] = content["images"][:1]
    content["annotations"] = []
    output = _import(reviewable, file, content)
    assert "1 image compared: 0 unchanged, 0 with another mask, 0 of another category, 4 removed, 0 added" in output
    assert {image for image, _, _ in before - _labels(reviewable)} == {str(first)}
    exported = done(refseg("export", reviewable.steps.store.uri, "--out", tmp_path / "o", "--thresholds", "0.5"))
    assert "left out 15 instances, 4 instances that a review removed" in exported


def test_unknown_categories_and_images_are_told(reviewable: Reviewable, tmp_path: Path) -> None:
    file, content = _export(reviewable, tmp_path)
    content["images"].append({"id": 77, "file_name": "elsewhere.png", "height": 96, "width": 128})
    assert "1 image is not among the labels: elsewhere.png" in _import(reviewable, file, content)
    for one in content["categories"]:
        one["name"] = f"{one['name']} x"
    file.write_text(json.dumps(content))
    message = refused(refseg("review", "import", reviewable.steps.store.uri, file))
    assert "'bar x', 'box x': no such category; the labels have box, bar" in message


@pytest.mark.slow  # with the others here
def test_a_corrected_instance_can_be_corrected_again(reviewable: Reviewable, tmp_path: Path) -> None:
    file, content = _export(reviewable, tmp_path)
    content["annotations"][0]["category_id"] = {3: 8, 8: 3}[content["annotations"][0]["category_id"]]
    _import(reviewable, file, content)
    once = _labels(reviewable)
    assert "0 decisions kept" in _import(reviewable, file, content)
    content["annotations"] = content["annotations"][1:]
    _import(reviewable, file, content)
    assert sum((once - _labels(reviewable)).values()) == 1


@pytest.mark.parametrize(
    ("form", "options", "name"),
    [
        ("coco", [], ""),
        ("coco", ["--polygons"], ""),
        ("cvat", [], ""),
        ("labelme", [], ""),
        ("label-studio", ["--masks"], "tasks.json"),
        ("label-studio", ["--polygons"], "tasks.json"),
    ],
)
def test_an_export_of_any_tool_comes_back_as_it_was_and_with_what_was_removed(
    reviewable: Reviewable, tmp_path: Path, form: str, options: list[str], name: str
) -> None:
    out, store = tmp_path / "out", reviewable.steps.store.uri
    done(refseg("export", store, "--format", form, "--out", out, "--thresholds", "0.5", *options))
    file = out / name if name else out
    if form == "label-studio":
        tasks = json.loads(file.read_bytes())
        annotated = [{**task, "annotations": task["predictions"]} for task in tasks]
        file.write_text(json.dumps(annotated))
    given = [] if form in ("coco", "cvat") else ["--format", form]
    output = done(refseg("review", "import", store, file, "--thresholds", "0.5", *given))
    assert "20 unchanged, 0 with another mask, 0 of another category, 0 removed, 0 added" in output, output
    if form == "label-studio":
        annotated[0]["annotations"][0]["result"].pop()
        del annotated[1]["annotations"]
        file.write_text(json.dumps(annotated))
        output = done(refseg("review", "import", store, file, "--thresholds", "0.5", *given))
        assert "4 images compared: 15 unchanged, 0 with another mask, 0 of another category, 1 removed" in output


def _as_annotated(form: str, out: Path) -> Path:
    """What there is to import of an export, after somebody looked at it and changed nothing."""
    if form != "label-studio":
        return out
    tasks = json.loads((out / "tasks.json").read_bytes())
    (out / "tasks.json").write_text(json.dumps([{**task, "annotations": task["predictions"]} for task in tasks]))
    return out / "tasks.json"


def test_an_untouched_export_of_boxes_leaves_the_masks(reviewable: Reviewable, tmp_path: Path) -> None:
    store = reviewable.steps.store.uri
    for form, suffix in (("yolo", ""), ("voc", ""), ("labelme", ""), ("cvat", ".xml"), ("label-studio", "")):
        out = tmp_path / f"{form}{suffix}"
        done(refseg("export", store, "--format", form, "--out", out, "--thresholds", "0.5", "--boxes"))
        output = done(refseg("review", "import", store, _as_annotated(form, out), "--format", form))
        assert f"20 unchanged, {_UNTOUCHED}" in output, output
        assert "20 annotations are boxes" in output
        assert "0 decisions kept" in output


def _boxes_moved_and_drawn(reviewable: Reviewable, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A file of boxes of which one is removed, one of another category, one moved and one drawn, in the first image."""
    file, content = _export(reviewable, folder)
    for one in content["annotations"]:
        del one["segmentation"]
    removed, renamed, moved = content["annotations"][:3]
    content["annotations"].remove(removed)
    renamed["category_id"] = {3: 8, 8: 3}[renamed["category_id"]]
    x, y, width, height = moved["bbox"]
    moved["bbox"] = [x, y, width, height - 10]
    content["annotations"].append({**moved, "id": 999, "bbox": [40, 60, 30, 30]})
    file.write_text(json.dumps(content))
    return file, content


def test_moved_and_drawn_boxes_get_masks_of_the_segmenter(reviewable: Reviewable, tmp_path: Path) -> None:
    before = _labels(reviewable)
    file, _ = _boxes_moved_and_drawn(reviewable, tmp_path)
    config = reviewable.steps.project.write_config()
    assert "4 decisions not kept" in done(refseg("review", "import", config, file, "--dry-run"))
    output = done(refseg("review", "import", config, file))
    assert "17 unchanged, 1 with another mask, 1 of another category, 1 removed, 1 added" in output
    assert "Of moved or drawn boxes the segmenter made 2 masks." in output
    new = _labels(reviewable) - before
    assert len(new) == 3
    (renamed,) = (mask for _, _, mask in new if any(mask == known for _, _, known in before))
    drawn = [mask for _, _, mask in new if mask != renamed]
    assert all(decode_mask(mask).sum() > 0 for mask in drawn)
    decisions = StoredReview.of_labels(reviewable.run).read()
    by_segmenter = decisions[np.isin(decisions.verdict, ("mask", "add"))]
    assert (by_segmenter.predicted_iou < 1).all(), "nobody drew these"


def test_boxes_of_an_image_of_another_size_are_refused(reviewable: Reviewable, tmp_path: Path) -> None:
    file, content = _boxes_moved_and_drawn(reviewable, tmp_path)
    content["images"][0]["width"] *= 2
    file.write_text(json.dumps(content))
    message = refused(refseg("review", "import", reviewable.steps.store.uri, file))
    assert "128" in message


def test_without_a_segmenter_nothing_is_decided_on_moved_boxes(reviewable: Reviewable, tmp_path: Path) -> None:
    file, _ = _boxes_moved_and_drawn(reviewable, tmp_path)
    output = done(refseg("review", "import", reviewable.steps.store.uri, file))
    assert "2 moved or drawn boxes have no mask, so that nothing is decided there" in output
    assert "which are not published ones" in output
    assert "2 decisions kept" in output


_UNTOUCHED = "0 with another mask, 0 of another category, 0 removed, 0 added"


@pytest.mark.parametrize(
    "chosen",
    [
        (),
        ("--thresholds", "0.3"),
        ("--thresholds", "0.7"),
        ("--thresholds", "box=0.75,bar=0.2"),
        ("--categories", "bar"),
        ("--min-area", "500"),
        ("--max-area", "8%"),
    ],
)
@pytest.mark.parametrize(("form", "name"), [("cvat", "rt.xml"), ("coco", "rt.json"), ("labelme", "rt")])
def test_an_untouched_export_changes_nothing_whatever_it_held(
    reviewable: Reviewable, tmp_path: Path, form: str, name: str, chosen: tuple[str, ...]
) -> None:
    store, out, before = reviewable.steps.store.uri, tmp_path / name, _labels(reviewable, 0)
    done(refseg("export", store, "--format", form, "--out", out, *chosen))
    output = done(refseg("review", "import", store, out, "--format", "labelme" if form == "labelme" else "auto"))
    assert _UNTOUCHED in output, output
    assert "0 decisions kept" in output
    assert _labels(reviewable, 0) == before


def _with_specks(found: Detections) -> Detections:
    """Single pixels lie all around each mask, more of them than some masks have."""
    masks = np.stack([decode_mask(mask) for mask in found.mask_rle])
    masks[:, ::4, ::4] = True
    rles = encode_masks(masks)
    return found.replace(mask_rle=np.fromiter(rles, dtype=object, count=len(rles)), box_xyxy=rle_boxes(rles))


@pytest.mark.parametrize("form", ["cvat", "coco", "labelme"])
def test_islands_that_an_export_left_out_are_no_correction(reviewable: Reviewable, tmp_path: Path, form: str) -> None:
    speckled = reviewable.changed(_with_specks)
    store, out = speckled.steps.store.uri, tmp_path / "rt"
    chosen = ("--labels", speckled.run.key)
    done(refseg("export", store, "--format", form, "--out", out, *chosen))
    output = done(refseg("review", "import", store, out, "--format", form))
    assert f"35 unchanged, {_UNTOUCHED}" in output, output


def test_a_label_of_a_low_score_that_was_removed_is_noticed(reviewable: Reviewable, tmp_path: Path) -> None:
    store, out = reviewable.steps.store.uri, tmp_path / "rt.json"
    done(refseg("export", store, "--format", "coco", "--out", out))
    content = json.loads(out.read_text())
    gone = next(one for one in content["annotations"] if one["score"] < 0.1)
    content["annotations"].remove(gone)
    assert "34 unchanged" in (output := _import(reviewable, out, content, "--dry-run"))
    assert "1 removed, 0 added" in output


def test_without_provenance_labels_of_every_score_are_known_again(reviewable: Reviewable, tmp_path: Path) -> None:
    store, out = reviewable.steps.store.uri, tmp_path / "rt.json"
    done(refseg("export", store, "--format", "coco", "--out", out))
    other = out.rename(tmp_path / "corrected.json")
    output = done(refseg("review", "import", store, other))
    assert f"35 unchanged, {_UNTOUCHED}" in output
    assert "15 labels of the file are not among those that --thresholds" in output
    output = done(refseg("review", "import", store, other, "--thresholds", "0"))
    assert f"35 unchanged, {_UNTOUCHED}" in output
    assert "labels of the file are not among" not in output


@pytest.mark.slow  # with the others here
def test_the_labels_that_were_exported_are_compared_and_not_the_newest(reviewable: Reviewable, tmp_path: Path) -> None:
    store, out, key = reviewable.steps.store.uri, tmp_path / "rt.json", reviewable.run.key
    done(refseg("export", store, "--format", "coco", "--out", out))
    newer = reviewable.steps.plan(reviewable.steps.prototypes(), labeling=LabelingSettings(path="exact")).key
    output = done(refseg("review", "import", store, out))
    assert f"Labels {key}: those that {out} was exported from." in output
    assert f"35 unchanged, {_UNTOUCHED}" in output
    output = done(refseg("review", "import", store, out, "--labels", newer, "--dry-run"))
    assert f"was exported from the labels {key}, and is compared with {newer}, as --labels says" in output
    assert "35 unchanged" not in output
