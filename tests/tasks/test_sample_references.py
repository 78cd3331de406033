"""References are sampled, or taken as named, and their key follows what matters."""

import json

import pytest

from refseg_core.errors import DatasetError
from refseg_core.settings import SamplingSettings
from refseg_core.tables import References
from tests.support.projects.project import CATEGORIES
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_one_reference_of_each_category_is_sampled(steps: Steps) -> None:
    references = steps.store.load(steps.references(), References)
    assert references.category_id.tolist() == list(CATEGORIES)
    assert references.mask_source.tolist() == ["dataset", "dataset"]
    assert all(rle is not None for rle in references.mask_rle)


def test_other_settings_sample_another_set_and_the_same_the_same(steps: Steps) -> None:
    one = steps.references()
    assert steps.references() == one
    two = steps.references(SamplingSettings(num_shots=2))
    assert two.num_rows == {"references": 4}
    assert steps.references(SamplingSettings(seed=1)) != one


def test_named_annotations_are_taken_instead(steps: Steps) -> None:
    artifact = steps.references(ids=["4", "1"])
    references = steps.store.load(artifact, References)
    assert references.annotation_id.tolist() == ["4", "1"]
    assert steps.manifest(artifact)["settings"] == {"annotation_ids": ["4", "1"]}
    with pytest.raises(DatasetError, match="99"):
        steps.references(ids=["99"])


def test_sampled_references_keep_the_key_they_had_before_there_was_a_choice(steps: Steps) -> None:
    sampled = steps.references()
    assert steps.manifest(sampled)["settings"] == {
        "split": None,
        "categories": None,
        "num_shots": 1,
        "seed": 33,
        "on_shortage": "error",
    }
    assert steps.references(conventions="original") == sampled
    assert steps.references(ids=["4"], conventions="original") == steps.references(ids=["4"])


def test_all_annotations_become_references_whose_key_follows_what_matters(steps: Steps) -> None:
    every = SamplingSettings(selection="all")
    two, three, boxes = (
        every.model_copy(update=change) for change in ({"num_shots": 2}, {"num_shots": 3}, {"categories": ("box",)})
    )
    corrected = steps.references(every)
    assert corrected.num_rows == {"references": 4}
    assert steps.references(two) == steps.references(every.model_copy(update={"seed": 1})) == corrected
    keys = [reference.key for reference in (corrected, steps.references(boxes))]
    keys += [steps.references(settings, conventions="original").key for settings in (two, three)]
    assert len(set(keys)) == 4


def test_categories_without_a_valid_annotation_are_told_where_there_may_be_fewer(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    file = steps.project.folder / "references.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 9, "name": "dog"})
    file.write_text(json.dumps(content))
    for _ in range(2):  # also where they are sampled already
        caplog.clear()
        assert steps.references(SamplingSettings(on_shortage="fewer")).num_rows == {"references": 2}
        assert caplog.messages == ["References: left out, without a valid annotation: dog (1 category)"]
    caplog.clear()
    steps.references(SamplingSettings(on_shortage="fewer", categories=("box", "bar")))
    assert caplog.messages == []
