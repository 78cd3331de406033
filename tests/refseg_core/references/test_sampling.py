"""References are drawn as published: who is valid, how many, in which order, and what if there are too few."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.errors import ConfigurationError, DatasetError
from refseg_core.images import WHITE
from refseg_core.masks.rle import encode_masks
from refseg_core.references.sampling import sample_references, select_references, wanted_categories
from refseg_core.settings import Conventions, SamplingSettings
from refseg_core.tables import Annotations, Categories, Images, References

_VALID_BOX = (10, 10, 40, 40)
_WIDTH, _HEIGHT = 200, 100


class Ann(NamedTuple):
    """One annotation, valid unless a test says otherwise."""

    category: int
    image: str
    box: tuple[float, float, float, float] = _VALID_BOX
    crowd: bool = False
    impossible: bool = False


class Dataset(NamedTuple):
    images: Images
    annotations: Annotations
    categories: Categories


def _dataset(
    annotations: Sequence[Ann], names: dict[int, str] | None = None, frequencies: dict[int, str] | None = None
) -> Dataset:
    image_ids = sorted({ann.image for ann in annotations}) or ["alone"]
    category_ids = sorted(names or {ann.category for ann in annotations})
    images: dict[str, Any] = {
        "image_id": image_ids,
        "has_integer_id": [True] * len(image_ids),
        "file_name": [f"folder/{image_id}.jpg" for image_id in image_ids],
        "height": [_HEIGHT] * len(image_ids),
        "width": [_WIDTH] * len(image_ids),
        "size": [-1] * len(image_ids),
        "version": [""] * len(image_ids),
        "frame": [""] * len(image_ids),
        "white": [WHITE] * len(image_ids),
    }
    instances: dict[str, Any] = {
        "annotation_id": [str(row) for row in range(len(annotations))],
        "image_id": [ann.image for ann in annotations],
        "category_id": [ann.category for ann in annotations],
        "box_xywh": [ann.box for ann in annotations],
        "area": [1.0] * len(annotations),
        "mask_rle": [None] * len(annotations),
        "is_crowd": [ann.crowd for ann in annotations],
        "is_impossible": [ann.impossible for ann in annotations],
    }
    categories: dict[str, Any] = {
        "category_id": category_ids,
        "class_index": range(len(category_ids)),
        "name": [(names or {}).get(category_id, f"name-{category_id}") for category_id in category_ids],
        "frequency": [(frequencies or {}).get(category_id) for category_id in category_ids],
    }
    return Dataset(Images(**images), Annotations(**instances), Categories(**categories))


def _sample(dataset: Dataset, **chosen: object) -> References:
    return sample_references(*dataset, SamplingSettings.model_validate(chosen))


def _all(dataset: Dataset, conventions: Conventions = "corrected", **chosen: object) -> References:
    settings = SamplingSettings.model_validate({"selection": "all", **chosen})
    return sample_references(*dataset, settings, conventions=conventions)


def _is_valid(box: tuple[float, float, float, float] = _VALID_BOX, *, crowd: bool = False) -> bool:
    return len(_sample(_dataset([Ann(1, "a", box, crowd=crowd), Ann(2, "b")]), on_shortage="fewer")) == 2


@pytest.mark.parametrize(
    ("box", "valid"),
    [
        ((10, 10, 32, 32), True),
        ((10, 10, 31.99, 32), False),
        ((10, 10, 32, 31.99), False),
        ((9.99, 10, 50, 50), False),
        ((10, 9.99, 50, 50), False),
        ((10, 10, _WIDTH - 20, _HEIGHT - 20), True),
        ((10, 10, _WIDTH - 19.99, 50), False),
        ((10, 10, 50, _HEIGHT - 19.99), False),
        ((150, 10, 40, 40), True),
        ((150.5, 10, 40, 40), False),
        ((10, 50.5, 40, 40), False),
    ],
)
def test_a_reference_is_32_px_large_and_10_px_from_every_border(
    box: tuple[float, float, float, float], valid: bool
) -> None:
    assert _is_valid(box) == valid


def test_crowds_are_no_references() -> None:
    assert not _is_valid(crowd=True)


def test_annotations_barred_by_the_file_do_not_even_take_part_in_the_shuffle() -> None:
    usable = [Ann(1, f"image-{row}") for row in range(20)]
    barred = [Ann(1, f"barred-{row}", impossible=True) for row in range(7)]
    without = _sample(_dataset(usable), num_shots=20)
    with_barred = _sample(_dataset([*usable, *barred]), num_shots=20)
    assert with_barred.image_id.tolist() == without.image_id.tolist()


def test_invalid_annotations_take_part_in_the_shuffle() -> None:
    """The published sets depend on it: filtering first gives others."""
    rows = list(range(40))
    annotations = [Ann(1, f"image-{row}", crowd=row % 3 == 0) for row in rows]
    random.Random(5).shuffle(rows)
    expected = [str(row) for row in rows if row % 3][:6]
    assert _sample(_dataset(annotations), num_shots=6, seed=5).annotation_id.tolist() == expected


def test_one_image_serves_a_category_once_but_several_categories() -> None:
    annotations = [Ann(category, image) for image in "ab" for category in (1, 1, 1, 2, 2, 2)]
    references = _sample(_dataset(annotations), num_shots=2)
    assert references.category_id.tolist() == [1, 1, 2, 2]
    assert sorted(references.image_id[:2]) == sorted(references.image_id[2:]) == ["a", "b"]


@st.composite
def _datasets(draw: st.DrawFn) -> Dataset:
    rows = draw(st.lists(st.tuples(st.sampled_from((7, 3, 90)), st.integers(0, 9), st.booleans()), min_size=12))
    annotations = [Ann(category, f"image-{image}", crowd=crowd) for category, image, crowd in rows]
    return _dataset([*annotations, Ann(3, "extra"), Ann(7, "extra"), Ann(90, "extra")])


@settings(max_examples=30)
@given(_datasets(), st.integers(0, 1000), st.integers(1, 5), st.integers(1, 5))
def test_fewer_shots_are_a_prefix_of_more(dataset: Dataset, seed: int, few: int, extra: int) -> None:
    small = _sample(dataset, num_shots=few, seed=seed, on_shortage="fewer")
    large = _sample(dataset, num_shots=few + extra, seed=seed, on_shortage="fewer")
    assert large[large.shot < few].equals(small)


@settings(max_examples=30)
@given(_datasets(), st.integers(0, 1000), st.integers(1, 5))
def test_what_is_sampled_is_valid_and_in_order(dataset: Dataset, seed: int, num_shots: int) -> None:
    references = _sample(dataset, num_shots=num_shots, seed=seed, on_shortage="fewer")
    rows = references.annotation_id.astype(int)
    assert not dataset.annotations.is_crowd[rows].any()
    assert (dataset.annotations.category_id[rows] == references.category_id).all()
    pairs = list(zip(references.category_id.tolist(), references.image_id, strict=True))
    assert len(pairs) == len(set(pairs))
    by_appearance = list(dict.fromkeys(dataset.annotations.category_id.tolist()))
    assert list(dict.fromkeys(references.category_id.tolist())) == by_appearance
    for category_id in by_appearance:
        of_category = references.shot[references.category_id == category_id]
        assert of_category.tolist() == list(range(len(of_category)))
        assert len(of_category) <= num_shots


def test_other_seeds_give_other_references() -> None:
    dataset = _dataset([Ann(1, f"image-{row}") for row in range(50)])
    sets = [tuple(_sample(dataset, num_shots=5, seed=seed).image_id) for seed in range(5)]
    assert len(set(sets)) == 5
    assert sets[3] == tuple(_sample(dataset, num_shots=5, seed=3).image_id)


def test_sampling_leaves_the_global_generator_alone() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    _sample(_dataset([Ann(1, "a"), Ann(1, "b")]))
    assert random.random() == expected


def test_names_do_not_matter_only_which_categories_are_wanted() -> None:
    annotations = [Ann(row % 3, f"image-{row}") for row in range(60)]
    plain = _sample(_dataset(annotations, {0: "a", 1: "b", 2: "c"}), num_shots=4)
    renamed = _sample(_dataset(annotations, {0: "c", 1: "a", 2: "b"}), num_shots=4)
    assert plain.equals(renamed)
    named = _dataset(annotations, {0: "a", 1: "b", 2: "c"})
    assert _sample(named, num_shots=4, categories=["c", "a"]).equals(_sample(named, num_shots=4, categories=["a", "c"]))


def test_a_reference_carries_what_later_steps_need() -> None:
    dataset = _dataset([Ann(5, "a", (10.5, 12.25, 40.5, 33)), Ann(5, "b")])
    mask_rle = dataset.annotations.mask_rle.copy()
    mask_rle[1] = encode_masks(np.ones((1, _HEIGHT, _WIDTH), dtype=bool))[0]
    annotations = dataset.annotations.replace(mask_rle=mask_rle)
    references = select_references(dataset.images, annotations, ["0", "1"])
    assert references.file_name.tolist() == ["folder/a.jpg", "folder/b.jpg"]
    np.testing.assert_array_equal(references.box_xyxy[0], [10.5, 12.25, 51, 45.25])
    assert references.mask_rle.tolist() == mask_rle.tolist()
    assert references.mask_source.tolist() == ["none", "dataset"]
    assert references.mask_score.tolist() == [None, None]


_SCARCE = [Ann(1, "a"), Ann(1, "b"), Ann(1, "c"), Ann(2, "a"), Ann(2, "a"), Ann(3, "a", crowd=True)]
_NAMES = {1: "boat", 2: "bird", 3: "buoy", 4: "beacon"}


def test_too_few_references_are_an_error_that_names_every_short_category() -> None:
    with pytest.raises(DatasetError) as error:
        _sample(_dataset(_SCARCE, _NAMES), num_shots=2)
    message = str(error.value)
    assert "3 of 4 categories" in message
    assert "bird (1), buoy (0), beacon (0)" in message
    assert "boat" not in message
    assert "on_shortage" in message


def test_fewer_takes_what_there_is() -> None:
    references = _sample(_dataset(_SCARCE, _NAMES), num_shots=2, on_shortage="fewer")
    assert references.category_id.tolist() == [1, 1, 2]


def test_nothing_at_all_is_an_error_even_where_fewer_would_do() -> None:
    for on_shortage in ("fewer", "repeat"):
        with pytest.raises(DatasetError, match="none of 1 wanted category"):
            _sample(_dataset([], {4: "beacon"}), on_shortage=on_shortage)
    with pytest.raises(DatasetError, match="none of 1 wanted category"):
        _sample(_dataset([Ann(3, "a", crowd=True)]), on_shortage="fewer")


def test_repeating_cycles_through_what_was_taken() -> None:
    references = _sample(_dataset([Ann(1, image) for image in "abc"]), num_shots=8, on_shortage="repeat")
    first = references.annotation_id[:3].tolist()
    assert sorted(first) == ["0", "1", "2"]
    assert references.annotation_id.tolist() == (first * 3)[:8]
    assert references.shot.tolist() == list(range(8))


def test_repeating_falls_back_to_invalid_annotations_only_without_a_valid_one() -> None:
    mixed = [Ann(1, "a", crowd=True), Ann(1, "b"), Ann(1, "c", crowd=True)]
    assert _sample(_dataset(mixed), num_shots=3, on_shortage="repeat").annotation_id.tolist() == ["1"] * 3
    rows = [0, 1, 2, 3]
    random.Random(33).shuffle(rows)
    invalid = [Ann(1, "a", crowd=True)] * 4  # here even one image may serve twice
    fallen_back = _sample(_dataset(invalid), num_shots=3, on_shortage="repeat")
    assert fallen_back.annotation_id.tolist() == [str(row) for row in rows[:3]]


def _lvis() -> Dataset:
    annotations = [Ann(row % 4, f"image-{row}") for row in range(80)]
    return _dataset(annotations, {0: "ant", 1: "bee", 2: "cow", 3: "doe"}, {0: "r", 1: "c", 2: "f", 3: "r"})


def test_lvis_splits_take_categories_by_their_frequency() -> None:
    for split, expected in (
        ("lvis", {0, 1, 2, 3}),
        ("lvis_rare", {0, 3}),
        ("lvis_common", {1}),
        ("lvis_frequent", {2}),
    ):
        assert set(_sample(_lvis(), split=split, num_shots=3).category_id.tolist()) == expected


def test_lvis_subsets_share_their_references_with_the_full_split() -> None:
    full = _sample(_lvis(), split="lvis", num_shots=3)
    rare = _sample(_lvis(), split="lvis_rare", num_shots=3)
    narrowed = _sample(_lvis(), split="lvis", categories=["cow"], num_shots=3)
    assert rare.equals(full[np.isin(full.category_id, [0, 3])])
    assert narrowed.equals(full[full.category_id == 2])


def test_other_splits_draw_anew() -> None:
    annotations = [Ann(row % 2, f"image-{row}") for row in range(100)]
    dataset = _dataset(annotations, {0: "giraffe", 1: "boat"})
    both = _sample(dataset, split="coco", num_shots=5)
    few_shot = _sample(dataset, split="few_shot_classes", num_shots=5)
    assert few_shot.category_id.tolist() == [1] * 5
    assert few_shot.image_id.tolist() != both[both.category_id == 1].image_id.tolist()


# Files that hold the references only: image a has three instances of category 7, and the second of them is a crowd.
_K_SHOT = [
    Ann(7, "a", (0, 0, 5, 5)),
    Ann(3, "a"),
    Ann(7, "b"),
    Ann(7, "a", crowd=True),
    Ann(7, "a"),
    Ann(3, "c", impossible=True),
]
_K_SHOT_NAMES = {3: "eel", 7: "ray"}


def test_all_are_taken_by_first_appearance_of_the_category_then_in_file_order() -> None:
    references = _all(_dataset(_K_SHOT, _K_SHOT_NAMES))
    assert references.annotation_id.tolist() == ["0", "2", "4", "1"]
    assert references.category_id.tolist() == [7, 7, 7, 3]
    assert references.shot.tolist() == [0, 1, 2, 0]


@settings(max_examples=30)
@given(_datasets(), st.integers(0, 1000), st.integers(1, 5))
def test_all_are_all_but_crowds_whatever_the_seed_and_the_number(dataset: Dataset, seed: int, num_shots: int) -> None:
    references = _all(dataset, seed=seed, num_shots=num_shots)
    expected = dataset.annotations.annotation_id[~dataset.annotations.is_crowd]
    assert sorted(references.annotation_id) == sorted(expected)
    assert references.equals(_all(dataset))


@pytest.mark.parametrize("conventions", ["corrected", "original"])
def test_all_are_those_of_the_wanted_categories(conventions: Conventions) -> None:
    dataset = _dataset([Ann(row % 2, f"image-{row}") for row in range(9)], {0: "giraffe", 1: "boat"})
    everything = _all(dataset, conventions, num_shots=8)
    boats = everything[everything.category_id == 1]
    assert _all(dataset, conventions, num_shots=8, categories=["boat"]).equals(boats)
    assert _all(dataset, conventions, num_shots=8, split="few_shot_classes").equals(boats)


def test_originally_the_instances_of_an_image_are_copies_of_its_first() -> None:
    references = _all(_dataset(_K_SHOT, _K_SHOT_NAMES), "original", num_shots=3, categories=["ray"])
    assert references.annotation_id.tolist() == ["0", "0", "2"]
    assert references.shot.tolist() == [0, 1, 2]


def test_originally_what_lacks_is_drawn_from_the_copies_with_a_seed_of_its_own() -> None:
    annotations = [Ann(1, "a"), Ann(2, "a"), Ann(1, "b"), Ann(1, "b"), Ann(2, "c")]
    generator = random.Random(42)
    ones, twos = ["0", "2", "2"], ["1", "4"]
    ones += [generator.choice(ones[:3]) for _ in range(5)]
    twos += [generator.choice(twos[:2]) for _ in range(6)]
    for seed in (1, 2):
        assert _all(_dataset(annotations), "original", num_shots=8, seed=seed).annotation_id.tolist() == ones + twos


def test_originally_more_than_the_shots_are_an_error_that_names_every_such_category() -> None:
    annotations = [*[Ann(1, "a")] * 3, Ann(2, "a"), Ann(2, "b"), Ann(3, "a"), *[Ann(4, "a")] * 4]
    dataset = _dataset(annotations, {1: "ant", 2: "bee", 3: "cow", 4: "doe"})
    with pytest.raises(DatasetError) as error:
        _all(dataset, "original", num_shots=2)
    assert "2 of 4 categories with more than 2 annotations: ant (3), doe (4)" in str(error.value)
    assert "num_shots" in str(error.value)
    assert len(_all(dataset, "original", num_shots=2, categories=["bee", "cow"])) == 4
    assert len(_all(dataset)) == 10


@pytest.mark.parametrize("conventions", ["corrected", "original"])
def test_categories_without_any_annotation_are_named_or_left_out(conventions: Conventions) -> None:
    dataset = _dataset([Ann(1, "a"), Ann(3, "a", crowd=True)], {1: "boat", 3: "buoy", 4: "beacon"})
    with pytest.raises(DatasetError, match=r"2 of 3 categories without an annotation.*: buoy, beacon\..*'fewer'"):
        _all(dataset, conventions)
    for on_shortage in ("fewer", "repeat"):
        assert _all(dataset, conventions, on_shortage=on_shortage).category_id.tolist() == [1]
        with pytest.raises(DatasetError, match="none of 2 wanted categories"):
            _all(dataset, conventions, on_shortage=on_shortage, categories=["buoy", "beacon"])


def test_sampled_references_are_the_same_in_both_conventions() -> None:
    dataset = _dataset([Ann(row % 3, f"image-{row}") for row in range(60)])
    chosen = SamplingSettings(num_shots=4)
    original = sample_references(*dataset, chosen, conventions="original")
    assert original.equals(sample_references(*dataset, chosen))


def test_wanted_categories_come_by_id_whatever_the_order_of_the_names() -> None:
    dataset = _dataset([], {9: "boat", 16: "bird", 20: "sheep"})
    wanted = wanted_categories(dataset.categories, SamplingSettings(categories=("sheep", "boat")))
    assert wanted.category_id.tolist() == [9, 20]
    within = SamplingSettings(split="pascal_voc_split_3", categories=("bird", "boat"))
    assert wanted_categories(dataset.categories, within).name.tolist() == ["boat"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"split": "cocoa"}, r"split: 'cocoa' is not known; expected one of coco, .*lvis_rare"),
        ({"categories": ["boat", "bota", "brid"]}, r"categories: bota, brid not in the annotations.*boat, bird"),
        ({"split": "pascal_voc_split_1", "categories": ["boat"]}, r"'pascal_voc_split_1'.*leave no category"),
        ({"split": "lvis_rare"}, r"'lvis_rare'.*leave no category"),
    ],
)
def test_what_the_dataset_does_not_have_is_named(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _sample(_dataset([Ann(1, "a"), Ann(2, "a")], {1: "boat", 2: "bird"}), **chosen)


def test_selected_annotations_keep_their_order_and_count_shots() -> None:
    dataset = _dataset([Ann(1, "a", crowd=True), Ann(2, "a"), Ann(1, "b", (0, 0, 3, 3)), Ann(1, "a")])
    references = select_references(dataset.images, dataset.annotations, ["2", "1", "0"])
    assert references.annotation_id.tolist() == ["2", "1", "0"]
    assert references.category_id.tolist() == [1, 2, 1]
    assert references.shot.tolist() == [0, 0, 1]


def test_selected_annotations_that_are_absent_or_repeated_are_all_named() -> None:
    dataset = _dataset([Ann(1, "a"), Ann(1, "b")])
    with pytest.raises(DatasetError) as error:
        select_references(dataset.images, dataset.annotations, ["12", "1", "99", "1"])
    assert "not in the annotations: ['12', '99']; given twice: ['1']" in str(error.value)
