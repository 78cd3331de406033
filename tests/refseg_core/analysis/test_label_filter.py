"""One filter says which labels are kept, by score, category and size, and says it in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.analysis.label_filter import (
    LabelFilter,
    ScoreThresholds,
    parse_thresholds,
    thresholds_from,
)
from refseg_core.errors import ConfigurationError
from refseg_core.masks.rle import encode_masks
from refseg_core.settings.areas import Area
from refseg_core.tables import Categories, Detections
from tests.support.oracles.evaluation_cases import detections_of

_NAMES = {1: "car", 2: "window", 5: "boat"}
_CATEGORIES = Categories(
    category_id=np.array(list(_NAMES)),
    class_index=np.arange(3, dtype=np.int32),
    name=np.array(list(_NAMES.values()), dtype=object),
    frequency=np.array([None] * 3, dtype=object),
)


def _detections(rows: list[tuple[int, float, int]]) -> Detections:
    """A detection for each category, score and area in pixels, of images of 100 pixels."""
    masks = np.arange(100)[None] < np.array([area for *_, area in rows])[:, None]
    rles = encode_masks(masks.reshape(-1, 10, 10))
    return detections_of(
        [
            (str(row), category, score, (0.0, 0.0, 10.0, 10.0), rle)
            for row, ((category, score, _), rle) in enumerate(zip(rows, rles, strict=True))
        ]
    )


_ROWS = st.lists(st.tuples(st.sampled_from(list(_NAMES)), st.integers(1, 20), st.integers(0, 100)), max_size=30)
_FILTERS = st.builds(
    LabelFilter,
    st.builds(
        ScoreThresholds,
        st.integers(0, 20).map(lambda n: n / 20),
        st.dictionaries(st.sampled_from(list(_NAMES.values())), st.integers(0, 20).map(lambda n: n / 20)),
    ),
    st.none() | st.sampled_from([("car",), ("boat", "window")]),
    st.none() | st.builds(Area, st.integers(0, 100)) | st.builds(Area, st.sampled_from([0.1, 0.5]), st.just(True)),
    st.none() | st.builds(Area, st.integers(0, 100)) | st.builds(Area, st.sampled_from([0.1, 0.5]), st.just(True)),
)


@settings(max_examples=100)
@given(rows=_ROWS, kept=_FILTERS)
def test_what_is_kept_is_what_each_label_by_itself_deserves(
    rows: list[tuple[int, int, int]], kept: LabelFilter
) -> None:
    found = kept.keep(_detections([(category, score / 20, area) for category, score, area in rows]), _CATEGORIES)

    def limit(area: Area | None, without: float) -> float:
        return without if area is None else area.amount * (100 if area.is_share else 1)

    expected = [
        score / 20 >= kept.thresholds.by_name.get(_NAMES[category], kept.thresholds.others)
        and (kept.categories is None or _NAMES[category] in kept.categories)
        and limit(kept.min_area, 0) <= area <= limit(kept.max_area, 100)
        for category, score, area in rows
    ]
    assert found.tolist() == expected


def test_a_threshold_that_is_a_score_keeps_the_label_that_has_it() -> None:
    scores = np.random.default_rng(0).random(1000).astype(np.float32)
    for score in scores.tolist():
        (kept,) = LabelFilter(ScoreThresholds(score)).keep(_detections([(1, score, 1)]), _CATEGORIES)
        assert kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.4", ScoreThresholds(0.4)),
        ("car=0.39,window=0.26", ScoreThresholds(0.5, {"car": 0.39, "window": 0.26})),
        ("0.4, car = 0.39", ScoreThresholds(0.4, {"car": 0.39})),
        ("*=0.1,a=b=1", ScoreThresholds(0.1, {"a=b": 1.0})),
    ],
)
def test_thresholds_are_read_as_they_are_written(text: str, expected: ScoreThresholds) -> None:
    assert parse_thresholds(text, 0.5) == expected


@pytest.mark.parametrize("text", ["", "car", "car=", "car=2", "-0.1", "nan", "0.4,0.5", "car=0.1,car=0.2", "0_1"])
def test_other_thresholds_are_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"car=0\.39,window=0.26|give each once"):
        parse_thresholds(text, 0.5)


def test_a_mapping_of_thresholds_names_its_place_and_all_that_is_wrong_in_it() -> None:
    assert thresholds_from({"*": 0, "car": 1}, "file", 0.5) == ScoreThresholds(0.0, {"car": 1.0})
    assert thresholds_from({"car": "0.5"}, "file", 0.4) == ScoreThresholds(0.4, {"car": 0.5})
    with pytest.raises(ConfigurationError, match=r"^file: .* got car=True, window=high"):
        thresholds_from({"car": True, "window": "high", "boat": 0.5}, "file", 0.5)


def test_a_file_that_holds_other_things_is_not_printed_whole() -> None:
    content = {"store": "runs/boats", "references": {"images": "x" * 4000}, **{str(key): None for key in range(99)}}
    with pytest.raises(ConfigurationError) as caught:
        thresholds_from(content, "--thresholds run.yaml", 0.5)
    assert "got store=runs/boats, references={'images': 'xxx" in str(caught.value)
    assert "and 97 more" in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigurationError) as caught:
        parse_thresholds("car=0.3," * 500, 0.5)
    assert len(str(caught.value)) < 300


def test_a_filter_says_in_words_what_it_keeps() -> None:
    assert LabelFilter().describe() == "all labels"
    chosen = LabelFilter(
        ScoreThresholds(0.5, {"car": 0.39}, "saved in thresholds/ab"),
        ("car", "boat"),
        Area(100),
        Area(0.5, is_share=True),
    )
    assert chosen.describe() == (
        "a score of at least 0.39 (car), 0.5 (others), saved in thresholds/ab; only car, boat; an area of at least "
        "100 px and at most 50 % of the image"
    )


def test_unknown_categories_are_named_with_the_known_ones() -> None:
    LabelFilter(ScoreThresholds(0.5, {"car": 0.1}), ("boat",)).check(_CATEGORIES)
    with pytest.raises(ConfigurationError, match=r"'bird', 'cat': no such category; .* car, window, boat"):
        LabelFilter(ScoreThresholds(0.5, {"cat": 0.1}), ("boat", "bird")).check(_CATEGORIES)
