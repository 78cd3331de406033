"""The published category sets: their sizes and how they relate."""

import pytest

from refseg_core.settings.splits import COCO_CATEGORIES, LVIS_FREQUENCIES, SPLIT_NAMES, split_categories

_NAMED = [split for split in SPLIT_NAMES if split not in LVIS_FREQUENCIES]
_VOC = {
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
}


@pytest.mark.parametrize("split", _NAMED)
def test_no_split_names_a_category_twice(split: str) -> None:
    assert len(set(split_categories(split))) == len(split_categories(split))


def test_coco_has_eighty_categories_under_both_of_its_names() -> None:
    assert len(COCO_CATEGORIES) == 80
    assert split_categories("coco") == split_categories("default_classes") == COCO_CATEGORIES


def test_few_shot_classes_are_the_twenty_that_coco_shares_with_voc() -> None:
    few_shot = set(split_categories("few_shot_classes"))
    assert len(few_shot) == 20
    assert few_shot < set(COCO_CATEGORIES)
    renamed = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "tv": "tvmonitor"}
    assert {renamed.get(name, name.replace(" ", "")) for name in few_shot} == {name.replace(" ", "") for name in _VOC}


def test_the_semantic_folds_deal_coco_out_in_turn() -> None:
    folds = [split_categories(f"coco_semantic_split_{fold}") for fold in (1, 2, 3, 4)]
    assert [name for names in zip(*folds, strict=True) for name in names] == list(COCO_CATEGORIES)


def test_voc_splits_have_five_of_vocs_own_names() -> None:
    for number in (1, 2, 3):
        names = set(split_categories(f"pascal_voc_split_{number}"))
        assert len(names) == 5
        assert names < _VOC


def test_lvis_has_its_three_frequency_groups_and_all_of_them() -> None:
    assert LVIS_FREQUENCIES == {"lvis": None, "lvis_rare": "r", "lvis_common": "c", "lvis_frequent": "f"}
    assert set(LVIS_FREQUENCIES) < set(SPLIT_NAMES)
