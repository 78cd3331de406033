"""Labeling methods by name, and their parts, each of which may be set on its own."""

from dataclasses import asdict, fields, replace

import pytest
from pydantic import ValidationError

from refseg_core.settings import PART_NAMES, LabelingSettings
from refseg_core.settings.labeling_methods import LABELING_METHODS, PUBLISHED, MethodParts
from refseg_core.settings.labeling_paths import LABELING_PATHS

ACCURATE = LABELING_METHODS["accurate"].parts
OTHER = MethodParts(
    all_views=False,
    all_masks=False,
    similarity_exponent=2.0,
    quality_in_score=False,
    max_second_looks=7,
    part_penalty=0.9,
    max_refined_masks=3,
)


def test_the_published_method_has_none_of_the_parts_and_the_default_is_the_accurate_one() -> None:
    assert LabelingSettings(method="published").parts == PUBLISHED == MethodParts()
    assert LabelingSettings().parts == ACCURATE
    assert not any(asdict(PUBLISHED).values())


def test_every_part_of_the_accurate_method_differs_from_the_published() -> None:
    assert LabelingSettings(method="accurate").parts == ACCURATE
    assert [name for name in PART_NAMES if getattr(ACCURATE, name) == getattr(PUBLISHED, name)] == []


@pytest.mark.parametrize("method", LABELING_METHODS)
@pytest.mark.parametrize("name", PART_NAMES)
def test_a_part_that_is_set_takes_the_place_of_the_methods(method: str, name: str) -> None:
    """Also one that is false or 0."""
    for given in (OTHER, PUBLISHED, ACCURATE):
        settings = LabelingSettings.model_validate({"method": method, name: getattr(given, name)})
        assert settings.parts == replace(LABELING_METHODS[method].parts, **{name: getattr(given, name)})


def test_there_is_a_setting_of_the_same_name_for_every_part() -> None:
    assert [part.name for part in fields(MethodParts)] == list(PART_NAMES)
    assert set(PART_NAMES) < set(LabelingSettings.model_fields)


@pytest.mark.parametrize("path", LABELING_PATHS)
def test_the_published_method_on_a_path_keeps_the_other_settings(path: str) -> None:
    settings = LabelingSettings(
        method="accurate", points_per_side=9, max_detections=5, part_penalty=0.9, all_masks=False
    )
    assert settings.published_on(path) == LabelingSettings(path=path, points_per_side=9, max_detections=5)
    assert settings.published_on(path).parts == PUBLISHED


@pytest.mark.parametrize("path", ["plain", "fast"])
@pytest.mark.parametrize("given", [{"method": "accurate"}, *({name: getattr(ACCURATE, name)} for name in PART_NAMES)])
def test_paths_that_have_the_published_method_only_name_those_that_have_all(
    path: str, given: dict[str, object]
) -> None:
    with pytest.raises(
        ValidationError,
        match=f"'{path}' has the published method only.* take the path exact or guided, or the method 'published'",
    ):
        LabelingSettings.model_validate({"path": path, **given})


@pytest.mark.parametrize("path", LABELING_PATHS)
def test_parts_that_are_the_published_methods_go_with_every_path(path: str) -> None:
    off = {"method": "accurate", "path": path, **asdict(PUBLISHED)}
    assert LabelingSettings.model_validate(off).parts == PUBLISHED


@pytest.mark.parametrize("path", ["exact", "guided"])
def test_the_other_paths_have_all_methods(path: str) -> None:
    assert LabelingSettings(path=path, method="accurate").parts == ACCURATE


def test_an_unknown_method_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(ValidationError, match="'published' or 'accurate'"):
        LabelingSettings.model_validate({"method": "better"})
