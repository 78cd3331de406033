"""References added without an annotation file and dropped again: kept in the store, found by runs, encoded alone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli import bank as bank_module
from flows.pipeline import make_prototypes
from refseg_core.analysis.label_filter import ScoreThresholds
from refseg_core.masks.rle import decode_mask
from refseg_core.tables import Categories, Detections, Prototypes, References
from tasks import fill_memory_bank as fill_module
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.outputs.review.pictures import ReviewPictures
from tasks.store.garbage import find_garbage
from tasks.store.label_store import newest_labels
from tasks.store.lineage import reference_dataset, references_of
from tasks.store.store import Artifact, Store
from tasks.store.verify import verify_store
from tests.support.commands import done, refseg, refused, without_prefect
from tests.support.projects.project import Project, scene
from tests.support.projects.steps import count_calls, forbid
from tests.support.samples import write_images

pytest_plugins = ["tests.support.projects.tiny_project"]

_BOX = "12,14,52,54"


@pytest.fixture
def plain(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose runs need no Prefect, and a picture beside it."""
    without_prefect(monkeypatch)
    write_images(project.folder, {"boat7.png": scene(70)})
    yield project


def _bank(project: Project, *flags: str | Path) -> str:
    return done(refseg("bank", project.folder / "run.yaml", "--out", project.folder / "sheets", *flags))


def _made(project: Project) -> tuple[Store, Artifact]:
    """The prototypes as every later run finds them, without making any."""
    store = Store(project.config.store, find_only=True)
    return store, make_prototypes(project.config, store)


def _references(project: Project) -> References:
    store, prototypes = _made(project)
    return store.load(references_of(store, prototypes), References)


@pytest.mark.slow
def test_an_added_reference_stays_though_its_picture_goes_and_is_the_only_one_to_be_encoded(
    plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.write_config()
    _bank(plain)
    before = _references(plain)
    calls = count_calls(monkeypatch, fill_module, "encode_references")
    said = _bank(plain, "--add", f"boat={plain.folder / 'boat7.png'}", "--box", _BOX)
    assert "Added added-0 (boat, boat7.png)" in said
    assert "3 prototypes" in said
    assert [path.name for path in (plain.folder / "sheets").iterdir()] == ["boat.jpg"]
    assert len(calls) == 1

    (plain.folder / "boat7.png").unlink()
    store, prototypes = _made(plain)
    after = _references(plain)
    assert after[:-1].equals(before)
    assert after.annotation_id[-1] == "added-0"
    assert after.mask_source[-1] == "segmenter"
    categories = store.load(reference_dataset(store, prototypes), Categories)
    names = dict(zip(categories.category_id.tolist(), categories.name, strict=True))
    assert [names[one] for one in store.load(prototypes, Prototypes).category_id] == ["box", "bar", "boat"]

    done(refseg("run", plain.folder / "run.yaml"))
    run, _ = newest_labels(store)
    assert run.recipe_or_error()["inputs"]["prototypes"] == prototypes.name
    found = Detections.concatenate([detections for detections, _ in run.read()])
    assert names[max(found.category_id)] == "boat"
    done(refseg("show", plain.config.store, "--out", plain.folder / "pictures"))
    index = InstanceIndex(run, ScoreThresholds(0.5))
    reviewed = ReviewPictures(index)
    assert len([reviewed.reference(row) for row in range(len(index.references))]) == 3
    assert verify_store(store).problems == []
    assert not [one for one in find_garbage(store, min_age_hours=0) if one.name.startswith("added_references")]


@pytest.mark.slow
def test_dropping_what_was_added_gives_the_bank_from_before_and_encodes_nothing(
    plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.write_config()
    _bank(plain, "--add", f"box={plain.folder / 'boat7.png'}", "--box", _BOX)
    assert _references(plain).shot.tolist() == [0, 0, 1]
    calls = count_calls(monkeypatch, fill_module, "encode_references")
    said = _bank(plain, "--drop", "added-0")
    assert "Without 1 dropped one: added-0" in said
    store, without = _made(plain)
    alone = Store(str(plain.folder / "elsewhere"))
    from_nothing = make_prototypes(plain.config_with({"store": alone.uri}), alone)
    assert len(calls) == 2, "those of the other store"
    assert store.load(without, Prototypes).equals(alone.load(from_nothing, Prototypes))

    _bank(plain, "--restore", "added-0")
    assert _references(plain).annotation_id.tolist()[-1] == "added-0"
    assert len(calls) == 2


@pytest.mark.slow
def test_a_sampled_reference_can_be_dropped_and_with_it_its_category(plain: Project) -> None:
    plain.write_config()
    _bank(plain)
    first, second = _references(plain).annotation_id.tolist()
    assert "1 prototype in" in _bank(plain, "--drop", first)
    assert _references(plain).annotation_id.tolist() == [second]
    assert "Every reference was dropped" in refused(refseg("bank", plain.folder / "run.yaml", "--drop", second))


@pytest.mark.slow
def test_marks_belong_to_the_reference_before_them(plain: Project) -> None:
    plain.write_config()
    inside = np.zeros((96, 128), dtype=np.uint8)
    inside[20:80, 68:104] = 255
    Image.fromarray(inside).save(plain.folder / "mask.png")
    picture = plain.folder / "boat7.png"
    flags = ["--add", f"bar={picture}", "--mask", plain.folder / "mask.png"]
    flags += ["--add", f"box={picture}", "--box", _BOX, "--add", f"dot={picture}", "--points", "30,30;40,40"]
    flags += ["--add", f"boat={picture}", "--box", _BOX]
    said = _bank(plain, *flags)
    assert "With 4 added references: added-0 (bar, boat7.png); added-1 (box, boat7.png); added-2 (dot" in said
    assert "added-3 is the same instance as added-1 of box: one instance is of one category" in said
    bar, box, dot = (_references(plain)[2:][row : row + 1] for row in range(3))
    np.testing.assert_array_equal(decode_mask(bar.mask_rle[0]), inside > 0)
    assert bar.box_xyxy.tolist() == [[68, 20, 104, 80]]
    assert box.box_xyxy.tolist() == [[12, 14, 52, 54]]
    assert decode_mask(dot.mask_rle[0])[30, 30] or dot.mask_score[0] < 1
    assert [one.mask_source[0] for one in (bar, box, dot)] == ["dataset", "segmenter", "segmenter"]


@pytest.mark.slow
def test_references_may_all_be_added_without_any_annotation_file(plain: Project) -> None:
    config = plain.write_config(references__annotations=None, targets__annotations=None)
    assert "no reference was added yet" in refused(refseg("run", config))
    _bank(plain, "--add", f"boat={plain.folder / 'boat7.png'}", "--box", _BOX)
    said = done(refseg("run", config))
    assert "5 images: " in said
    exported = plain.folder / "labels.json"
    done(refseg("export", plain.config.store, "--format", "coco", "--out", exported))
    assert [one["name"] for one in json.loads(exported.read_text())["categories"]] == ["boat"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--add", "boat=boat7.png"], "Each --add takes one --box, --mask or --points behind it"),
        (["--box", _BOX], "--box stands behind no --add of its own"),
        (["--add", "boat=boat7.png", "--box", _BOX, "--points", "1,2"], "--points stands behind no --add of its own"),
        (["--add", "boat7.png", "--box", _BOX], "expected CATEGORY=PICTURE"),
        (["--add", "boat=boat7.png", "--box", "1,2,3"], "--box: expected x1,y1,x2,y2; got '1,2,3'"),
        (["--add", "boat=boat7.png", "--box", "1_0,2,30,40"], "--box: expected x1,y1,x2,y2; got '1_0,2,30,40'"),
        (["--drop", ""], "--drop: '' not among the references"),
        (["--add", "boat=boat7.png", "--points", "1,2;x"], "--points: expected x,y of each"),
        (["--drop", "77"], r"--drop: 77 not among the references of this configuration, which are \d, \d"),
        (["--restore", "1"], "--restore 1: is not among the dropped references, which are none"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    flags: list[str], expected: str, plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.write_config()
    monkeypatch.chdir(plain.folder)
    result = refseg("bank", "run.yaml", *flags)
    assert result.exit_code == 2
    assert re.search(expected, result.stderr), result.stderr
    assert not (Path(plain.config.store) / "reference_edits").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--add", "boat=nowhere.png", "--box", _BOX], "nowhere.png: not found"),
        (["--add", "boat=boat7.png", "--box", "500,14,600,54"], "boat7.png: The box .* misses the image"),
        (["--add", "boat=boat7.png", "--box", "40,40,10,10"], "boat7.png: The box .* has no area"),
        (
            ["--add", "boat=boat7.png", "--box", "12,14,131,54"],
            r"boat7.png: The box .* ends outside of the image, which is 128 wide and 96 high",
        ),
        (["--add", "boat=boat7.png", "--points", "500,1"], "boat7.png: "),
        (["--add", "boat=boat7.png", "--mask", "run.yaml"], "run.yaml: cannot be read: not an image"),
    ],
)
def test_what_is_wrong_with_a_reference_to_add_is_told_before_anything_starts(
    flags: list[str], expected: str, plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.write_config()
    monkeypatch.chdir(plain.folder)
    forbid(monkeypatch, bank_module, "checked_session")
    assert re.search(expected, refused(refseg("bank", "run.yaml", *flags)))


def test_the_command_is_found_without_the_name_of_its_default() -> None:
    assert "--add CATEGORY=PICTURE" in done(refseg("bank", "--help"))
    assert "Missing argument 'CONFIG.yaml'" in refseg("bank").stderr
