"""`refseg benchmark`: valid definitions, missing data in one report, numbers compared with the published ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from flows.benchmarks import spec
from flows.benchmarks.comparison import RunOutcome, as_text, compare_with_published
from flows.benchmarks.data_check import check_data
from flows.benchmarks.spec import Benchmark, benchmark_names, filled_path, load_benchmark
from flows.cli.main import main
from flows.config.run_config import keys
from flows.reports.charts import draw_benchmark
from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.errors import ConfigurationError, DatasetError
from tests.support.projects.project import Project
from tests.support.projects.without_prefect import call_without_prefect

pytest_plugins = ["tests.support.projects.tiny_project"]

_PLACES = ("references.images", "references.annotations", "targets.images", "targets.annotations", "targets.masks_from")


@pytest.mark.parametrize("name", benchmark_names())
def test_every_run_of_a_shipped_benchmark_is_a_valid_configuration(name: str, tmp_path: Path) -> None:
    """As published and corrected; whatever it reads is named among its needs."""
    benchmark = load_benchmark(name)
    assert benchmark.name == name
    known = {key.name for key in keys()}
    assert set(benchmark.original) <= known
    assert set(benchmark.cases) <= set(benchmark.axes)
    for point in benchmark.points({}):
        needed = {str(tmp_path / filled_path(need.path, point)) for need in benchmark.needs}
        for corrected in (False, True):
            config = benchmark.run_config(point, data=tmp_path, store="/store", corrected=corrected, changes={})
            assert config.conventions == ("corrected" if corrected else "original")
            content = config.model_dump()
            read = {content[place.split(".")[0]][place.split(".")[1]] for place in _PLACES} - {None}
            assert read <= needed
    for published in benchmark.published:
        assert set(published.where) in (set(benchmark.cases), set())
        assert all(value in benchmark.axes[axis] for axis, value in published.where.items())


def test_the_papers_headline_numbers_are_there() -> None:
    few_shot, voc, cross_domain = (load_benchmark(name) for name in ("coco-fewshot", "pascal-voc", "cd-fsod"))
    assert [number.mean for number in voc.published] == [71.2]
    assert [number.mean for number in cross_domain.published] == [22.4]
    at_30_shots = [number for number in few_shot.published if number.where == {"shots": 30}]
    assert {(number.iou_type, number.mean, number.deviation) for number in at_30_shots} == {
        ("bbox", 37.0, 0.2),
        ("segm", 34.4, 0.2),
    }
    assert len(few_shot.points({})) == 60


def _benchmark(**changes: Any) -> Benchmark:
    content = {
        "name": "tiny",
        "title": "A tiny one",
        "metric": "AP",
        "axes": {"shots": [1, 2], "seed": [3, 4]},
        "cases": ["shots"],
        "needs": [
            {"path": "references", "what": "references", "get": "Draw them."},
            {"path": "targets", "what": "targets", "get": "Draw them.", "images": 5},
        ],
        "config": {},
        "published": [{"where": {"shots": 1}, "iou_type": "bbox", "mean": 50.0, "deviation": 4.0}],
        "verified": "here",
    }
    return Benchmark.model_validate(content | changes)


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "a.png").touch()
    with pytest.raises(DatasetError) as caught:
        check_data(_benchmark(), [{"shots": 1}], tmp_path)
    message = str(caught.value)
    assert "references: references. Draw them." in message
    assert "targets: expected 5 images, found 1. Draw them." in message
    (tmp_path / "targets").rename(tmp_path / "references")
    (tmp_path / "targets").touch()
    with pytest.raises(DatasetError, match="targets: expected a folder of images"):
        check_data(_benchmark(), [{"shots": 1}], tmp_path)


def test_only_chosen_values_are_run_and_unknown_ones_are_refused() -> None:
    assert _benchmark().points({"shots": (2,)}) == [{"shots": 2, "seed": 3}, {"shots": 2, "seed": 4}]
    with pytest.raises(ConfigurationError, match=r"shots 7 is not part of it; it has shots: \[1, 2\], seed: \[3, 4\]"):
        _benchmark().points({"shots": (1, 7)})
    with pytest.raises(ConfigurationError, match="color red"):
        _benchmark().points({"color": ("red",)})
    with pytest.raises(ConfigurationError, match="No benchmark is called 'imagenet'; there are cd-fsod"):
        load_benchmark("imagenet")


def test_ours_and_published_numbers_stand_side_by_side_with_their_spread() -> None:
    values = {1: (46.0, 48.0), 2: (60.0, 60.0)}
    runs = [
        RunOutcome({"shots": shots, "seed": seed}, {"bbox": value}, seconds=float(shots))
        for shots, numbers in values.items()
        for seed, value in enumerate(numbers)
    ]
    table = compare_with_published(_benchmark(overall=True), runs, corrected=True)
    assert table.case.tolist() == ["shots 1", "shots 2", "all"]
    assert table.mean.tolist() == [47.0, 60.0, 53.5]
    assert table.deviation.tolist()[:2] == [1.0, 0.0]
    assert table.seconds.tolist() == [1.0, 2.0, 1.5]
    assert table.published.tolist() == [50.0, None, None]
    header, first, second, _ = as_text(table)
    assert first == ("shots 1", "bbox", "2", "47.0 ± 1.0", "50.0 ± 4.0", "-3.0", "yes", "1.00", "here")
    assert second[3:7] == ("60.0 ± 0.0", "not known", "-", "-")
    assert len(header) == len(first)
    far = compare_with_published(
        _benchmark(), [RunOutcome({"shots": 1, "seed": 3}, {"bbox": 45.9}, 2.0)], corrected=False
    )
    assert as_text(far)[1][3:7] == ("45.9", "50.0 ± 4.0", "-4.1", "no")
    assert far.case.tolist() == ["shots 1"]
    assert draw_benchmark(table).startswith(b"\x89PNG")


@pytest.fixture
def shipped(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The tiny project as a benchmark's data, and that benchmark among those that come with refseg."""
    folder = project.folder / "definitions"
    folder.mkdir()
    config = {key: project.content[key] for key in ("references", "targets", "segmenter", "encoder", "labeling")}
    config = json.loads(json.dumps(config))
    config["references"]["sampling"] = {"num_shots": "{shots}", "seed": "{seed}", "on_shortage": "fewer"}
    content = _benchmark(config=config, axes={"shots": [1], "seed": [3, 4]}, original={"conventions": "original"})
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content.model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setattr(spec, "_FOLDER", folder)
    return project


def _refseg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_benchmark_runs_resumes_and_ends_in_a_table(shipped: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    call_without_prefect(monkeypatch)
    monkeypatch.setattr("flows.cli.benchmark.prefect_session", _nothing)
    out = shipped.folder / "benchmarks"
    result = _refseg("benchmark", "tiny", "--data", shipped.folder, "--out", out)
    assert result.exit_code == 0, result.output
    assert "shots 1" in result.output
    assert "50.0 ± 4.0" in result.output
    assert (out / "tiny" / "benchmark.png").exists()
    made = sorted(path for path in out.rglob("*.parquet"))
    again = _refseg("benchmark", "tiny", "--data", shipped.folder, "--out", out)
    assert again.output == result.output
    assert sorted(path for path in out.rglob("*.parquet")) == made
    corrected = _refseg("benchmark", "tiny", "--data", shipped.folder, "--out", out, "--corrected", "--only", "seed=3")
    assert "conventions corrected" in corrected.output


def test_all_problems_of_all_runs_are_reported_before_the_first(shipped: Project) -> None:
    """Categories that are missing, by the files that lack them; and which runs it concerns."""
    definition_file = shipped.folder / "definitions" / "tiny.yaml"
    content = yaml.safe_load(definition_file.read_text())
    sampling = {"num_shots": "{shots}", "seed": 3, "split": "coco_semantic_split_{fold}"}
    content["config"]["references"]["sampling"] = sampling
    content["axes"] = {"fold": [1, 2], "shots": [1, 200]}
    content["needs"].append({"path": "references.json", "what": "annotations", "get": "Draw more."})
    definition_file.write_text(yaml.safe_dump(content))
    _rename_categories(shipped.folder, ["person", "bicycle"])
    result = _refseg("benchmark", "tiny", "--data", shipped.folder, "--out", shipped.folder / "benchmarks")
    assert result.exit_code == 2
    message = " ".join(result.output.split())
    references, targets = shipped.folder / "references.json", shipped.folder / "targets.json"
    assert f"{references}: lacks 19 categories of coco_semantic_split_1: airplane, boat, parking meter," in message
    assert "toothbrush" not in message.partition("coco_semantic_split_2")[0]
    assert "Draw more. (fold 1, shots 1 and 1 more)" in message
    assert f"{targets}: lacks 19 categories of coco_semantic_split_2: bus, traffic light," in message
    assert "Give annotations with these names. (fold 2, shots 1 and 1 more)" in message
    assert "with fewer than 200" in message and "(fold 1, shots 200)" in message
    assert not list((shipped.folder / "benchmarks").rglob("labels"))


def test_a_file_that_many_runs_share_is_read_once_to_say_that_it_is_damaged(
    shipped: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shipped.folder / "references.json").write_text('{"images": [')
    parsed: list[str] = []

    def count(document: bytes, **named: Any) -> Any:
        parsed.append(named["source"])
        return parse_coco(document, **named)

    monkeypatch.setattr("refseg_core.datasets.coco.parser.parse_coco", count)
    result = _refseg("benchmark", "tiny", "--data", shipped.folder, "--out", shipped.folder / "benchmarks")
    assert result.exit_code == 2
    assert parsed == [str(shipped.folder / "references.json")]
    assert result.output.count("references.json") == 1
    assert "(all runs)" in result.output


def _rename_categories(folder: Path, names: list[str]) -> None:
    for name in ("references.json", "targets.json"):
        document = json.loads((folder / name).read_text())
        for category, category_name in zip(document["categories"], names, strict=True):
            category["name"] = category_name
        (folder / name).write_text(json.dumps(document))


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_benchmarks_are_listed_and_a_data_folder_is_required() -> None:
    result = _refseg("benchmark")
    assert result.exit_code == 0
    assert all(name in result.output for name in benchmark_names())
    assert "--data is missing" in _refseg("benchmark", "cd-fsod").output
    assert "expected NAME=VALUE" in _refseg("benchmark", "cd-fsod", "--data", ".", "--only", "shots").output
    np.testing.assert_array_equal(np.array(benchmark_names()), np.sort(benchmark_names()))
