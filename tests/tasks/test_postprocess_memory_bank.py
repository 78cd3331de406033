"""Each category becomes one unit vector, or an error that names it; the references choose the threshold of prompts."""

import numpy as np
import pytest

from refseg_core.errors import DatasetError, StoreError
from refseg_core.references import background
from refseg_core.references.guidance_thresh import HIGHEST, LOWEST
from refseg_core.settings import LabelingSettings, SamplingSettings
from refseg_core.table_schema import Table
from refseg_core.tables import GuidanceThresholds, MemoryBank, NegativePrototypes, Prototypes, ReferenceQuality
from tasks.models import image_features
from tasks.models.background import BackgroundSource
from tasks.outputs.reference_sheets import assess, describe_negatives, draw_sheets
from tasks.postprocess_memory_bank import choose_guidance_thresh, postprocess_memory_bank
from tasks.runtime.progress import Progress, ProgressStep, listening
from tasks.storage.folder import Folder
from tasks.store.garbage import find_garbage
from tasks.store.label_store import StoredLabels
from tasks.store.store import Artifact, Recipe
from tasks.store.verify import verify_store
from tests.support.projects.project import CATEGORIES
from tests.support.projects.steps import Steps, count_calls, forbid
from tests.support.samples import table_rows

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_each_category_becomes_one_unit_vector(steps: Steps) -> None:
    references = steps.references(SamplingSettings(num_shots=2))
    artifact = postprocess_memory_bank.fn(steps.store, references, steps.fill(steps.dataset(), references))
    prototypes = steps.store.load(artifact, Prototypes)
    assert prototypes.category_id.tolist() == list(CATEGORIES)
    assert prototypes.num_references.tolist() == [2, 2]
    np.testing.assert_allclose(np.linalg.norm(prototypes.prototype, axis=1), 1, rtol=1e-5)


def test_a_category_that_lost_all_its_references_is_an_error_that_names_it(steps: Steps) -> None:
    references = steps.references()
    bank = steps.store.load(steps.fill(steps.dataset(), references), MemoryBank)
    left = steps.store.make(Recipe("test", "memory_bank", version=1), lambda: [bank[bank.category_id == 8]])
    with pytest.raises(DatasetError, match=r"\[3\]"):
        postprocess_memory_bank.fn(steps.store, references, left)


# --- the threshold of guided prompts ---------------------------------------------------------------------------------

_GUIDED = LabelingSettings(path="guided", points_per_side=3, pred_iou_thresh=0)


def _choose(steps: Steps, prototypes: Artifact) -> Artifact:
    images, models = steps.config.references.images, steps.config.models
    return choose_guidance_thresh.fn(steps.store, prototypes=prototypes, images_uri=images, models=models)


def test_a_threshold_is_chosen_once_for_prototypes(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    prototypes = steps.prototypes()
    heard: list[Progress] = []
    with listening(heard.append):
        guidance = _choose(steps, prototypes)
    chosen = steps.store.load(guidance, GuidanceThresholds)
    assert LOWEST <= chosen.thresh[0] <= HIGHEST
    chose = [one for one in heard if one.step == ProgressStep.CHOOSE_GUIDANCE]
    assert sum(one.advanced for one in chose) == chose[0].total == chosen.num_images[0] > 0
    assert steps.manifest(guidance)["inputs"] == {"prototypes": prototypes.name}
    forbid(monkeypatch, image_features, "load_encoder")
    assert _choose(steps, prototypes) == guidance


def test_of_many_reference_images_some_choose_the_threshold(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    prototypes = steps.prototypes()
    monkeypatch.setattr(image_features, "_MOST_IMAGES", 1)
    assert steps.store.load(_choose(steps, prototypes), GuidanceThresholds).num_images.tolist() == [1]


def test_an_image_is_encoded_once_for_all_thresholds_which_are_as_from_nothing(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prototypes_of(steps: Steps, ids: list[str]) -> Artifact:
        references = steps.references(ids=ids)
        return postprocess_memory_bank.fn(steps.store, references, steps.fill(steps.dataset(), references))

    _choose(steps, prototypes_of(steps, ["1", "2"]))
    calls = count_calls(monkeypatch, image_features, "_encode")
    chosen = _choose(steps, prototypes_of(steps, ["1", "2", "3"]))
    assert len(calls) == 1
    elsewhere = steps.elsewhere()
    alone = _choose(elsewhere, prototypes_of(elsewhere, ["1", "2", "3"]))
    assert len(calls) == 3
    ours, theirs = steps.store.load(chosen, GuidanceThresholds), elsewhere.store.load(alone, GuidanceThresholds)
    assert ours.equals(theirs)


@pytest.mark.slow
def test_guided_labels_are_made_with_the_threshold_that_the_references_chose(steps: Steps) -> None:
    prototypes = steps.prototypes()
    guidance = _choose(steps, prototypes)
    (thresh,) = steps.store.load(guidance, GuidanceThresholds).thresh.tolist()
    plan = steps.plan(prototypes, labeling=_GUIDED)
    recipe = StoredLabels(steps.store, plan.key).recipe_or_error()
    assert recipe["settings"]["guidance_thresh"] == thresh
    assert recipe["inputs"] == {"prototypes": prototypes.name, "guidance": guidance.name}
    steps.label(prototypes, plan, labeling=_GUIDED)
    given = _GUIDED.model_copy(update={"guidance_thresh": thresh})
    same = steps.plan(prototypes, labeling=given)
    steps.label(prototypes, same, labeling=given)
    for ours, theirs in zip(steps.labels(plan), steps.labels(same), strict=True):
        assert table_rows(ours, without=_times(ours)) == table_rows(theirs, without=_times(theirs))
    garbage = find_garbage(steps.store, min_age_hours=0)
    assert {one.name.partition("/")[0] for one in garbage} == {"image_features"}, "which only save time"


def _times(table: Table) -> list[str]:
    return [name for name in ("seconds",) if hasattr(table, name)]


@pytest.mark.slow
def test_what_was_chosen_decides_and_not_what_the_job_says(steps: Steps) -> None:
    """A job carries 'auto'; the number is in the recipe of the labels."""
    prototypes = steps.prototypes()
    nothing = _GUIDED.model_copy(update={"guidance_thresh": 1.0})
    plan = steps.plan(prototypes, labeling=nothing)
    steps.label(prototypes, plan, labeling=_GUIDED)
    assert steps.labels(plan)[1].num_prompts.tolist() == [0] * 5


def test_planning_without_a_threshold_says_how_to_choose_it(steps: Steps) -> None:
    with pytest.raises(StoreError, match=r"has no threshold for prototypes/\w+ yet.*refseg bank"):
        steps.plan(steps.prototypes(), labeling=_GUIDED)


def test_other_paths_need_no_threshold(steps: Steps) -> None:
    plan = steps.plan(steps.prototypes(), labeling=LabelingSettings(path="exact"))
    assert "guidance" not in StoredLabels(steps.store, plan.key).recipe_or_error()["inputs"]


def _with_negatives(steps: Steps, *negatives: str) -> Artifact:
    references = steps.references()
    bank = steps.fill(steps.dataset(), references)
    return postprocess_memory_bank.fn(steps.store, references, bank, dataset=steps.dataset(), negatives=negatives)


def test_negatives_are_kept_apart_from_what_is_labeled(steps: Steps) -> None:
    artifact = _with_negatives(steps, "bar")
    everything = steps.store.load(steps.prototypes(), Prototypes)
    categories, negatives = (steps.store.load(artifact, table) for table in (Prototypes, NegativePrototypes))
    assert (categories.category_id.tolist(), negatives.category_id.tolist()) == ([3], [8])
    assert categories.equals(everything[:1])
    assert negatives.prototype.tolist() == everything[1:].prototype.tolist()
    assert verify_store(steps.store).problems == []
    quality = steps.store.load(assess(steps.store, artifact), ReferenceQuality)
    assert quality.category_name.tolist() == ["box", "bar"]
    assert draw_sheets(steps.store, artifact, Folder(str(steps.project.folder / "sheets"))) == 2
    assert describe_negatives(steps.store, artifact) == "negatives: bar"


def test_a_negative_that_stands_for_itself_may_be_of_no_use(steps: Steps) -> None:
    references, dataset = steps.references(), steps.dataset()
    bank = steps.store.load(steps.fill(dataset, references), MemoryBank)
    left = steps.store.make(Recipe("test", "memory_bank", version=1), lambda: [bank[bank.category_id == 3]])
    made = postprocess_memory_bank.fn(steps.store, references, left, dataset=dataset, single_negatives=["bar"])
    categories, negatives = (steps.store.load(made, table) for table in (Prototypes, NegativePrototypes))
    assert (categories.category_id.tolist(), len(negatives)) == ([3], 0)
    assert (steps.store.manifest(made.name) or {})["settings"] == {"negatives": [8], "single_negatives": [8]}


def test_without_negatives_prototypes_are_those_of_before(steps: Steps) -> None:
    assert _with_negatives(steps) == steps.prototypes()
    assert steps.manifest(steps.prototypes())["settings"] == {}


@pytest.mark.slow
def test_negatives_are_no_labels(steps: Steps) -> None:
    labeling = LabelingSettings(method="published", points_per_side=4, pred_iou_thresh=0, box_nms_thresh=1)
    found = []
    for artifact in (steps.prototypes(), _with_negatives(steps, "bar")):
        plan = steps.plan(artifact, labeling=labeling)
        steps.label(artifact, plan, labeling=labeling)
        found.append(steps.labels(plan)[0])
    without, with_them = found
    assert set(without.category_id.tolist()) == {3, 8}
    assert set(with_them.category_id.tolist()) <= {3}
    assert len(with_them) <= (without.category_id == 3).sum()


@pytest.mark.parametrize(
    ("negatives", "says"),
    [(["plate"], "no references of plate; there are of box, bar"), (["box", "bar"], "all categories are negative")],
)
def test_negatives_that_cannot_be_are_named(steps: Steps, negatives: list[str], says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        _with_negatives(steps, *negatives)


# --- the background of reference images ------------------------------------------------------------------------------


def _with_background(steps: Steps, ids: list[str] | None = None) -> Artifact:
    references, dataset = steps.references(ids=ids), steps.dataset()
    bank = steps.fill(dataset, references)
    source = BackgroundSource(dataset, steps.config.references.images, steps.config.models)
    return postprocess_memory_bank.fn(steps.store, references, bank, dataset=dataset, background=source)


def test_the_background_of_reference_images_is_kept_apart_from_what_is_labeled(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_MOST_TAKEN", 1)  # the models, which know nothing, see everywhere the same
    plain = steps.prototypes()
    _choose(steps, plain)
    calls = count_calls(monkeypatch, image_features, "_encode")
    artifact = _with_background(steps)
    assert calls == [], "the store has the images' features from choosing a threshold"
    negatives = steps.store.load(artifact, NegativePrototypes)
    assert negatives.is_background.all()
    assert len(negatives)
    assert steps.store.load(artifact, Prototypes).equals(steps.store.load(plain, Prototypes))
    assert steps.manifest(artifact)["inputs"].keys() == {"memory_bank", "dataset"}
    assert steps.manifest(artifact)["settings"].keys() == {"background"}
    assert f"{len(negatives)} background prototype" in describe_negatives(steps.store, artifact)
    assert draw_sheets(steps.store, artifact, Folder(str(steps.project.folder / "sheets"))) == 2
    assert verify_store(steps.store).problems == []


def test_the_order_of_references_does_not_matter_to_the_background(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_MOST_TAKEN", 1)
    ours, theirs = (_with_background(steps, ids) for ids in (["1", "2", "3"], ["3", "1", "2"]))
    assert ours != theirs
    for table in (Prototypes, NegativePrototypes):
        assert steps.store.load(ours, table).equals(steps.store.load(theirs, table))
