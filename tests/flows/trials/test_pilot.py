"""A pilot: the same images while references change, one page, and labels that only a run makes a run's."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from flows.trials.pilot import pilot_config
from refseg_core.errors import ConfigurationError
from refseg_core.tables import PilotImages, References
from tasks.models import pilot_images as module
from tasks.models.pilot_images import PilotWish
from tasks.store.garbage import find_garbage
from tasks.store.kept_proposals import kept_status
from tasks.store.label_store import StoredLabels, newest_labels
from tasks.store.store import Store
from tests.support.commands import done, refseg, refused, without_prefect
from tests.support.projects.project import Project
from tests.support.projects.steps import count_calls, forbid

pytest_plugins = ["tests.support.projects.tiny_project"]

_FLAGS = ("--images", "3", "--candidates", "4", "--seed", "5")


@pytest.fixture
def plain(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose runs need no Prefect."""
    without_prefect(monkeypatch)
    yield project


def _pilot(project: Project, *flags: str) -> str:
    return _again(project, *_FLAGS, *flags)


def _again(project: Project, *flags: str) -> str:
    """A pilot whose images are said by nothing but the flags."""
    return done(refseg("pilot", project.folder / "run.yaml", "--out", project.folder / "pilot", *flags))


def _chosen(project: Project) -> list[PilotImages]:
    store = Store(project.config.store)
    return [store.load(store.named(f"pilots/{one['key']}"), PilotImages) for one in store.manifests("pilots")]


def _all_labels(project: Project) -> list[StoredLabels]:
    store = Store(project.config.store)
    return [StoredLabels(store, one["key"]) for one in store.manifests("labels", "recipe.json")]


@pytest.mark.slow
def test_the_images_stay_while_references_change_until_new_ones_are_wanted(
    plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.write_config(references__sampling__num_shots=2)
    said = _pilot(plain)
    assert "Pilot: 3 images, chosen now from 4 candidates by seed 5." in said
    assert f"refseg pilot {plain.folder / 'run.yaml'} --images 3 " in said
    ((chosen),) = _chosen(plain)
    assert len(chosen) == 3
    with monkeypatch.context() as patch:
        forbid(patch, module, "load_encoder")
        said = _again(plain, "--references.sampling.num_shots", "1")
        assert "Pilot: the same 3 images as before, chosen from 4 candidates by seed 5 on 20" in said
        assert said.count(f"{plain.folder / 'run.yaml'} --references.sampling.num_shots 1 ") == 3, "bank, pilot, run"
        assert len(_chosen(plain)) == 1
    first, second = _all_labels(plain)
    assert first.key != second.key
    assert set(first.images().image_id) == set(second.images().image_id) == set(chosen.image_id)
    _pilot(plain, "--references.sampling.num_shots", "1", "--new")
    assert len(_chosen(plain)) == 2
    assert not [one for one in find_garbage(Store(plain.config.store), min_age_hours=0) if "pilots" in one.name]


@pytest.mark.slow
def test_candidates_are_no_more_than_there_are_images(plain: Project) -> None:
    plain.write_config()
    assert "Pilot: 3 images, chosen now from 5 candidates" in done(
        refseg("pilot", plain.folder / "run.yaml", "--images", "3", "--out", plain.folder / "pilot")
    )


@pytest.mark.slow
def test_a_run_takes_over_the_labels_of_a_pilot_and_only_then_are_they_its_own(
    plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.write_config()
    said = _pilot(plain)
    assert "3 images: " in said
    assert f"refseg run {plain.folder / 'run.yaml'}" in said
    (pilot,) = _all_labels(plain)
    assert pilot.purpose() == "pilot"
    assert "the newest of a pilot, since there are none of a run" in done(
        refseg("export", plain.config.store, "--out", plain.folder / "labels.json")
    )
    done(refseg("run", plain.folder / "run.yaml"))
    run, others = newest_labels(Store(plain.config.store))
    assert (run.key, run.purpose(), others) == (pilot.key, "run", 0)
    assert [len(part.images) for part in run.plans.parts()] == [3, 2]
    calls = count_calls(monkeypatch, module, "load_encoder")
    _pilot(plain, "--labeling.pred_iou_thresh", "0.1")
    assert newest_labels(Store(plain.config.store))[0].key == run.key
    assert not calls


@pytest.mark.slow
def test_the_page_shows_references_instances_by_score_and_every_image_with_its_reason(plain: Project) -> None:
    plain.write_config()
    said = _pilot(plain, "--thresholds", "0.4", "--categories", "box,bar")
    page = (plain.folder / "pilot" / "pilot.html").read_text()
    assert str(plain.folder / "pilot" / "pilot.html") in said
    assert re.findall("<h2>(.*?)</h2>", page) == ["box", "bar", "Images"]
    assert page.count("data:image/jpeg;base64,") == page.count("<img")
    text = unescape(page)
    (chosen,) = _chosen(plain)
    for image_id in chosen.image_id:
        assert re.search(rf"t{int(image_id) - 1}\.png: (un)?likely to show (box|bar) \(-?\d\.\d\d\)", text)
    rankings = re.findall(
        r"score: (?:all )?(\d+)(?: of \d+, spread over the scores)?\. \d+ of these are kept.* 0\.4\.", text
    )
    assert len(rankings) == 2
    store = Store(plain.config.store)
    for annotation_id in store.load(
        store.named(f"references/{store.manifests('references')[-1]['key']}"), References
    ).annotation_id:
        assert f"<figcaption>{annotation_id}</figcaption>" in page, "which `refseg bank --drop` takes"
    assert 'class="wrong"' in page or 'class="right"' in page or "below" in page


@pytest.mark.slow
@pytest.mark.parametrize(("path", "num_kept"), [("exact", 3), ("fast", 0)])
def test_what_models_make_of_a_pilots_images_is_kept_where_the_path_can_and_never_of_a_runs(
    path: str, num_kept: int, plain: Project
) -> None:
    plain.write_config(labeling__path=path, references__sampling__num_shots=2)
    _pilot(plain)
    store = Store(plain.config.store)
    assert len(store.manifests("proposals")) == num_kept
    _pilot(plain, "--references.sampling.num_shots", "1")
    done(refseg("run", plain.folder / "run.yaml"))
    assert len(store.manifests("proposals")) == num_kept


@pytest.mark.slow
def test_images_that_cannot_be_read_are_not_chosen(plain: Project) -> None:
    for number in range(3):
        (plain.folder / "targets" / f"t{number}.png").write_bytes(b"no image")
    plain.write_config()
    done(refseg("pilot", plain.folder / "run.yaml", "--images", "4", "--out", plain.folder / "pilot"))
    assert set(_chosen(plain)[0].image_id) == {"4", "5"}
    for number in (3, 4):
        (plain.folder / "targets" / f"t{number}.png").write_bytes(b"no image")
    result = refseg("pilot", plain.folder / "run.yaml", "--images", "5", "--out", plain.folder / "pilot")
    assert "none of 5 images can be read" in refused(result)


@pytest.mark.slow
def test_targets_without_ground_truth_have_a_page_without_verdicts(plain: Project, tmp_path: Path) -> None:
    plain.write_config(targets__annotations=None)
    _pilot(plain)
    page = (plain.folder / "pilot" / "pilot.html").read_text()
    assert not re.search('class="[a-z ]*(right|wrong)"', page)


@pytest.mark.slow
def test_a_pilot_keeps_proposals_unless_told_otherwise_and_a_run_only_when_told(plain: Project) -> None:
    plain.write_config()
    _pilot(plain, "--labeling.keep_proposals", "false")
    assert kept_status(Store(plain.config.store)) == []
    _pilot(plain, "--labeling.box_nms_thresh", "0.6")
    done(refseg("run", plain.folder / "run.yaml", "--labeling.box_nms_thresh", "0.7"))
    (kept,) = kept_status(Store(plain.config.store))
    assert (kept.num_images, kept.num_parts) == (3, 3)
    keeping = ("--labeling.box_nms_thresh", "0.8", "--labeling.keep_proposals", "true")
    done(refseg("run", plain.folder / "run.yaml", *keeping))
    (kept,) = kept_status(Store(plain.config.store))
    assert (kept.num_images, kept.num_parts) == (5, 5)


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_a_pilot_of_a_path_that_cannot_keep_proposals_keeps_none(project: Project, path: str) -> None:
    config = project.config_with({"labeling.path": path})
    assert pilot_config(config, ("1",)).labeling.keep_proposals is None


def test_what_is_not_said_of_a_choice_is_as_in_the_last_pilot() -> None:
    last = {"number": 8, "num_candidates": 100, "seed": 5}
    assert PilotWish().complete({}) == {"number": 50, "num_candidates": 200, "seed": 33}
    assert PilotWish().complete(last) == PilotWish(number=8).complete(last) == last
    assert PilotWish(number=3).complete(last) == {"number": 3, "num_candidates": 12, "seed": 5}
    assert PilotWish(num_candidates=9, seed=0).complete(last) == {"number": 8, "num_candidates": 9, "seed": 0}
    assert [PilotWish(*wish).fits(last) for wish in ((), (8,), (None, 100), (8, 100, 5))] == [True] * 4
    assert [PilotWish(*wish).fits(last) for wish in ((9,), (None, 99), (8, 100, 0))] == [False] * 3


def test_more_images_than_candidates_are_refused_before_anything_is_done() -> None:
    with pytest.raises(ConfigurationError, match="--candidates: 9 images cannot be chosen from 3 candidates"):
        PilotWish(number=9, num_candidates=3)
    with pytest.raises(ConfigurationError, match="--candidates: 8 images cannot be chosen from 1 candidate"):
        PilotWish(num_candidates=1).complete({"number": 8, "num_candidates": 100, "seed": 5})
