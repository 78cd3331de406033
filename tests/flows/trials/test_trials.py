"""Labels of a trial: made by --limit, kept apart from those of a run, and part of it once it runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tests.support.commands import done, refseg, without_prefect
from tests.support.projects.project import Project

pytest_plugins = ["tests.support.projects.tiny_project"]


@pytest.fixture
def plain(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose runs need no Prefect."""
    without_prefect(monkeypatch)
    yield project


def _exported(project: Project, out: Path) -> tuple[set[str], str]:
    """The images of the exported labels, and what was said."""
    result = refseg("export", project.config.store, "--format", "coco", "--out", out)
    return {image["file_name"] for image in json.loads(out.read_text())["images"]}, done(result)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "label"])
def test_labels_of_a_limit_are_taken_only_where_no_run_made_others(
    command: str, plain: Project, tmp_path: Path
) -> None:
    config, out = plain.write_config(), tmp_path / "out.json"
    assert "2 images: " in done(refseg(command, config, "--limit", "2"))
    names, said = _exported(plain, out)
    assert names == {"t0.png", "t1.png"}
    assert "the newest of a trial, since there are none of a run" in said
    assert "complete, of a trial, begun" in done(refseg("status", plain.config.store))

    assert "5 images: " in done(refseg(command, config))
    done(refseg(command, config, "--limit", "1", "--labeling.pred_iou_thresh", "0.1"))
    names, said = _exported(plain, out)
    assert names == {f"t{number}.png" for number in range(5)}
    assert "the newest of a run, of 2 in all" in said


@pytest.mark.slow
def test_a_run_labels_what_its_trial_left(plain: Project) -> None:
    config = plain.write_config()
    done(refseg("run", config, "--limit", "2"))
    trial, _ = newest_labels(Store(plain.config.store))
    done(refseg("run", config))
    run, others = newest_labels(Store(plain.config.store))
    assert (run.key, others) == (trial.key, 0)
    assert [len(part.images) for part in run.plans.parts()] == [2, 3]
