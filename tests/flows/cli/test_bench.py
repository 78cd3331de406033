"""`refseg bench`: measures what it says, on the paths it is told to, and leaves files to keep."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from flows.cli.main import main
from tasks.models.profiling.machine_limits import measure_ceilings
from tasks.models.profiling.stopwatch import Arithmetic, Stopwatch

_SMALL = ["--random", "sam2_demo,dinov2_demo", "--images", "2"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_paths_are_compared_on_the_demos_images(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["bench", "--images", "2", "--out", str(tmp_path), "--paths", "exact,turbo"])
    assert told.exit_code == 0, told.output
    assert "times as quick as exact" in told.output
    found = json.loads((tmp_path / "bench.json").read_text())
    exact, turbo = found["results"]
    assert (exact["path"], turbo["path"], found["num_images"]) == ("exact", "turbo", 2)
    assert all(len(seconds) == 2 for seconds in exact["seconds"].values())
    assert exact["agreement"]["num_same"] == exact["agreement"]["num_found"] > 0
    assert 0 < exact["average_precision"]["segm"] <= 1
    assert min(turbo["flops"].values()) > 1e6
    with Image.open(tmp_path / "bench.png") as chart:
        assert chart.width > 500


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_models_are_measured_with_the_share_of_prompts_that_is_asked_for(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["bench", *_SMALL, "--kept", "0.5", "--paths", "exact", "--out", str(tmp_path)])
    assert told.exit_code == 0, told.output
    (exact,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert exact["average_precision"] == {}
    assert exact["peak_bytes"] > 10e6


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_growth_is_measured(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["bench", "scale", "--out", str(tmp_path)])
    assert told.exit_code == 0, told.output
    series = {each["varied"]: each for each in json.loads((tmp_path / "scale.json").read_text())["series"]}
    assert series["categories"]["values"] == [20, 80, 1203]
    assert series["points"]["values"] == [64, 256, 1024]
    assert all(min(each["seconds"]) > 0 for each in series.values())
    assert (tmp_path / "scale.png").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "cpu", "scale"], "--device: flags of scale stand behind it"),
        (["--paths", "quick"], "expected some of reference, exact, fast, turbo"),
        (["--paths", "fast,fast"], "each once"),
        (["--random", "sam3,dinov2_demo"], "'sam3' is not known"),
        (["--random", "sam2_demo"], "'' is not known"),
        (["--random", "sam2_demo,dinov2_demo", "--config", "run.yaml"], "choose one of the two"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], expected: str) -> None:
    told = CliRunner().invoke(main, ["bench", *arguments])
    assert told.exit_code == 2
    assert expected in told.output


def test_a_stopwatch_adds_up_what_happens_in_a_stage_and_shares_it_among_images() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(3):
        with watch("decoder"):
            pass
    watch.next_images(2)
    first, second = watch.seconds["decoder"]
    assert first == second > 0


@pytest.mark.slow
def test_arithmetic_counts_a_multiply_add_as_two_also_in_attention_and_in_onednns_products() -> None:
    counter = Arithmetic()
    left, right = torch.ones(6, 8), torch.ones(10, 8)
    with counter("product"):
        left @ right.T
    with counter("attention"):
        torch.nn.functional.scaled_dot_product_attention(*(torch.ones(1, 2, 4, 8) for _ in range(3)))
    assert counter.flops == {"product": 2 * 6 * 8 * 10, "attention": 2 * 2 * 2 * 4 * 4 * 8}


@pytest.mark.slow
def test_ceilings_are_measured() -> None:
    ceilings = measure_ceilings(torch.device("cpu"))
    assert min(ceilings.float32_flops, ceilings.bfloat16_flops, ceilings.copied_bytes) > 1e6
    assert "torch" in ceilings.machine
