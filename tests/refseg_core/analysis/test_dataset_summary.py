"""The overview of a dataset: what it counts, and what it finds odd."""

import json
from typing import Any

import pytest

from refseg_core.analysis.dataset_summary import find_oddities, overview, pick_images
from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset, dataset_of_files
from refseg_core.datasets.oddities import Oddity

SQUARE = [10, 10, 40, 10, 40, 40, 10, 40]


def dataset_of(*annotations: dict[str, Any], names: tuple[str, ...] = ("boat", "bird"), num_images: int = 1) -> Dataset:
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 60} for number in range(num_images)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    listed = [
        {"id": number, "image_id": 0, "category_id": 1, "bbox": [10, 10, 30, 30], **annotation}
        for number, annotation in enumerate(annotations)
    ]
    document = {"images": images, "annotations": listed, "categories": categories}
    return parse_coco(json.dumps(document).encode(), source="x")


def oddity(dataset: Dataset, what: str, **options: Any) -> Oddity | None:
    return next((one for one in find_oddities(dataset, **options) if what in one.what), None)


BIRD = {"category_id": 2, "bbox": [50, 10, 20, 10]}


def test_it_counts_images_annotations_and_categories() -> None:
    crowd = {"iscrowd": 1, "bbox": [0, 0, 90, 50]}
    seen = overview(dataset_of({"segmentation": [SQUARE]}, BIRD, {"image_id": 1, **BIRD}, crowd, num_images=2))
    assert (seen.num_images, seen.num_masks, seen.num_boxes_only, seen.num_crowds) == (2, 1, 2, 1)
    assert seen.sizes == ((100, 60),) * 3
    boat, bird = seen.categories
    assert (boat.name, boat.num_instances, boat.num_images, boat.num_masks) == ("boat", 2, 1, 1)
    assert boat.median_size == (60, 40)
    assert (bird.name, bird.num_instances, bird.num_images, bird.median_size) == ("bird", 2, 2, (20, 10))


def test_a_plain_dataset_has_nothing_odd() -> None:
    assert find_oddities(dataset_of({}, BIRD)) == []
    large = {"bbox": [20, 12, 40, 35]}
    assert find_oddities(dataset_of(large, BIRD | large), num_shots=1) == []


def test_annotations_that_cannot_be_sampled_are_counted_and_short_categories_named() -> None:
    large, border = {"bbox": [20, 12, 40, 35]}, {"bbox": [5, 12, 40, 35]}
    dataset = dataset_of(large, large, border, BIRD, {"iscrowd": 1})
    boat, bird = overview(dataset, num_shots=1).categories
    assert (boat.num_valid, boat.num_small, boat.num_at_border) == (2, 0, 1)
    assert (bird.num_valid, bird.num_small, bird.num_at_border) == (0, 1, 0)
    what = "fewer images of valid annotations (not a crowd, sides of 32 px, 10 px from the borders) than num_shots"
    one, two = (oddity(dataset, what, num_shots=number) for number in (1, 2))
    assert one is not None
    assert one.examples == ("bird: 0 images with valid ones; of 1 annotation too small: 1, too near to a border: 0",)
    assert two is not None
    assert two.examples[0].startswith("boat: 1 image with valid ones; of 3 annotations")


def test_a_listing_without_annotations_has_nothing_odd() -> None:
    seen = overview(dataset_of_files(["a.jpg"], [1], ["1"]), num_shots=3)
    assert seen.oddities == seen.categories == seen.sizes == ()


@pytest.mark.parametrize(
    ("dataset", "what", "example"),
    [
        (dataset_of({}), "categories without annotations", "bird"),
        (dataset_of({}, BIRD, num_images=2), "images without annotations", "1.jpg"),
        (dataset_of(BIRD, {"bbox": [80, 0, 30, 20]}), "reach outside", "annotation 1 in image 0"),
        (dataset_of(BIRD, {"bbox": [-5, 0, 30, 20]}), "reach outside", "annotation 1 in image 0"),
        (dataset_of(BIRD, {"bbox": [5, 0, 30, 7]}), "side under 8 px", "[5.0, 0.0, 30.0, 7.0]"),
        (dataset_of(BIRD, {}, {}), "twice in one category", "annotation 2 in image 0"),
        (dataset_of(BIRD, {"segmentation": [[1, 1, 1, 1, 1, 1]]}), "masks without a pixel", "annotation 1"),
        (dataset_of({}, BIRD, names=("boat", "Boat ")), "differ only by", "'boat' and 'Boat '"),
        (dataset_of({}, BIRD, names=("life_boat", "life-boat")), "differ only by", "'life_boat' and 'life-boat'"),
    ],
)
def test_what_is_odd_is_found_with_an_example(dataset: Dataset, what: str, example: str) -> None:
    found = oddity(dataset, what)
    assert found is not None
    assert found.count == 1
    assert example in found.examples[0]


def test_a_box_may_reach_a_pixel_beyond_its_image() -> None:
    assert oddity(dataset_of({"bbox": [-0.5, 0, 101, 60]}, BIRD), "reach outside") is None


def test_the_same_box_in_other_categories_or_images_is_not_repeated() -> None:
    dataset = dataset_of({}, {"category_id": 2}, {"image_id": 1}, num_images=2)
    assert oddity(dataset, "twice") is None


def test_categories_with_too_few_for_their_shots_are_named_with_how_many_they_have() -> None:
    dataset = dataset_of({}, {"bbox": [1, 1, 20, 20]}, BIRD, {**BIRD, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    found = oddity(dataset, "fewer annotations than num_shots (2)", num_shots=2)
    assert found is not None
    assert found.examples == ("bird (1)",)
    assert oddity(dataset, "fewer") is None


def test_of_many_the_first_few_are_shown() -> None:
    found = oddity(dataset_of(*[{}] * 10, BIRD), "twice")
    assert found is not None
    assert found.count == 9
    assert len(found.examples) == 3


def test_images_without_a_size_are_named() -> None:
    document = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "boat"}]}
    document["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 900, 900]}]
    dataset = parse_coco(json.dumps(document).encode(), source="x")
    assert [one.what for one in find_oddities(dataset)] == ["images whose size nothing declares"]


def test_images_that_show_new_categories_are_picked_first() -> None:
    rows = [{"image_id": number} for number in range(4)] + [{"image_id": 3, "category_id": 2}]
    dataset = dataset_of(*rows, num_images=6)
    assert pick_images(dataset, 2).image_id.tolist() == ["0", "3"]
    assert pick_images(dataset, 9).image_id.tolist() == ["0", "1", "2", "3"]
