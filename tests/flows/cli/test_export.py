"""The command that exports: what it takes, what it prints, and how it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli.main import main
from tests.support.projects.exported import ExportProject


def _export(project: ExportProject, *options: object) -> Result:
    out = project.folder / "out"
    return CliRunner().invoke(main, ["export", project.run.store.uri, "--out", str(out), *map(str, options)])


def test_the_last_line_counts_what_was_written_and_left_out(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, unreadable=["z.png"], unlabeled=["x.png", "y.png"])
    done = _export(project, "--format", "yolo", "--partial", "--min-score", "0.5")
    assert done.exit_code == 0, done.output
    assert "No --split: data.yaml names the images of training for validation, too" in done.output
    last = done.output.splitlines()[-1]
    assert last.startswith(
        f"Wrote {tmp_path / 'out'}: 3 instances in 3 images, 1 image without any; "
        "left out 1 unreadable image, 2 images that are not labeled, 1 instance; polygons have an IoU of 0.9"
    )


def test_unfinished_labels_are_refused_with_counts(tmp_path: Path) -> None:
    done = _export(ExportProject(tmp_path, unlabeled=["x.png"]))
    assert done.exit_code == 2
    assert "4 of 5 images are labeled: finish the run" in done.output
    assert not (tmp_path / "out").exists()


def test_other_category_ids_than_the_stores_are_told(tmp_path: Path) -> None:
    project = ExportProject(tmp_path, ids={"boat": 0, "cat & dog": 1})
    done = _export(project, "--format", "coco")
    assert "Category ids of the export: 0 boat -> 1, 1 cat & dog -> 2; --keep-ids keeps the store's." in done.output
    kept = _export(project, "--format", "coco", "--keep-ids")
    assert "Category ids" not in kept.output
    assert [one["id"] for one in json.loads((tmp_path / "out").read_text())["categories"]] == [0, 1]


def test_numbers_that_stand_for_file_names_are_told_and_so_is_how_many_labels_are_worth_keeping(tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    output = _export(project).output
    assert "Image ids of the export: 1 is a.png, 2 is b.png and 2 more; see image_ids of the provenance." in output
    names = {one["id"]: one["file_name"] for one in json.loads((tmp_path / "out.provenance").read_text())["image_ids"]}
    assert names == {1: "a.png", 2: "b.png", 3: "d.png", 4: "folder/c.png"}
    assert {one["image_id"] for one in json.loads((tmp_path / "out").read_text())} == {1, 2, 3}
    assert "1 image without any; of every score: 3 reach 0.5, which --thresholds 0.5 keeps" in output
    output = _export(project, "--format", "coco", "--thresholds", "0.1").output
    assert "see the file's images." in output
    assert "image_ids" not in json.loads((tmp_path / "out.provenance").read_text()), "whose file has the names itself"
    assert "of every score" not in output


def test_the_filters_options_choose_what_is_written(tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    done = _export(project, "--format", "coco", "--thresholds", "boat=0.8", "--categories", "boat")
    assert "1 instance in 1 image, 3 images without any; left out 3 instances" in done.output
    assert "Kept: a score of at least 0.8 (boat), 0 (others); only boat" in done.output
    (row,) = json.loads((tmp_path / "out").read_text())["annotations"]
    assert row["score"] == pytest.approx(0.9)


@pytest.mark.parametrize("shape", ["masks", "polygons", "boxes"])
@pytest.mark.slow
def test_shapes_are_chosen_by_flags(shape: str, tmp_path: Path) -> None:
    assert _export(ExportProject(tmp_path), "--format", "cvat", f"--{shape}").exit_code == 0
    tags = {"masks": "<mask ", "polygons": "<polygon ", "boxes": "<box "}
    assert tags[shape] in (tmp_path / "out").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "a,b"], "expected shares such as 0.8,0.1,0.1, got 'a,b'"),
        (["--split", "0.8,-0.2"], "expected shares"),
        (["--split", "1_0,0"], "expected shares such as 0.8,0.1,0.1, got '1_0,0'"),
        (["--split", "0.8,0.1"], "add up to 1"),
        (["--format", "coco", "--boxes"], "The format coco writes instances as masks or polygons, not as boxes"),
        (["--simplify", "-1"], "--simplify"),
        (["--boxes", "--masks"], "--boxes and --masks contradict each other; give one."),
        (["--min-area", "50%", "--max-area", "1%"], "--min-area and --max-area: min is more than max"),
        (["--categories", "dog"], "'dog': no such category"),
    ],
)
@pytest.mark.slow
def test_wrong_options_are_named(options: list[str], message: str, tmp_path: Path) -> None:
    done = _export(ExportProject(tmp_path), "--format", "yolo", *options)
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "out").exists()
