"""Images are planned in shards; what matters makes new labels, and what does not makes none."""

import pytest

from refseg_core.settings import BatchSettings, LabelingSettings
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.runtime.progress import Progress, listening
from tasks.store.label_store import StoredLabels
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_targets_are_planned_in_shards_and_announced(steps: Steps) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        plan = steps.plan(steps.prototypes())
    assert [len(shard) for shard in plan.pending] == [2, 2, 1]
    assert heard[-1] == Progress("label", 0, 5)


def test_what_matters_makes_new_labels_and_what_does_not_makes_none(steps: Steps) -> None:
    prototypes = steps.prototypes()
    key = steps.plan(prototypes).key
    assert steps.plan(prototypes, batches=BatchSettings(points_per_batch=1, images_per_shard=1)).key == key
    assert steps.plan(prototypes, labeling=LabelingSettings(points_per_side=2)).key != key
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
def test_keys_of_labels_stay_those_of_stores_that_there_are(
    steps: Steps, path: str, expected: dict[str, object]
) -> None:
    """Labels of the plain path were stored while it was called 'reference', those of the exact one before any other."""
    plan = steps.plan(steps.prototypes(), labeling=LabelingSettings(path=path))
    stored = StoredLabels(steps.store, plan.key).recipe_or_error()["settings"]
    assert {name: stored[name] for name in stored if name.startswith("path")} == expected
