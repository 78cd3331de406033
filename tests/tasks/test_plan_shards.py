"""Images are planned in shards; what matters makes new labels, and what does not makes none."""

from dataclasses import asdict
from itertools import combinations

import pytest

from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.settings.labeling_methods import LABELING_METHODS, PUBLISHED
from tasks.plan_shards import _deciding
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.runtime.progress import Progress, listening
from tasks.store.label_store import StoredLabels
from tasks.store.store import Artifact
from tests.support.projects.project import Project
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_targets_are_planned_in_shards_and_announced(steps: Steps) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        plan = steps.plan(steps.prototypes())
    assert [len(shard) for shard in plan.pending] == [2, 2, 1]
    assert heard[-1] == Progress("label", 0, 5)


def test_ids_of_another_annotation_file_are_told_when_images_are_planned_again(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    prototypes = steps.prototypes()
    steps.plan(prototypes)
    assert "under other ids" not in caplog.text
    listing = Steps(
        Project(steps.project.folder, steps.project.config_with({"targets.annotations": None}).model_dump())
    )
    assert sum(map(len, listing.plan(prototypes).pending)) == 5
    assert "5 of 5 images were planned before under other ids, and are labeled again" in caplog.text
    caplog.clear()
    listing.plan(prototypes)
    assert "under other ids" not in caplog.text


def test_what_matters_makes_new_labels_and_what_does_not_makes_none(steps: Steps) -> None:
    prototypes = steps.prototypes()
    key = steps.plan(prototypes).key
    assert steps.plan(prototypes, batches=BatchSettings(points_per_batch=1, images_per_shard=1)).key == key
    assert steps.plan(prototypes, labeling=LabelingSettings(method="published", points_per_side=2)).key != key
    other = postprocess_memory_bank.fn(
        steps.store,
        steps.references(ids=["1", "2"]),
        steps.fill(steps.dataset(), steps.references(ids=["1", "2"])),
    )
    if other != prototypes:
        assert steps.plan(other).key != key


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("plain", {"path": "reference"}),
        ("exact", {}),
        ("fast", {"path": "fast", "path_version": 2}),
    ],
)
@pytest.mark.slow
def test_keys_of_labels_stay_those_of_stores_that_there_are(
    steps: Steps, path: str, expected: dict[str, object]
) -> None:
    """Labels of the plain path were stored while it was called 'reference', those of the exact one before any other."""
    plan = steps.plan(steps.prototypes(), labeling=LabelingSettings(path=path))
    stored = StoredLabels(steps.store, plan.key).recipe_or_error()["settings"]
    assert {name: stored[name] for name in stored if name.startswith("path")} == expected


def _stored_settings(steps: Steps, prototypes: Artifact, labeling: LabelingSettings) -> tuple[str, dict[str, object]]:
    """The key of labels, and the settings that it is made of."""
    key = steps.plan(prototypes, labeling=labeling).key
    settings: dict[str, object] = StoredLabels(steps.store, key).recipe_or_error()["settings"]
    return key, settings


def test_labels_of_the_published_method_name_what_they_did_before_there_were_others(steps: Steps) -> None:
    off = LabelingSettings.model_validate({"method": "accurate", "path": "exact", **asdict(PUBLISHED)})
    prototypes = steps.prototypes()
    (key, settings), same = (
        _stored_settings(steps, prototypes, labeling) for labeling in (LabelingSettings(path="exact"), off)
    )
    assert same == (key, settings)
    assert settings.pop("images")
    assert settings == {
        "points_per_side": 32,
        "pred_iou_thresh": 0.4,
        "box_nms_thresh": 0.5,
        "max_detections": 100,
        "candidates_per_detection": 8,
        "max_image_pixels": 100_000_000,
    }


def test_every_method_and_every_value_of_a_part_decides_labels_of_its_own() -> None:
    accurate = asdict(LABELING_METHODS["accurate"].parts)
    given: list[dict[str, object]] = [{}, {"method": "accurate"}]
    given += [{name: value} for name, value in accurate.items()]
    given += [{"method": "accurate", name: value} for name, value in asdict(PUBLISHED).items()]
    given += [{"method": "accurate", name: 1} for name, value in accurate.items() if not isinstance(value, bool)]
    deciding = [_deciding(LabelingSettings.model_validate({"path": "exact", **each})) for each in given]
    assert len(deciding) > 2 * len(accurate)
    assert all(one != other for one, other in combinations(deciding, 2))
    assert _deciding(LabelingSettings.model_validate({"path": "exact", **accurate})) == deciding[1]


def test_labels_of_another_method_have_another_key(steps: Steps) -> None:
    prototypes = steps.prototypes()
    parts: list[dict[str, object]] = [{}, {"method": "accurate"}, {"max_refined_masks": 3}]
    given = [LabelingSettings.model_validate({"path": "exact", **one}) for one in parts]
    stored = [_stored_settings(steps, prototypes, labeling) for labeling in given]
    assert len({key for key, _ in stored}) == 3
    assert stored[1][1]["parts"] == asdict(LABELING_METHODS["accurate"].parts)
