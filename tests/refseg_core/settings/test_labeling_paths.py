"""Labeling paths by name, also by the name that one had before."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from refseg_core.settings import LabelingSettings
from refseg_core.settings.labeling_paths import LABELING_PATHS


def test_a_former_name_stands_for_the_path_and_a_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settings = LabelingSettings.model_validate({"path": "reference"})
    assert settings == LabelingSettings(path="plain")
    assert [record.message for record in caplog.records] == [
        "The labeling path 'reference' is now called 'plain'; its labels are the same."
    ]


def test_turbo_stands_for_guided_which_replaces_it_and_a_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settings = LabelingSettings.model_validate({"path": "turbo"})
    assert settings == LabelingSettings(path="guided")
    assert [record.message for record in caplog.records] == [
        "The labeling path 'turbo' is replaced by 'guided', whose labels are its own."
    ]


@pytest.mark.parametrize("name", ["quick", "", None, 3, ["exact"]])
def test_an_unknown_path_is_refused_with_all_that_there_are(name: object) -> None:
    with pytest.raises(ValidationError, match="expected one of plain, exact, fast, guided"):
        LabelingSettings.model_validate({"path": name})


def test_forms_offer_the_paths_and_say_what_each_is_for() -> None:
    schema = LabelingSettings.model_json_schema()["properties"]["path"]
    assert schema["enum"] == list(LABELING_PATHS)
    assert all(f"'{path.name}': {path.help}" in schema["description"] for path in LABELING_PATHS.values())


@pytest.mark.parametrize("path", LABELING_PATHS)
def test_the_guide_to_speed_describes_every_path(path: str) -> None:
    guide = Path(__file__).parents[3] / "deployments" / "guides" / "speed.md"
    assert f"| `{path}` |" in guide.read_text("utf-8")
