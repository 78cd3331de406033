"""What is wrong with settings is said in words of refseg's own, a line for each key."""

from typing import Any

import pytest
from pydantic import ValidationError

from refseg_core.settings import BatchSettings, LabelingSettings, SamplingSettings, Settings
from refseg_core.settings.problems import problems_of


def _problems(settings: type[Settings], **values: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        settings.model_validate(values)
    return problems_of(caught.value, [*settings.model_fields])


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        (LabelingSettings, {"points_per_side": 0}, "points_per_side: expected at least 1, got 0."),
        (LabelingSettings, {"points_per_side": 257}, "points_per_side: expected at most 256, got 257."),
        (LabelingSettings, {"points_per_side": "many"}, "points_per_side: expected a whole number, got 'many'."),
        (LabelingSettings, {"pred_iou_thresh": [1]}, "pred_iou_thresh: expected a number, got [1]."),
        (LabelingSettings, {"guidance_thresh": "low"}, "guidance_thresh: expected a number or 'auto', got 'low'."),
        (LabelingSettings, {"guidance_thresh": 2}, "guidance_thresh: expected at most 1 or 'auto', got 2."),
        (SamplingSettings, {"categories": "boat"}, "categories: expected a list, got 'boat'."),
        (SamplingSettings, {"split": 7}, "split: expected text, got 7."),
        (SamplingSettings, {"num_shot": 1}, "num_shot: no such key. Did you mean num_shots?"),
        (
            SamplingSettings,
            {"on_shortage": "eror"},
            "on_shortage: expected 'error', 'fewer' or 'repeat', got 'eror'. Did you mean error?",
        ),
    ],
)
def test_a_problem_names_the_key_what_is_expected_and_what_came(
    settings: type[Settings], values: dict[str, Any], expected: str
) -> None:
    assert _problems(settings, **values) == [expected]


def test_own_checks_say_what_they_say() -> None:
    (problem,) = _problems(LabelingSettings, path="quick")
    assert problem.startswith("path: 'quick' is not a labeling path; expected one of plain")


def _numbers() -> list[tuple[type[Settings], str]]:
    kinds = (LabelingSettings, SamplingSettings, BatchSettings)
    return [
        (kind, name)
        for kind in kinds
        for name, field in kind.model_fields.items()
        if {int, float} & {field.annotation, *getattr(field.annotation, "__args__", ())}
        or "float" in str(field.annotation)
    ]


@pytest.mark.parametrize(("settings", "name"), _numbers(), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_no_numbers(settings: type[Settings], name: str, value: bool) -> None:
    assert _problems(settings, **{name: value}) == [f"{name}: expected a number, got {value}."]


def test_where_true_is_meant_it_is_taken() -> None:
    assert LabelingSettings(all_views=True).all_views is True


def test_a_value_is_short_whatever_it_holds() -> None:
    (problem,) = _problems(LabelingSettings, points_per_side="x" * 10_000)
    assert len(problem) < 300
