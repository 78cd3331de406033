"""What holds for exports of every format: nothing incomplete, nothing half, and what was left out is counted."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.errors import ConfigurationError, StoreError
from tasks.outputs.export_places import provenance_uri
from tasks.outputs.exports import writing
from tasks.outputs.exports.formats import EXPORT_FORMATS
from tasks.outputs.exports.labels import export_labels
from tasks.storage.folder import Folder
from tests.support.projects.exported import HEIGHT, INSTANCES, SPECKLED, WIDTH, ExportProject, Labeled, disc, rle

pytestmark = pytest.mark.slow  # together: each makes a store and exports it
FOLDERS = [one.name for one in EXPORT_FORMATS.values() if one.is_folder]


def _exported(project: ExportProject, form: str, **options: Any) -> Any:
    out = project.folder / f"{form}.json"
    export_labels(project.run, str(out), form=form, **options)
    return json.loads(out.read_text("utf-8"))


@pytest.mark.parametrize("form", list(EXPORT_FORMATS))
def test_incomplete_labels_are_refused_with_counts_in_every_format(form: str, tmp_path: Path) -> None:
    project = ExportProject(tmp_path, unlabeled=["x.png", "y.png"], unreadable=["z.png"])
    with pytest.raises(StoreError, match=r"5 of 7 images are labeled: finish the run .* --partial"):
        export_labels(project.run, str(tmp_path / "out"), form=form)
    assert not (tmp_path / "out").exists()
    labels = export_labels(project.run, str(tmp_path / "out"), form=form, partial=True)
    assert labels.counts == (7, 4, 1, 2)
    assert (labels.written.instances, labels.written.with_instances, labels.written.empty) == (4, 3, 1)


def test_nothing_labeled_is_nothing_to_export(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, instances={}, unlabeled=["x.png"], unreadable=["z.png"])
    with pytest.raises(
        StoreError, match="None of 2 images has labels to export: 1 could not be read, 1 not labeled yet"
    ):
        export_labels(project.run, str(tmp_path / "out"), form="coco", partial=True)


def test_empty_images_are_there_and_unreadable_and_unlabeled_ones_are_not(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, unlabeled=["x.png"], unreadable=["0.png"])
    document = _exported(project, "coco", partial=True)
    images = {image["file_name"]: image for image in document["images"]}
    assert sorted(images) == sorted(INSTANCES)
    assert {(image["height"], image["width"]) for image in document["images"]} == {(HEIGHT, WIDTH)}
    assert images["folder/c.png"]["id"] not in {row["image_id"] for row in document["annotations"]}
    assert images["a.png"]["id"] == 2, "ids count all images, so that they stay when the unreadable one is mended"


def test_the_filter_decides_what_is_written_and_leaves_ids_as_they_are(tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    everything = _exported(project, "coco")["annotations"]
    kept = LabelFilter(ScoreThresholds(0.5, {"boat": 0.8}))
    labels = export_labels(project.run, str(tmp_path / "coco.json"), form="coco", kept=kept)
    rows = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    assert [round(row["score"], 3) for row in rows] == [0.9, 0.55]
    assert {row["id"]: row["refseg_id"] for row in rows}.items() < {
        row["id"]: row["refseg_id"] for row in everything
    }.items()
    assert (labels.written.instances, labels.written.left_out) == (2, 2)
    assert (labels.written.with_instances, labels.written.empty) == (2, 2)


def test_a_label_that_is_there_twice_is_written_once_with_its_best_score(tmp_path: Path) -> None:
    ring = INSTANCES["a.png"][1]
    project = ExportProject(tmp_path, instances={"a.png": [ring, ring._replace(score=0.7), ring._replace(score=0.2)]})
    labels = export_labels(project.run, str(tmp_path / "coco.json"), form="coco")
    assert [round(row["score"], 3) for row in json.loads((tmp_path / "coco.json").read_text())["annotations"]] == [0.7]
    assert (labels.written.instances, labels.written.left_out, labels.written.repeated) == (1, 0, 2)


def test_provenance_lies_beside_the_export(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, unreadable=["z.png"])
    kept = LabelFilter(ScoreThresholds(0.1, {"boat": 0.8}))
    export_labels(project.run, str(tmp_path / "out"), form="yolo", kept=kept)
    found = json.loads(Path(provenance_uri(str(tmp_path / "out"))).read_text("utf-8"))
    assert found["complete"] is True
    assert (found["format"], found["labels"]) == ("yolo", project.run.key)
    assert found["store"] == project.run.store.uri
    assert found["thresholds"] == {"boat": 0.8, "*": 0.1}
    assert found["refseg_version"]
    assert found["weights"] == {"encoder": "0" * 64}
    assert found["images"] == {
        **{"total": 5, "labeled": 4, "unreadable": 1, "unlabeled": 0},
        **{"with_instances": 2, "empty": 2},
    }
    assert found["instances"] == {"written": 3, "left_out": 1, "removed": 0}
    assert 0.95 <= found["iou_of_polygons"]["lowest"] <= found["iou_of_polygons"]["mean"] <= 1
    assert found["categories"] == [
        {"id": 1, "name": "boat", "id_in_store": 4},
        {"id": 2, "name": "cat & dog", "id_in_store": 9},
    ]


def test_small_islands_and_holes_are_dropped_and_box_and_area_follow(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, instances={"d.png": [Labeled("boat", 0.5, rle(SPECKLED))]})
    (exact,) = _exported(project, "coco")["annotations"]
    assert exact["area"] == SPECKLED.sum()
    (clean,) = _exported(project, "coco", min_island=16)["annotations"]
    whole = disc(28, 40, 15)
    assert clean["segmentation"] == rle(whole).to_coco()
    assert clean["area"] == whole.sum()
    assert clean["bbox"] == [25, 13, 31, 31]
    (polygons,) = _exported(project, "coco", shape="polygons")["annotations"]
    assert len(polygons["segmentation"]) == 1, "one object, and not one for each speck"
    (speckled,) = _exported(project, "coco", shape="polygons", min_island=0)["annotations"]
    assert len(speckled["segmentation"]) == 4


@pytest.mark.parametrize(
    ("targets", "options", "expected"),
    [
        (None, {}, {"boat": 1, "cat & dog": 2}),
        (None, {"keep_ids": True}, {"boat": 4, "cat & dog": 9}),
        ({"cat & dog": 3, "boat": 7, "bird": 8}, {}, {"boat": 7, "cat & dog": 3}),
        ({"boat": 0, "cat & dog": 1}, {}, {"boat": 1, "cat & dog": 2}),
        ({"boat": 0, "cat & dog": 1}, {"keep_ids": True}, {"boat": 4, "cat & dog": 9}),
        ({"boat": 3}, {}, {"boat": 3, "cat & dog": 4}),
        ({"bird": 3, "boat": 9}, {}, {"boat": 1, "cat & dog": 2}),
    ],
)
def test_category_ids_are_the_targets_own_or_count_from_one(
    targets: dict[str, int] | None, options: dict[str, Any], expected: dict[str, int], tmp_path: Path
) -> None:
    project = ExportProject(tmp_path, targets=targets)
    document = _exported(project, "coco", **options)
    assert {one["name"]: one["id"] for one in document["categories"]} == expected
    name_of = {number: name for name, number in expected.items()}
    found = [name_of[row["category_id"]] for row in document["annotations"]]
    assert found == ["boat", "cat & dog", "boat", "cat & dog"]


def test_results_have_the_ids_of_the_file_that_they_are_read_with(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, targets={"boat": 0, "cat & dog": 1})
    assert [row["category_id"] for row in _exported(project, "coco-results")] == [0, 1, 0, 1]


@pytest.mark.parametrize("form", FOLDERS)
def test_a_folder_appears_whole_or_not_at_all(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = ExportProject(tmp_path)
    out = tmp_path / "out"
    export_labels(project.run, str(out), form=form)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def failing(*_: Any, **__: Any) -> Any:
        raise StoreError("no more")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.outputs.exports.exported.clean_masks", failing)
        with pytest.raises(StoreError, match="no more"):
            export_labels(project.run, str(out), form=form)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    names = {"images", "store", "out", "out.provenance"}
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing unfinished stays"


@pytest.mark.parametrize("form", FOLDERS)
def test_an_earlier_export_is_replaced_and_other_files_are_never(form: str, tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    out = tmp_path / "out"
    export_labels(project.run, str(out), form="hf")
    export_labels(project.run, str(out), form=form)
    assert (out / "train" / "metadata.parquet").exists() == (form == "hf")
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds other files than an earlier export"):
        export_labels(project.run, str(other), form=form)
    assert [path.name for path in other.iterdir()] == ["precious.txt"]


def _add(out: Path) -> None:
    (out / "notes.txt").write_text("mine")


def _change(out: Path) -> None:
    (out / "labels" / "train" / "a.txt").write_text("0 0.1 0.1 0.2 0.2 0.3 0.3\n")


def _change_in_place(out: Path) -> None:
    path = out / "labels" / "train" / "a.txt"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    os.utime(path, (time.time() + 9, time.time() + 9))


@pytest.mark.parametrize(
    ("by_hand", "example"),
    [(_add, "notes.txt"), (_change, "labels/train/a.txt"), (_change_in_place, "labels/train/a.txt")],
)
def test_what_was_added_to_an_export_or_changed_is_never_removed(
    by_hand: Callable[[Path], None], example: str, tmp_path: Path
) -> None:
    project, out = ExportProject(tmp_path), tmp_path / "out"
    export_labels(project.run, str(out), form="yolo")
    by_hand(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match=f"holds other files than an earlier export, such as '{example}'"):
        export_labels(project.run, str(out), form="yolo")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_of_an_export_by_an_earlier_version_only_newer_files_are_known(tmp_path: Path) -> None:
    project, out = ExportProject(tmp_path), tmp_path / "out"
    provenance = Path(provenance_uri(str(out)))
    for is_added in (False, True):
        export_labels(project.run, str(out), form="yolo")
        content = json.loads(provenance.read_text("utf-8"))
        del content["files"]
        provenance.write_text(json.dumps(content))
        if is_added:
            _add(out)
            os.utime(out / "notes.txt", (time.time() + 9, time.time() + 9))
    with pytest.raises(ConfigurationError, match=r"such as 'notes\.txt'"):
        export_labels(project.run, str(out), form="yolo")


def test_a_prefix_keeps_what_was_added_to_it(tmp_path: Path) -> None:
    project, out = ExportProject(tmp_path), f"memory://{tmp_path.name}-added/out"
    export_labels(project.run, out, form="yolo")
    Folder(out).create("notes.txt", b"mine")
    with pytest.raises(ConfigurationError, match=r"such as 'notes\.txt'"):
        export_labels(project.run, out, form="yolo")
    assert Folder(out).read("notes.txt") == b"mine"


@pytest.mark.parametrize("form", ["yolo", "coco"])
def test_an_export_that_was_ended_before_it_was_described_is_made_again(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, out = ExportProject(tmp_path), tmp_path / "out"

    def killed(*_: Any) -> Any:
        raise StoreError("killed")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("tasks.outputs.exports.labels.provenance_of", killed)
            with pytest.raises(StoreError, match="killed"):
                export_labels(project.run, str(out), form=form)
        assert out.exists()
    export_labels(project.run, str(out), form=form)
    assert json.loads(Path(provenance_uri(str(out))).read_text("utf-8"))["complete"]


@pytest.mark.parametrize("form", ["yolo", "coco", "cvat", "parquet"])
@pytest.mark.parametrize("place", ["images/labels", "images/a.png", "store/labels", "store/labels/a.json"])
def test_nothing_is_written_among_what_it_is_made_from(place: str, form: str, tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match=r"an export may not be written there|is a folder"):
        export_labels(project.run, str(tmp_path / place), form=form)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["images", "."])
def test_a_folder_never_takes_the_place_of_what_it_is_made_from(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="an export may not be written there"):
        export_labels(ExportProject(tmp_path).run, str(tmp_path / place), form="yolo")


@pytest.mark.parametrize("form", ["yolo", "coco"])
def test_a_pipe_or_a_link_to_nothing_stays(form: str, tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")
    for path in (pipe, link):
        with pytest.raises(ConfigurationError, match="is a device, a pipe or a link that leads nowhere"):
            export_labels(project.run, str(path), form=form)
    assert pipe.is_fifo()
    assert link.is_symlink()


@pytest.mark.parametrize("is_remote", [False, True])
def test_only_an_earlier_export_is_replaced_by_a_file(is_remote: bool, tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    folder = Folder(f"memory://{tmp_path.name}-file" if is_remote else str(tmp_path))
    folder.create("annotations.json", b"mine")
    with pytest.raises(ConfigurationError, match=r"annotations\.json: is there already, and is no export"):
        export_labels(project.run, folder.join("annotations.json"), form="coco")
    assert folder.read("annotations.json") == b"mine"
    for form in ("coco", "cvat"):
        export_labels(project.run, folder.join("labels"), form=form)
    assert folder.read("labels").startswith(b"<?xml")


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    (tmp_path / "there").mkdir()
    for place in ("there", "there/", "nodir/"):
        with pytest.raises(ConfigurationError, match=r"is a folder, and this format is one file\."):
            export_labels(project.run, f"{tmp_path}/{place}", form="coco")
    assert not (tmp_path / "nodir").exists()


@pytest.mark.parametrize("form", FOLDERS)
def test_a_prefix_gets_copies_and_loses_what_was_there(form: str, tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    out = f"memory://{tmp_path.name}-{form}/out"
    export_labels(project.run, out, form="hf", split=(0.5, 0.5))
    export_labels(project.run, out, form=form)
    local = tmp_path / "local"
    export_labels(project.run, str(local), form=form, images="copy" if EXPORT_FORMATS[form].holds_images else "auto")
    names = {str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()}
    assert {file.name for file in Folder(out).list_files()} == names
    png = next((name for name in names if name.endswith("a.png")), None)
    assert png is None or Folder(out).read(png) == (local / png).read_bytes()
    assert json.loads(Folder(out.rpartition("/")[0]).read("out.provenance"))["complete"]


def test_images_are_links_unless_copies_or_none_are_wanted(tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    for mode, is_there, is_link in (("auto", True, True), ("link", True, True), ("copy", True, False)):
        export_labels(project.run, str(tmp_path / "out"), form="labelme", images=mode)
        image = tmp_path / "out" / "a.png"
        assert (image.exists(), image.is_symlink()) == (is_there, is_link)
        assert image.read_bytes() == (project.images / "a.png").read_bytes()
    export_labels(project.run, str(tmp_path / "out"), form="labelme", images="none")
    assert not list((tmp_path / "out").glob("**/*.png"))
    with pytest.raises(ConfigurationError, match="cannot be linked"):
        export_labels(project.run, "memory://x/out", form="labelme", images="link")


def test_images_of_one_name_but_for_the_suffix_keep_their_own_labels(tmp_path: Path) -> None:
    boat, other = Labeled("boat", 0.9, rle(disc(20, 30, 9))), Labeled("cat & dog", 0.9, rle(disc(20, 30, 9)))
    project = ExportProject(tmp_path, instances={"a.png": [boat], "a.jpg": [other], "a_png.png": []})
    out = tmp_path / "out"
    export_labels(project.run, str(out), form="yolo")
    texts = {path.name: path.read_text()[:1] for path in (out / "labels" / "train").iterdir()}
    assert texts == {"a_jpg.txt": "1", "a_png_2.txt": "0", "a_png.txt": ""}
    pictures = {path.name: path.resolve().name for path in (out / "images" / "train").iterdir()}
    assert pictures == {"a_jpg.jpg": "a.jpg", "a_png_2.png": "a.png", "a_png.png": "a_png.png"}
    with pytest.raises(ConfigurationError, match=r"share their name but .* \(a.jpg, a.png\).* Export the images too"):
        export_labels(project.run, str(out), form="yolo", images="none")
    with pytest.raises(
        ConfigurationError, match=r"share their name but .* Rename them, or choose a format that is one"
    ):
        export_labels(project.run, str(out), form="masks")


def test_a_name_that_is_too_long_with_another_suffix_is_named(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, instances={f"{'x' * 251}.png": [], "a.png": []})
    with pytest.raises(StoreError, match=r"'x+\.json': its name of 256 bytes is too long.* one file, such as coco"):
        export_labels(project.run, str(tmp_path / "out"), form="labelme")
    assert not (tmp_path / "out").exists()


def test_names_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    mask = rle(disc(20, 30, 9))
    ids = {"../../evil": 1, "/etc/x": 2, "..": 3, "a/b": 4, "a:b": 5, "name\x07": 6, "x" * 300: 7, "海" * 99: 8}
    instances = {"a.png": [Labeled(name, 0.5, mask) for name in ids]}
    project = ExportProject(tmp_path / "inside", instances=instances, ids=ids)
    for form in EXPORT_FORMATS:
        export_labels(project.run, str(tmp_path / "inside" / "out" / form), form=form)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    masks = tmp_path / "inside" / "out" / "masks"
    assert len(list(masks.rglob("*.png"))) == len(ids)
    assert len([path for path in masks.iterdir() if path.is_dir()]) == len(ids), "no two share a folder"


def test_a_hostile_file_name_in_a_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = ExportProject(tmp_path, instances={"a.png": []})
    images = project.run.images()
    hostile = images.replace(file_name=np.array(["../a.png"], dtype=object))
    monkeypatch.setattr(type(project.run), "images", lambda _: hostile)
    with pytest.raises(StoreError, match="leaves its folder"):
        export_labels(project.run, str(tmp_path / "out"), form="yolo")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x"])
def test_a_folder_lets_no_name_out(name: str, tmp_path: Path) -> None:
    for uri in (str(tmp_path / "out"), f"memory://{tmp_path.name}/out"):
        with pytest.raises(StoreError, match="leads out of"):
            writing.write_folder(uri, [writing.File(name, [b"x"])], str(tmp_path), "none")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("form", "options", "match"),
    [
        ("coco", {"shape": "boxes"}, "writes instances as masks or polygons, not as boxes"),
        ("coco", {"split": (0.5, 0.5)}, "--split is for the formats yolo, voc, hf"),
        ("cvat", {"images": "copy"}, "--images is for the formats yolo, voc, labelme, hf"),
        ("yolo", {"label_map": True}, "--label-map is for the formats masks"),
        ("yolo", {"split": (0.5, 0.6)}, "add up to 1"),
        ("yolo", {"split": (1.0,)}, "add up to 1"),
    ],
)
def test_what_a_format_does_not_have_is_refused(form: str, options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=match):
        export_labels(ExportProject(tmp_path).run, str(tmp_path / "out"), form=form, **options)


def test_a_split_is_exact_drawn_by_seed_and_the_same_again() -> None:
    splits = writing.Splits(10, (0.8, 0.1, 0.1), seed=3)
    names = [splits.name_of(row) for row in range(10)]
    assert [names.count(name) for name in ("train", "val", "test")] == [8, 1, 1]
    assert names == [writing.Splits(10, (0.8, 0.1, 0.1), seed=3).name_of(row) for row in range(10)]
    others = [[writing.Splits(10, (0.8, 0.1, 0.1), seed=seed).name_of(row) for row in range(10)] for seed in range(9)]
    assert any(other != names for other in others)
    assert {writing.Splits(3, (), 0).name_of(row) for row in range(3)} == {"train"}
