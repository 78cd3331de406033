"""Each reference becomes one vector, once for the same encoder and images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from refseg_core.errors import DatasetError
from refseg_core.tables import MemoryBank, References
from tasks import fill_memory_bank as fill_module
from tests.support.models import TINY_ENCODER
from tests.support.projects.project import CATEGORIES, changed, read_coco, scene
from tests.support.projects.steps import Steps, count_calls, forbid
from tests.support.samples import write_images

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_every_reference_becomes_one_vector(steps: Steps) -> None:
    bank = steps.store.load(steps.fill(steps.dataset(), steps.references()), MemoryBank)
    assert bank.category_id.tolist() == list(CATEGORIES)
    assert bank.feature.shape == (2, TINY_ENCODER.embed_dim)
    assert (bank.foreground_weight > 0).all()
    assert np.isfinite(bank.feature).all()


def test_the_bank_is_filled_once_and_follows_encoder_and_images(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, references = steps.dataset(), steps.references()
    first = steps.fill(dataset, references)
    assert set(steps.manifest(first)["weights"]) == {"encoder"}
    with monkeypatch.context() as patch:
        forbid(patch, fill_module, "encode_references")
        assert steps.fill(dataset, references) == first
    steps.config = steps.project.config_with({"references.crop.context_ratio": 0.5})
    assert steps.fill(dataset, references) != first


def test_missing_images_of_references_are_all_named_with_their_references(steps: Steps) -> None:
    dataset, references = steps.dataset(), steps.references()
    table = steps.store.load(references, References)
    for name in set(table.file_name):
        (steps.project.folder / "references" / name).unlink()
    with pytest.raises(DatasetError) as error:
        steps.fill(dataset, references)
    drops = " ".join(f"--drop {annotation_id}" for annotation_id in table.annotation_id)
    assert f"{len(table)} of {len(table)} references lie in images that are not in " in str(error.value)
    assert f": {', '.join(sorted(set(table.file_name)))}. Put them there" in str(error.value)
    assert str(error.value).endswith(f"`refseg bank CONFIG {drops}`.")


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 1), (8, 3)])
@pytest.mark.slow
def test_photos_that_are_stored_turned_give_the_references_that_people_see(
    orientation: int, turns: int, steps: Steps
) -> None:
    folder = steps.project.folder
    banks = []
    for name in ("plain", "turned"):
        images = folder / name
        images.mkdir()
        for number in range(2):
            stored = np.rot90(scene(100 + number), turns) if name == "turned" else scene(100 + number)
            image = Image.fromarray(np.ascontiguousarray(stored))
            exif = image.getexif()
            exif[ExifTags.Base.Orientation] = orientation if name == "turned" else 1
            image.save(images / f"r{number}.png", exif=exif)
        _write_labelme(images, folder / "references.json")
        changes = {"references.images": str(images), "references.annotations": str(images)}
        project = replace(steps.project, content=changed(steps.project.content, changes))
        own = Steps(project)
        banks.append(own.store.load(own.fill(own.dataset(), own.references()), MemoryBank))
    assert banks[0].equals(banks[1])


def _write_labelme(folder: Path, coco: Path) -> None:
    """The annotations of a COCO file as labelme shows people the pictures."""
    document = read_coco(coco)
    for image in document["images"]:
        own = [one for one in document["annotations"] if one["image_id"] == image["id"]]
        shapes = [
            {
                "label": CATEGORIES[one["category_id"]],
                "shape_type": "polygon",
                "points": np.reshape(one["segmentation"][0], (-1, 2)).tolist(),
            }
            for one in own
        ]
        content = {"shapes": shapes, "imageHeight": image["height"], "imageWidth": image["width"]}
        (folder / image["file_name"]).with_suffix(".json").write_text(json.dumps(content))


@pytest.mark.parametrize("method", ["published", "accurate"])
@pytest.mark.parametrize(
    ("first", "then", "num_new"),
    [
        ([["1"]], ["1", "3"], 1),
        ([["1", "3"]], ["3"], 0),
        ([["1", "3"]], ["2", "4", "3", "1"], 2),
        ([["1"], ["2", "4"]], ["4", "1"], 0),
    ],
    ids=["one more", "one less", "another category, other order", "of several banks"],
)
@pytest.mark.slow
def test_only_references_that_no_bank_holds_are_encoded_and_all_are_as_from_nothing(
    method: str, first: list[list[str]], *, then: list[str], num_new: int, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.config = steps.project.config_with({"labeling.method": method})
    for ids in first:
        steps.fill(steps.dataset(), steps.references(ids=ids))
    calls = count_calls(monkeypatch, fill_module, "encode_references")
    bank = steps.store.load(steps.fill(steps.dataset(), steps.references(ids=then)), MemoryBank)
    assert len(calls) == num_new
    elsewhere = steps.elsewhere()
    elsewhere.config = elsewhere.project.config_with({"labeling.method": method})
    alone = elsewhere.store.load(elsewhere.fill(elsewhere.dataset(), elsewhere.references(ids=then)), MemoryBank)
    assert bank.equals(alone)


@pytest.mark.parametrize("changed", ["image", "mask", "crop"])
def test_a_reference_that_changed_is_encoded_again(changed: str, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    steps.fill(steps.dataset(), steps.references(ids=["1", "3"]))
    if changed == "image":
        write_images(steps.project.folder / "references", {"r0.png": scene(55)})
    elif changed == "mask":
        path = steps.project.folder / "references.json"
        content = read_coco(path)
        content["annotations"][0]["segmentation"] = [[12, 14, 40, 14, 40, 40]]
        path.write_text(json.dumps(content))
    else:
        steps.config = steps.project.config_with({"references.crop.context_ratio": 0.5})
    calls = count_calls(monkeypatch, fill_module, "encode_references")
    steps.fill(steps.dataset(), steps.references(ids=["1", "3"]))
    assert len(calls) == (2 if changed == "crop" else 1)


def test_a_damaged_bank_is_not_used_again(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = steps.fill(steps.dataset(), steps.references(ids=["1"]))
    (steps.project.folder / "store" / first.name / "memory_bank.parquet").write_bytes(b"damaged")
    calls = count_calls(monkeypatch, fill_module, "encode_references")
    steps.fill(steps.dataset(), steps.references(ids=["1", "3"]))
    assert len(calls) == 2
    assert f"{first.name} is not used again" in caplog.text


def test_a_reference_whose_mask_vanishes_is_left_out_with_a_warning(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    path = steps.project.folder / "references.json"
    content = read_coco(path)
    content["annotations"][0]["segmentation"] = [[120, 90, 124, 90, 124, 94, 120, 94]]  # outside its box
    path.write_text(json.dumps(content))
    references = steps.references(ids=["1", "2", "3"])
    bank = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    assert sorted(zip(bank.category_id.tolist(), bank.shot.tolist(), strict=True)) == [(3, 1), (8, 0)]
    assert "Reference annotation 1 (category 3, image r0.png) is left out" in caplog.text


def test_all_views_are_another_bank_of_the_same_references(steps: Steps) -> None:
    dataset, references = steps.dataset(), steps.references()
    crops = steps.fill(dataset, references)
    steps.config = steps.project.config_with({"labeling.method": "accurate"})
    views = steps.fill(dataset, references)
    assert views != crops
    one, all_views = (steps.store.load(bank, MemoryBank) for bank in (crops, views))
    assert one.category_id.tolist() == all_views.category_id.tolist()
    np.testing.assert_array_equal(one.foreground_weight, all_views.foreground_weight)
    assert not np.allclose(one.feature, all_views.feature, atol=1e-3)
