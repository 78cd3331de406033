"""`refseg study`: runs that differ only in their references, and the number that is enough."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from flows.trials.study import plan_study
from refseg_core.analysis.reference_study import Outcome, Spread, answer, enough, spreads
from tasks.storage.folder import Folder
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tests.support.commands import done, refseg, refused, without_prefect
from tests.support.projects.project import Project, read_coco

pytest_plugins = ["tests.support.projects.tiny_project"]


def spread(*values_of: tuple[int, list[float]]) -> list[Spread]:
    return [Spread(shots, tuple(values)) for shots, values in values_of]


# COCO's novel categories over ten seeds, from the method's study: mean and standard deviation by number of references.
_PUBLISHED = {1: (0.245, 0.015), 2: (0.295, 0.020), 5: (0.344, 0.008), 10: (0.359, 0.005), 30: (0.370, 0.002)}


class TestNumbers:
    def test_spreads_are_by_metric_and_ascending_number_whatever_the_order_of_runs(self) -> None:
        outcomes = [Outcome(5, 1, {"segm AP": 0.4}), Outcome(1, 1, {"segm AP": 0.1}), Outcome(1, 2, {"segm AP": 0.3})]
        (of_one, of_five) = spreads(outcomes)["segm AP"]
        assert (of_one.shots, of_one.values, of_five.shots) == (1, (0.1, 0.3), 5)
        assert (of_one.mean, of_one.deviation) == (pytest.approx(0.2), pytest.approx(0.1 * 2**0.5))
        assert of_five.deviation == 0

    def test_fewest_whose_mean_is_within_the_bests_deviation_are_enough(self) -> None:
        assert enough(spread((1, [0.2, 0.3]), (2, [0.38, 0.39]), (5, [0.38, 0.42]))).shots == 2

    def test_so_are_those_within_half_a_point(self) -> None:
        assert enough(spread((1, [0.396]), (5, [0.4]))).shots == 1
        assert enough(spread((1, [0.394]), (5, [0.4]))).shots == 5

    def test_of_the_published_study_only_the_most_are_enough(self) -> None:
        of_all = [Spread(shots, (mean - sd / 2**0.5, mean + sd / 2**0.5)) for shots, (mean, sd) in _PUBLISHED.items()]
        assert [one.deviation for one in of_all] == [pytest.approx(sd) for _, sd in _PUBLISHED.values()]
        assert enough(of_all).shots == 30

    @pytest.mark.parametrize(
        ("studied", "expected"),
        [
            (
                spread((1, [0.4, 0.4]), (2, [0.2, 0.2])),
                "1 reference per category: AP 0.400 ± 0.000 is as good as it gets",
            ),
            (spread((1, [0.1]), (2, [0.4]), (5, [0.402])), "2 references .* the best is 0.402 ± 0.000 with 5"),
            (spread((1, [0.1]), (2, [0.4])), "2 references .* with the most that were tried.* More may be better"),
            (spread((3, [0.1])), "3 references .*Study several numbers"),
        ],
    )
    def test_the_answer_is_a_sentence(self, studied: list[Spread], expected: str) -> None:
        assert re.search(expected, answer("AP", studied))


@pytest.fixture
def plain(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose runs need no Prefect."""
    without_prefect(monkeypatch)
    yield project


def names_in(store: str) -> set[str]:
    return {file.name for file in Folder(store).list_files()}


@pytest.mark.slow
def test_a_study_prints_the_spread_and_an_answer_and_writes_files(plain: Project, tmp_path: Path) -> None:
    out = tmp_path / "study"
    output = done(refseg("study", plain.write_config(), "--seeds", "1,2", "--shots", "2,1", "--out", out))
    assert "References per category" in output
    assert "per category: segm AP" in output
    content = json.loads((out / "study.json").read_text())
    assert [(run["outcome"]["shots"], run["outcome"]["seed"]) for run in content["runs"]] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    assert content["answer"] in output
    assert set(content["spreads"]) == {"bbox AP", "segm AP"}
    for kind, summaries in content["spreads"].items():
        for summary in summaries:
            values = [
                run["outcome"]["values"][kind] for run in content["runs"] if run["outcome"]["shots"] == summary["shots"]
            ]
            assert summary["mean"] == pytest.approx(sum(values) / 2)
    with Image.open(out / "study.png") as chart:
        assert chart.width > 500

    before = names_in(plain.config.store)
    assert {run["metrics"] for run in content["runs"]} == {
        name.rpartition("/")[0] for name in before if name.startswith("metrics/") and name.endswith("manifest.json")
    }
    again = done(refseg("study", plain.write_config(), "--seeds", "1,2", "--shots", "1,2", "--out", out))
    assert names_in(plain.config.store) == before, "what is done is not done again"
    assert content["answer"] in again
    assert "s per image, as for the newest labels" in again
    labels = {run["labels"].removeprefix("labels/") for run in content["runs"]}
    assert newest_labels(Store(plain.config.store))[0].key in labels
    own = done(refseg("run", plain.write_config(references__sampling__num_shots=1, references__sampling__seed=7)))
    assert newest_labels(Store(plain.config.store))[0].key not in labels, own
    more = done(refseg("study", plain.write_config(), "--seeds", "3", "--shots", "1", "--out", out))
    assert newest_labels(Store(plain.config.store))[0].key not in labels, more


@pytest.mark.parametrize(
    ("changes", "flags", "expected"),
    [
        ({"targets__annotations": None}, [], "targets.annotations is null"),
        ({"references__annotation_ids": ["1"]}, [], "references.annotation_ids"),
        ({"references__sampling": {"selection": "all"}}, [], "needs 'sampled', got 'all'"),
        ({}, ["--shots", "0"], "--shots: expected numbers of at least 1"),
        ({}, ["--seeds", "1,1"], "--seeds: expected numbers of at least 0, each once"),
        ({}, ["--seeds", "one"], "got 'one'"),
        ({}, ["--shots", "1,3"], "fewer than 3 valid annotations"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_labeled(
    changes: dict[str, object], flags: list[str], expected: str, plain: Project
) -> None:
    assert expected in refused(refseg("study", plain.write_config(**changes), *flags))
    assert not (Path(plain.config.store) / "labels").exists()


@pytest.mark.slow
def test_categories_with_too_few_references_follow_on_shortage(plain: Project, tmp_path: Path) -> None:
    flags = ["--references.sampling.on_shortage", "fewer", "--shots", "3", "--seeds", "1", "--out", tmp_path / "out"]
    assert "3 references per category" in done(refseg("study", plain.write_config(), *flags))


@pytest.mark.slow
def test_targets_without_an_instance_of_the_categories_are_an_error(plain: Project) -> None:
    path = plain.folder / "targets.json"
    path.write_text(json.dumps(read_coco(path) | {"annotations": []}))
    assert "no instance of the referenced categories" in refused(refseg("study", plain.write_config(), "--shots", "1"))


def test_only_the_sampling_differs_and_pictures_are_left_out(project: Project) -> None:
    config = project.config_with({"pictures": str(project.folder / "pictures"), "references.sampling.num_shots": 9})
    planned = plan_study(config, [7, 3], [2, 1])
    assert [(one.references.sampling.num_shots, one.references.sampling.seed) for one in planned] == [
        (1, 7),
        (1, 3),
        (2, 7),
        (2, 3),
    ]
    for one in planned:
        same = one.references.model_copy(update={"sampling": config.references.sampling})
        assert one.model_copy(update={"references": same, "pictures": config.pictures, "purpose": "run"}) == config
        assert one.purpose == "study"
        assert one.pictures is None
