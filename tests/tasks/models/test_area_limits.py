"""Limits of areas are decided by the references when labels are planned, and are in the recipe where there are any."""

from typing import Any

import numpy as np
import pytest

from refseg_core.errors import ConfigurationError
from refseg_core.masks.rle import mask_areas
from refseg_core.settings import LabelingSettings
from refseg_core.tables import References
from tasks.models.area_limits import with_areas
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import references_of
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]

_GRID: dict[str, Any] = {"method": "published", "points_per_side": 4, "pred_iou_thresh": 0, "box_nms_thresh": 1}


def _labeling(**changes: Any) -> LabelingSettings:
    return LabelingSettings.model_validate(_GRID | changes)


def _planned(steps: Steps, labeling: LabelingSettings) -> tuple[str, dict[str, Any]]:
    plan = steps.plan(steps.prototypes(), labeling=labeling)
    return plan.key, StoredLabels(steps.store, plan.key).recipe_or_error()["settings"]


def test_auto_is_what_the_references_of_each_category_cover(steps: Steps) -> None:
    prototypes = steps.prototypes()
    references = steps.store.load(references_of(steps.store, prototypes), References)
    area = with_areas(steps.store, prototypes, _labeling(area={"min": "auto", "max": "box=auto", "margin": 2})).area
    masks = references.mask_rle.tolist()
    share = dict(zip(references.category_id.tolist(), mask_areas(masks) / np.prod(masks[0].size), strict=True))
    least = dict(part.split("=") for part in str(area.min).removesuffix("%").split(","))
    assert {key: float(text.removesuffix("%")) for key, text in least.items()} == pytest.approx(
        {str(key): 50 * value for key, value in share.items()}, abs=1e-3
    )
    key, most = str(area.max).removesuffix("%").split("=")
    assert key == "3"
    assert float(most) == pytest.approx(200 * share[3], abs=1e-3)


def test_labels_are_within_limits_by_name(steps: Steps) -> None:
    found = []
    for changes in ({}, {"area": {"min": {"*": 40, "bar": "5%"}, "max": "bar=60%"}, "min_island": 4}):
        plan = steps.plan(steps.prototypes(), labeling=_labeling(**changes))
        steps.label(steps.prototypes(), plan, labeling=_labeling(**changes))
        found.append(steps.labels(plan)[0])
    everything, limited = found
    area_n = mask_areas(limited.mask_rle.tolist())
    share_n = area_n / np.array([np.prod(mask.size) for mask in limited.mask_rle])
    assert 0 < len(limited) < len(everything)
    assert (area_n[limited.category_id == 3] >= 40).all()
    assert ((share_n >= 0.05) & (share_n <= 0.6))[limited.category_id == 8].all()


def test_recipes_have_only_what_is_on(steps: Steps) -> None:
    key, settings = _planned(steps, _labeling())
    assert {"area", "min_island", "min_hole"}.isdisjoint(settings)
    same: tuple[dict[str, Any], ...] = (
        {"area": {"margin": 9}},
        {"min_island": 1, "min_hole": 1},
        {"area": {"min": {}, "max": None}},
    )
    assert {_planned(steps, _labeling(**changes))[0] for changes in same} == {key}
    other, settings = _planned(steps, _labeling(area={"min": "box=1e2"}, min_hole=5))
    assert other != key
    assert (settings["area"], settings["min_hole"]) == ({"min": "3=100", "max": None}, 5)
    assert _planned(steps, _labeling(area={"min": {"box": 100}, "margin": 7}, min_hole=5))[0] == other


def test_unknown_names_are_told_before_anything_is_labeled(steps: Steps) -> None:
    with pytest.raises(ConfigurationError, match=r"labeling.area: 'boat': no such category; .* have box, bar"):
        _planned(steps, _labeling(area={"max": "boat=10%"}))
