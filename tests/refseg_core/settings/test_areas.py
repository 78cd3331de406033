"""Areas are read as people write them, and limits hold for the category that they are written for, and no other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from refseg_core.errors import ConfigurationError
from refseg_core.settings import AreaSettings, LabelingSettings
from refseg_core.settings.areas import Area, AreaLimits, parse_area

_SHARES = st.lists(st.floats(1e-4, 1), min_size=1, max_size=6)


def test_areas_are_pixels_or_shares() -> None:
    assert parse_area("100") == Area(100.0)
    assert parse_area(" 0.5% ") == Area(0.005, is_share=True)
    for text in ("", "%", "-1", "101%", "inf", "nan", "10 px"):
        with pytest.raises(ConfigurationError, match=r"expected pixels, as 100, or a share of the image, as 0\.5%"):
            parse_area(text)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (100, "100"),
        (1e2, "100"),
        (" 0.50 %", "0.5%"),
        ("auto", "auto"),
        ("window=1%, 100 ,door=auto", "100,door=auto,window=1%"),
        ({"window": "1%", "*": 100.0, "door": "auto"}, "100,door=auto,window=1%"),
        ({"a=b": 5}, "a=b=5"),
        ({}, None),
        (None, None),
    ],
)
def test_a_bound_is_written_in_one_way_however_it_is_given(given: object, written: str | None) -> None:
    area = AreaSettings.model_validate({"min": given})
    assert area.min == written
    assert AreaSettings.model_validate(area.model_dump(mode="json")) == area


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"min": "window"}, "'window' is no area"),
        ({"max": "1,2"}, "gives the others twice"),
        ({"max": "window=1,window=2"}, "gives 'window' twice"),
        ({"min": True}, "expected an area as 100, 0.5% or auto, or names with areas, got True"),
        ({"min": {"a,b": 1}}, "'a,b': names with a comma cannot have an area of their own"),
        ({"min": 100, "max": "20,window=200"}, "min is more than max for all others; got min 100, max 20,window=200"),
        ({"min": "window=2%", "max": "1%"}, "min is more than max for 'window'"),
        ({"max": "1_0"}, "'1_0' is no area"),
        ({"max": 0}, "max is 0 for all others, and every mask has more"),
        ({"max": "50%,window=0%"}, "max is 0 for 'window'"),
        ({"margin": 0.5}, "greater than or equal to 1"),
    ],
)
def test_what_is_no_bound_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LabelingSettings.model_validate({"area": given})


def test_bounds_hold_for_their_category_and_for_the_others() -> None:
    limits = AreaLimits.of("10,7=1%", "7=50%", ["3", "7"])
    areas, classes = np.array([9.0, 10, 1e9, 9, 10, 500, 501, 0]), np.array([0, 0, 0, 1, 1, 1, 1, 2])
    fits = limits.fit(areas, classes, image_pixels=1000)
    assert fits.tolist() == [False, True, True, False, True, True, False, True]


def test_limits_of_nobody_and_undecided_ones_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"labeling.area: '8': no such category"):
        AreaLimits.of("8=1", None, ["3", "7"])
    with pytest.raises(ConfigurationError, match=r"labeling.area: 'auto' needs references"):
        AreaLimits.of("auto", None, ["3"])
    with pytest.raises(ConfigurationError, match=r"labeling.area: 'boat': no such category; .* have car, window"):
        AreaSettings(max="boat=1").decided({"car": "3", "window": "7"}, {"car": [0.1], "window": [0.1]})


def test_names_become_keys_and_auto_is_what_the_references_cover() -> None:
    given = AreaSettings(min="auto,window=5", max="car=auto", margin=2)
    decided = given.decided({"car": "3", "window": "7"}, {"car": [0.1, 0.2], "window": [0.3]})
    assert decided == AreaSettings(min="3=5%,7=5", max="3=40%")


def test_without_limits_nothing_is_decided() -> None:
    assert AreaSettings().decided({"car": "3"}, {"car": [0.1]}) == AreaSettings()
    assert AreaSettings().is_off
    assert not AreaSettings(max=math.pi).is_off


@given(shares=_SHARES, data=st.data(), margin=st.floats(1, 50))
def test_references_are_within_the_limits_that_they_set_in_whatever_order(
    shares: list[float], data: st.DataObject, margin: float
) -> None:
    settings = AreaSettings(min="auto", max="auto", margin=margin)
    decided = settings.decided({"car": "3"}, {"car": shares})
    assert settings.decided({"car": "3"}, {"car": data.draw(st.permutations(shares))}) == decided
    limits, pixels = AreaLimits.of(decided.min, decided.max, ["3"]), 10**6
    areas = np.array([*shares, min(shares) / margin * 0.99 - 2e-6, max(shares) * margin * 1.01 + 2e-6]) * pixels
    fits = limits.fit(areas, np.zeros(len(areas), dtype=np.int64), image_pixels=pixels)
    assert fits[:-2].all()
    assert not fits[-2]
    assert not fits[-1] or max(shares) * margin >= 0.99
