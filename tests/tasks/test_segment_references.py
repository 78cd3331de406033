"""References without a mask get one of the segmenter; those that have one keep it."""

import json

import pytest

from refseg_core.errors import DatasetError, ImageError
from refseg_core.masks.rle import decode_masks
from refseg_core.tables import References
from tasks import segment_references as segment_module
from tests.support.projects.project import read_coco, scene
from tests.support.projects.steps import Steps, count_calls
from tests.support.samples import table_rows, write_images

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_references_that_have_masks_stay_as_they_are(steps: Steps) -> None:
    references = steps.references()
    assert steps.segment(steps.dataset(), references) == references


def test_references_with_boxes_only_get_masks_of_the_segmenter(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    before = steps.store.load(references, References)
    assert before.mask_source.tolist() == ["none", "none"]
    after = steps.store.load(steps.segment(dataset, references), References)
    assert after.mask_source.tolist() == ["segmenter", "segmenter"]
    assert all(0 <= score <= 1 for score in after.mask_score)
    masks = decode_masks(list(after.mask_rle))
    assert masks.shape == (2, 96, 128)
    assert masks.any(axis=(1, 2)).all()
    lost = ("mask_rle", "mask_source", "mask_score")
    assert table_rows(after, without=lost) == table_rows(before, without=lost)


def test_masks_that_the_dataset_gives_are_kept_where_others_are_segmented(steps: Steps) -> None:
    path = steps.project.folder / "references.json"
    content = read_coco(path)
    del content["annotations"][1]["segmentation"]
    path.write_text(json.dumps(content))
    references = steps.references(ids=["1", "2"])
    before = steps.store.load(references, References)
    after = steps.store.load(steps.segment(steps.dataset(), references), References)
    assert after.mask_source.tolist() == ["dataset", "segmenter"]
    assert after.mask_rle[0] == before.mask_rle[0]
    assert after.mask_score[0] is None
    assert after.mask_score[1] is not None


def test_masks_made_as_published_are_others_and_those_made_before_keep_their_key(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    corrected, original = (steps.segment(dataset, references, which) for which in ("corrected", "original"))
    assert steps.manifest(corrected)["settings"] == {}
    assert original != corrected
    exact, polygons = (steps.store.load(made, References).mask_rle.tolist() for made in (corrected, original))
    assert exact != polygons
    with_masks = steps.references()
    assert steps.segment(steps.dataset(), with_masks, "original") == with_masks


def test_segmented_masks_follow_the_images_content(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    first = steps.segment(dataset, references)
    assert steps.segment(dataset, references) == first
    for name in ("r0.png", "r1.png"):
        write_images(steps.project.folder / "references", {name: scene(55)})
    assert steps.segment(dataset, references) != first


def test_only_boxes_that_were_not_segmented_before_are_and_all_masks_are_as_from_nothing(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    (steps.project.folder / "boxes.json").rename(steps.project.folder / "references.json")
    calls = count_calls(monkeypatch, segment_module.segmentation, "segment_boxes")
    steps.segment(steps.dataset(), steps.references(ids=["1"]))
    assert len(calls) == 1
    after = steps.segment(steps.dataset(), steps.references(ids=["3", "1", "4"]))
    assert len(calls) == 2
    assert len(calls[1][2]) == 2  # both boxes of the other image
    elsewhere = steps.elsewhere()
    alone = elsewhere.segment(elsewhere.dataset(), elsewhere.references(ids=["3", "1", "4"]))
    assert steps.store.load(after, References).equals(elsewhere.store.load(alone, References))
    assert len(calls) == 4


def test_a_reference_image_that_cannot_be_read_stops_with_its_name(steps: Steps) -> None:
    dataset, references = steps.boxes_only()
    for name in ("r0.png", "r1.png"):
        (steps.project.folder / "references" / name).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"r\d\.png cannot be read: not an image") as caught:
        steps.segment(dataset, references)
    assert isinstance(caught.value.__cause__, ImageError)
