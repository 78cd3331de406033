"""`refseg bench accuracy`: compares variants on a project with tiny models, writes files and goes on where it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from refseg_core.tables import VariantImages, VariantNumbers
from tasks.models.profiling import variants
from tasks.runtime.progress import Progress, listening
from tasks.store.parquet import table_from_parquet
from tests.support.commands import done, refseg, refused
from tests.support.projects.project import Project

pytest_plugins = ["tests.support.projects.tiny_project"]

_VARIANTS = "exact,alike:path=guided,guidance_thresh=null,none:path=guided,guidance_thresh=1"


def _compare(project: Project, out: Path, *more: str) -> Result:
    flags = ["--variants", _VARIANTS, "--seeds", "1,2", "--timed-images", "1", "--out", out, *more]
    return refseg("bench", "accuracy", "--config", project.write_config(), *flags)


@pytest.mark.slow
def test_variants_are_compared_and_written_down(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told: list[Progress] = []
    with listening(told.append):
        printed = done(_compare(project, out))
    assert "minus exact (95 %)" in printed
    assert "What limits AP" in printed
    assert "labeled alone" in printed
    labeled = [each for each in told if each.step == "bench accuracy"]
    assert labeled[0].total == sum(each.advanced for each in labeled) == 5 * 3 * 2
    assert "image 1, exact, seed 1" in [each.doing for each in labeled]

    numbers = table_from_parquet((out / "accuracy.parquet").read_bytes(), VariantNumbers)
    images = table_from_parquet((out / "accuracy_images.parquet").read_bytes(), VariantImages)
    assert len(images) == 5 * 3 * 2
    means = numbers[np.array([seed is None for seed in numbers.seed])]
    keys = zip(means.variant, means.metric, strict=True)  # of masks, which come after boxes
    value = dict(zip(keys, means.value.tolist(), strict=True))
    assert value["exact", "prompt_share"] == value["alike", "prompt_share"] == 1
    assert value["exact", "AP"] == value["alike", "AP"] >= 0
    assert (value["none", "num_prompts"], value["none", "skipped_share"], value["none", "covered"]) == (0, 1, 0)
    assert value["exact", "proposed"] == value["alike", "proposed"] >= value["exact", "covered"]
    assert (value["none", "proposed"], value["exact", "proposed_s"]) == (0, -1)
    assert value["exact", "seconds"] > 0
    assert (value["none", "seconds of segmenter"], value["none", "seconds of decoder"]) == (0, 0)

    content = json.loads((out / "accuracy.json").read_text())
    assert (content["num_images"], content["num_timed"], content["seeds"]) == (5, 1, [1, 2])
    assert content["variants"]["none"]["guidance_thresh"] == 1
    assert len(content["numbers"]) == len(numbers)
    with Image.open(out / "accuracy.png") as chart:
        assert chart.width > 500
    assert {path.name.partition(".")[0] for path in out.iterdir()} == {"accuracy", "accuracy_images"}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    done(_compare(project, whole))
    label = variants._SharedLabelers.label
    labeled: list[int] = []

    def label_two(self: Any, row: int) -> Any:
        if len(labeled) == 2:
            raise KeyboardInterrupt
        labeled.append(row)
        return label(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(variants._SharedLabelers, "label", label_two)
        assert _compare(project, out).exit_code != 0
    other = _compare_counting(project, out, monkeypatch, "--images", "4")
    assert other == [0, 1, 2, 3], "another command begins anew"
    turned = ",".join(["alike:path=guided,guidance_thresh=null", "none:path=guided,guidance_thresh=1", "exact"])
    assert _compare_counting(project, out, monkeypatch, "--variants", turned) == [2, 3, 4]
    expected, found = (_numbers(folder) for folder in (whole, out))
    assert {name: value for name, (value, _) in found.items()} == {name: value for name, (value, _) in expected.items()}
    assert {difference for (variant, *_), (_, difference) in found.items() if variant == "alike"} <= {0, None}
    assert any(difference for (variant, *_), (_, difference) in found.items() if variant == "none")


def _numbers(folder: Path) -> dict[tuple[object, ...], tuple[float, float | None]]:
    """Returns value and difference of every number but what was measured."""
    numbers = table_from_parquet((folder / "accuracy.parquet").read_bytes(), VariantNumbers)
    keys = zip(numbers.variant, numbers.seed, numbers.iou_type, numbers.metric, strict=True)
    values = zip(numbers.value.tolist(), numbers.difference, strict=True)
    both = zip(keys, values, strict=True)
    return {key: value for key, value in both if not str(key[-1]).startswith(("seconds", "peak"))}


def _compare_counting(project: Project, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> list[int]:
    """Returns the rows of the images that the command labels."""
    label = variants._SharedLabelers.label
    labeled: list[int] = []

    def count(self: Any, row: int) -> Any:
        labeled.append(row)
        return label(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(variants._SharedLabelers, "label", count)
        done(_compare(project, out, *more))
    return labeled


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--variants", "quick"], "'quick' is neither a path"),
        (["--seeds", "1,1"], "--seeds: expected numbers"),
        (["--shots", "9"], "fewer than 9 valid annotations"),
        (["--device", "tpu"], "'tpu' cannot be used here"),
    ],
)
def test_what_cannot_be_compared_is_refused(flags: list[str], expected: str, project: Project, tmp_path: Path) -> None:
    config = project.write_config()
    assert expected in refused(refseg("bench", "accuracy", "--config", config, "--out", tmp_path / "out", *flags))


def test_images_without_an_instance_of_the_categories_are_refused(project: Project, tmp_path: Path) -> None:
    path = project.folder / "targets.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    assert "none of 5 images holds an instance" in refused(_compare(project, tmp_path / "out"))


def test_targets_without_annotations_are_refused(project: Project, tmp_path: Path) -> None:
    config = project.write_config(targets__annotations=None)
    told = refused(refseg("bench", "accuracy", "--config", config, "--out", tmp_path / "out"))
    assert "targets.annotations is null" in told


def test_named_references_are_the_only_set(project: Project, tmp_path: Path) -> None:
    config, out = project.write_config(references__sampling__selection="all"), tmp_path / "out"
    flags = ["--variants", "exact", "--timed-images", "1", "--images", "2", "--out", out]
    assert "the only set" in done(refseg("bench", "accuracy", "--config", config, *flags))
    assert len(json.loads((out / "accuracy.json").read_text())["seeds"]) == 1
