"""Settings carry the paper's numbers, say what each is for, and refuse what makes no sense."""

from typing import Any

import pytest
from pydantic import ValidationError

from refseg_core import settings as module
from refseg_core.settings import BatchSettings, LabelingSettings, ReferenceSettings, SamplingSettings, Settings

ALL = [
    value
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Settings) and value is not Settings
]


@pytest.mark.parametrize("model", ALL)
def test_every_field_is_described_and_has_a_default(model: type[Settings]) -> None:
    assert model()
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} has no description"
        assert field.description.endswith("."), f"{model.__name__}.{name}: {field.description}"


@pytest.mark.parametrize("model", ALL)
def test_every_number_has_bounds_from_which_forms_are_drawn(model: type[Settings]) -> None:
    for name, schema in model.model_json_schema()["properties"].items():
        if schema.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & schema.keys(), f"{model.__name__}.{name}"


@pytest.mark.parametrize("model", ALL)
def test_unknown_keys_are_refused_by_name(model: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="pionts_per_side"):
        model.model_validate({"pionts_per_side": 32})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LabelingSettings().max_detections = 3  # type: ignore[misc]


def test_defaults_are_the_papers() -> None:
    labeling = LabelingSettings()
    assert labeling.points_per_side**2 == 1024
    assert (labeling.pred_iou_thresh, labeling.box_nms_thresh) == (0.4, 0.5)
    assert labeling.max_detections == 100
    assert labeling.candidates_per_detection * labeling.max_detections == 800
    assert ReferenceSettings().context_ratio == 0.2


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (LabelingSettings, {"points_per_side": 0}),
        (LabelingSettings, {"points_per_side": 32.5}),
        (LabelingSettings, {"pred_iou_thresh": 1.01}),
        (LabelingSettings, {"pred_iou_thresh": float("nan")}),
        (LabelingSettings, {"box_nms_thresh": -0.1}),
        (LabelingSettings, {"max_detections": 0}),
        (BatchSettings, {"points_per_batch": 0}),
        (BatchSettings, {"images_per_shard": 0}),
        (SamplingSettings, {"num_shots": 0}),
        (SamplingSettings, {"on_shortage": "ignore"}),
        (SamplingSettings, {"selection": "given"}),
        (SamplingSettings, {"categories": "boat"}),
        (ReferenceSettings, {"context_ratio": float("inf")}),
    ],
)
def test_values_that_make_no_sense_are_refused(model: type[Settings], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        model.model_validate(values)


@pytest.mark.parametrize(
    ("given", "method", "path"),
    [
        ({}, "accurate", "guided"),
        ({"points_per_side": 8}, "accurate", "guided"),
        ({"path": "exact"}, "published", "exact"),
        ({"path": "turbo"}, "published", "guided"),
        ({"method": "published"}, "published", "exact"),
        ({"method": "accurate"}, "accurate", "guided"),
        ({"method": "accurate", "path": "exact"}, "accurate", "exact"),
    ],
)
def test_what_is_given_alone_decides_the_other(given: dict[str, object], method: str, path: str) -> None:
    labeling = LabelingSettings.model_validate(given)
    assert (labeling.method, labeling.path) == (method, path)
    assert labeling.is_by_default == (not {"method", "path"} & given.keys())
    assert LabelingSettings.model_validate(labeling.model_dump()) == labeling
