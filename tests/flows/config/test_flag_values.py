"""Flags that are lists: variants of labeling by their names and settings, and numbers."""

import pytest

from flows.config.flag_values import parse_numbers, parse_variants
from refseg_core.errors import ConfigurationError
from refseg_core.settings import LabelingSettings

_SETTINGS = LabelingSettings(points_per_side=7)


def test_variants_are_paths_paths_with_keys_and_names_with_keys() -> None:
    given = "exact, guided:guidance_thresh=0.3,points_per_side=9,wide:path=guided,guidance_thresh=null"
    assert parse_variants(given, _SETTINGS) == {
        "exact": _SETTINGS.published_on("exact"),
        "guided:guidance_thresh=0.3,points_per_side=9": LabelingSettings(
            path="guided", guidance_thresh=0.3, points_per_side=9
        ),
        "wide": LabelingSettings(path="guided", guidance_thresh=None, points_per_side=7),
    }


def test_a_method_is_a_variant_on_its_path_and_a_key_alone_changes_the_run() -> None:
    given = "published,accurate,few:max_second_looks=3,one:path=fast,other:method=published"
    assert parse_variants(given, _SETTINGS) == {
        "published": LabelingSettings(method="published", points_per_side=7),
        "accurate": LabelingSettings(method="accurate", points_per_side=7),
        "few": LabelingSettings(method="accurate", path="guided", max_second_looks=3, points_per_side=7),
        "one": LabelingSettings(path="fast", points_per_side=7),
        "other": LabelingSettings(method="published", points_per_side=7),
    }


def test_a_path_may_be_there_several_times_with_other_keys() -> None:
    names = ["guided:guidance_thresh=0.2", "guided:guidance_thresh=0.3", "guided"]
    variants = parse_variants(",".join(names), _SETTINGS)
    assert list(variants) == names
    assert [one.guidance_thresh for one in variants.values()] == [0.2, 0.3, "auto"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "'' is neither a path or method, plain, exact"),
        ("exact,", "'' is neither a path"),
        ("quick", "'quick' is neither a path"),
        ("exact,exact", "each once; got 'exact' twice"),
        ("exact:steps=3", "'exact:steps=3': steps: no such key."),
        ("a:path=quick", "path: 'quick' is not a labeling path"),
        ("exact:points_per_side=0", "points_per_side: expected at least 1, got 0."),
        ("exact:points_per_side=[", "points_per_side: '[' cannot be read"),
    ],
)
def test_other_variants_are_refused(given: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_variants(given, _SETTINGS)
    assert expected in str(error.value)


def test_numbers_are_different_and_large_enough() -> None:
    assert parse_numbers("--seeds", "3, 1,2", 0) == [3, 1, 2]
    for given in ("1,1", "-1", "one", ""):
        with pytest.raises(ConfigurationError, match="--seeds: expected numbers of at least 0"):
            parse_numbers("--seeds", given, 0)
