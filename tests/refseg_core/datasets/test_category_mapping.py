"""References and targets that number the same categories differently."""

import json

import pytest

from refseg_core.datasets.category_mapping import matching_ids, numbered_as, numbered_otherwise
from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError
from refseg_core.tables import Categories


def dataset_of(names: dict[int, str]) -> Dataset:
    """A dataset with a box of each category, in the order of their ids."""
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": number, "bbox": [0, 0, number + 1, 5]} for number in names
        ],
        "categories": [{"id": number, "name": name, "frequency": "r"} for number, name in names.items()],
    }
    return parse_coco(json.dumps(document).encode(), source="x")


def categories_of(names: dict[int, str]) -> Categories:
    return dataset_of(names).categories


@pytest.mark.parametrize(
    ("references", "targets", "expected"),
    [
        ({1: "boat"}, {1: "boat", 2: "bird"}, {1: 1, 2: 2}),
        ({1: "boat"}, {2: "boat"}, {2: 1}),
        ({1: "boat", 7: "cat"}, {1: "boat", 2: "bird"}, {1: 1, 2: 2}),
        ({3: "box", 8: "bar"}, {0: "bar", 3: "other", 4: "box"}, {0: 8, 3: 9, 4: 3}),
        ({1: "bird", 2: "boat", 3: "cat"}, {1: "boat", 2: "cat"}, {1: 2, 2: 3}),
        ({0: "boat", 1: "bird"}, {0: "bird", 1: "boat"}, {0: 1, 1: 0}),
    ],
)
def test_ids_match_where_they_agree_and_names_do_elsewhere(
    references: dict[int, str], targets: dict[int, str], expected: dict[int, int]
) -> None:
    assert matching_ids(categories_of(references), categories_of(targets)) == expected


def test_where_neither_says_what_is_the_same_the_conflicts_are_named() -> None:
    with pytest.raises(DatasetError, match="1 is 'boat' in the references and 'bird' in the targets") as caught:
        matching_ids(categories_of({1: "boat", 2: "aeroplane"}), categories_of({1: "bird", 2: "boat"}))
    assert "classes.txt" in str(caught.value)


def test_categories_that_are_numbered_otherwise_are_told_with_both_numbers() -> None:
    odd = numbered_otherwise(categories_of({0: "boat", 1: "bird"}), categories_of({0: "cat", 4: "bird", 9: "boat"}))
    assert odd is not None
    assert "matched by name" in odd.what
    assert odd.count == 2
    assert odd.examples == (
        "bird: 1 in the references, 4 in the targets",
        "boat: 0 in the references, 9 in the targets",
    )
    assert numbered_otherwise(categories_of({1: "boat"}), categories_of({1: "boat", 2: "bird"})) is None


def test_all_tables_have_the_references_ids() -> None:
    references, targets = categories_of({3: "box", 8: "bar"}), dataset_of({0: "bar", 4: "box"})
    numbered = numbered_as(references, targets)
    assert numbered.annotations.category_id.tolist() == [8, 3]
    assert numbered.categories.category_id.tolist() == [3, 8]
    assert numbered.categories.name.tolist() == ["box", "bar"]
    assert numbered.categories.class_index.tolist() == [0, 1]


def test_targets_that_agree_are_left_as_they_are() -> None:
    targets = dataset_of({1: "boat"})
    assert numbered_as(categories_of({1: "boat", 2: "bird"}), targets) is targets
