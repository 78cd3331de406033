"""`refseg bench`: measures the chosen paths, prints tables and writes files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from flows.cli.main import main
from flows.reports.speed_report import describe_ceilings
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.models.processor import this_processor
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.settings.labeling_paths import LABELING_PATHS
from tasks.models.profiling.arithmetic import CPU_OPERATIONS, count_arithmetic
from tasks.models.profiling.inputs import random_prototypes
from tasks.models.profiling.machine_limits import _SIDES, measure_ceilings
from tasks.models.profiling.stopwatch import Stopwatch
from tasks.runtime.progress import Progress, listening
from tests.support.models import tiny_encoder, tiny_segmenter

_SMALL = ["--random", "sam2_demo,dinov2_demo", "--images", "2"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_paths_are_compared_on_the_demos_images(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["bench", "--images", "2", "--out", str(tmp_path), "--paths", "exact,fast"])
    assert result.exit_code == 0, result.output
    assert "times as fast as exact" in result.output
    found = json.loads((tmp_path / "bench.json").read_text())
    exact, fast = found["results"]
    assert (exact["path"], fast["path"], found["num_images"]) == ("exact", "fast", 2)
    assert all(len(seconds) == 2 for seconds in exact["seconds"].values())
    assert exact["agreement"]["num_same"] == exact["agreement"]["num_found"] > 0
    assert 0 < exact["average_precision"]["segm"] <= 1
    assert min(fast["flops"].values()) > 1e6
    with Image.open(tmp_path / "bench.png") as chart:
        assert chart.width > 500


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_models_are_measured_with_the_given_share_of_prompts(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["bench", *_SMALL, "--kept", "0.5", "--paths", "exact", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (exact,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert exact["average_precision"] == {}
    assert exact["peak_bytes"] > 10e6


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_growth_is_measured(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["bench", "scale", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    series = {each["varied"]: each for each in json.loads((tmp_path / "scale.json").read_text())["series"]}
    assert series["categories, guided"]["values"] == [1, 3, 10, 60, 1203]
    held = series["quarters of images that hold any, guided"]
    assert held["values"] == [1, 2, 3, 4]
    assert held["seconds"][0] < held["seconds"][-1]  # three of four images never reach the segmenter
    assert series["points"]["values"] == [64, 256, 1024]
    assert all(min(each["seconds"]) > 0 for each in series.values())
    assert (tmp_path / "scale.png").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "cpu", "scale"], "--device: flags of scale belong after it"),
        (["--paths", "quick"], "expected one of plain, exact, fast, guided"),
        (["--paths", "fast,fast"], "each once"),
        (["--paths", "reference,plain"], "each once"),  # the former name, and the current one
        (["--paths", "turbo,guided"], "each once"),  # replaced, and what replaces it
        (["--random", "sam3,dinov2_demo"], "'sam3' is not known"),
        (["--random", "sam2_demo"], "'' is not known"),
        (["--random", "sam2_demo,dinov2_demo", "--config", "run.yaml"], "choose one of the two"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == 2
    assert expected in result.output


@pytest.mark.parametrize("command", [["bench"], ["bench", "scale"]])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("flows.cli.bench._inputs", None)  # nothing is read
    ran = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "file" / "out")])
    assert ran.exit_code == 2
    assert "--out: " in ran.output
    assert "cannot be used (Not a directory)" in ran.output


def test_a_stopwatch_adds_up_what_happens_in_a_stage_and_shares_it_among_images() -> None:
    watch = Stopwatch(torch.device("cpu"), ["decoder", "merging"])
    for _ in range(3):
        with watch("decoder"):
            pass
    watch.next_images(2)
    first, second = watch.seconds["decoder"]
    assert first == second > 0
    assert watch.seconds["merging"] == [0, 0]


@pytest.mark.parametrize("path", list(LABELING_PATHS))
@pytest.mark.slow
def test_operations_are_those_of_an_image_that_is_labeled(path: str) -> None:
    """Counted while one is labeled, which takes as long as that; at what the prompts had, which is counted ahead."""
    counted: dict[str, FlopCounterMode] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        with FlopCounterMode(display=False, custom_mapping=CPU_OPERATIONS) as counted[name]:
            yield

    segmenter, encoder = tiny_segmenter(), tiny_encoder()
    settings = LabelingSettings(path=path, points_per_side=3, pred_iou_thresh=0.4)
    prototypes = random_prototypes(3, encoder.architecture.embed_dim)
    # Batches of one prompt: with more, thresholds leave products of other shapes.
    labeler = BatchLabeler(segmenter, encoder, prototypes, settings, BatchSettings(points_per_batch=1), stage=stage)
    image = np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    (found,) = labeler.find([labeler.to_frame(image)])
    ahead = count_arithmetic(segmenter, encoder).per_image([found.prompts], is_plain=path == "plain")
    assert ahead["segmenter"] == counted["segmenter"].get_total_flops() > 0
    assert ahead["encoder"] == counted["encoder"].get_total_flops() > 0
    # The quick paths match previews while they decode, which is not counted ahead.
    assert ahead["decoder"] == pytest.approx(counted["decoder"].get_total_flops(), rel=0.001)


@pytest.mark.slow
def test_a_multiply_add_counts_two_also_in_attention_and_in_onednns_products() -> None:
    with FlopCounterMode(display=False, custom_mapping=CPU_OPERATIONS) as product:
        torch.ones(6, 8) @ torch.ones(10, 8).T
    with FlopCounterMode(display=False, custom_mapping=CPU_OPERATIONS) as attention:
        torch.nn.functional.scaled_dot_product_attention(*(torch.ones(1, 2, 4, 8) for _ in range(3)))
    assert product.get_total_flops() == 2 * 6 * 8 * 10
    assert attention.get_total_flops() == 2 * 2 * 2 * 4 * 4 * 8


def _doing(progress: list[Progress]) -> list[str]:
    return [each.doing for each in progress if each.doing]


@pytest.mark.slow
def test_ceilings_are_measured_in_the_precisions_that_the_processor_has() -> None:
    reports: list[Progress] = []
    with listening(reports.append):
        ceilings = measure_ceilings(torch.device("cpu"), seconds=1)
    assert min(*ceilings.product_flops.values(), ceilings.copied_bytes) > 1e6
    assert "float32" in ceilings.product_flops
    assert ceilings.product_flops.keys() | set(ceilings.emulated) == {"float32", "bfloat16", "float16"}
    assert ("bfloat16" in ceilings.product_flops) == this_processor().has_bfloat16
    assert "torch" in ceilings.machine
    assert "float32 products of 256 rows" in _doing(reports)
    assert sum(each.advanced for each in reports) == reports[0].total


def test_emulated_precisions_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    emulating = replace(this_processor(), has_bfloat16=False, has_float16=False)
    monkeypatch.setattr("tasks.models.profiling.machine_limits.this_processor", lambda: emulating)
    monkeypatch.setitem(_SIDES, "cpu", (8, 16))
    ceilings = measure_ceilings(torch.device("cpu"), seconds=0)
    assert list(ceilings.product_flops) == ["float32"]
    assert ceilings.emulated == ("bfloat16", "float16")
    assert "bfloat16 not measured, since it is emulated here" in describe_ceilings(ceilings)


def test_a_ceiling_whose_time_is_up_is_that_of_the_smallest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_SIDES, "cpu", (8, 16, 32))
    reports: list[Progress] = []
    with listening(reports.append):
        measure_ceilings(torch.device("cpu"), seconds=0)
    assert [doing for doing in _doing(reports) if "float32" in doing] == ["float32 products of 8 rows"]


@pytest.mark.slow
def test_every_stage_of_a_benchmark_says_what_it_does(tmp_path: Path) -> None:
    reports: list[Progress] = []
    with listening(reports.append):
        ran = CliRunner().invoke(main, ["bench", *_SMALL, "--paths", "exact", "--out", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    doing = _doing(reports)
    assert doing[0] == "counting operations"
    assert {"warming up, exact: decoder", "labeling, exact: segmenter", "labeling, exact: write"} <= set(doing)
    assert sum(each.advanced for each in reports if each.step == "bench") == 2
