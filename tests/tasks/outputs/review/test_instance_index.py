"""The index knows every instance of the labels, and reads masks only of what is shown."""

import numpy as np
import pytest

from refseg_core.analysis.decisions import instance_ids
from refseg_core.errors import StoreError
from refseg_core.tables import Detections
from tasks.outputs.review.instance_index import other_labels
from tasks.outputs.review.pictures import ReviewPictures, bounds_around
from tasks.store.garbage import find_garbage, remove
from tests.support.projects.reviewable import Reviewable

pytest_plugins = ["tests.support.projects.reviewable_project"]


def test_every_instance_is_there_once_with_what_is_known_of_it(reviewable: Reviewable) -> None:
    index = reviewable.index()
    stored = Detections.concatenate([found for found, _ in reviewable.run.read(reviewable.images())])
    assert index.instances.identity == instance_ids(stored)
    assert np.array_equal(index.instances.score, stored.score.astype(np.float64))
    assert np.array_equal(index.instances.box_xyxy, stored.box_xyxy)
    assert [image.rows for image in index.images] == [range(7 * one, 7 * one + 7) for one in range(5)]
    assert index.detections(range(7, 14)).equals(stored[7:14])
    assert index.detection(12).equals(stored[12:13])
    assert len(index.detections(range(3, 3))) == 0


@pytest.mark.slow
def test_an_instance_that_labels_hold_twice_is_there_once_with_its_best_score(reviewable: Reviewable) -> None:
    twice, once = reviewable.twice(), reviewable.index()
    assert sum(len(found) for found, _ in twice.run.read(twice.images())) == 2 * len(once)
    index = twice.index()
    assert index.instances.identity == once.instances.identity
    assert index.instances.score.tolist() == once.instances.score.tolist()
    assert all(index.detection(row).equals(once.detection(row)) for row in range(len(once)))


def test_thresholds_and_sizes_of_references_are_those_of_the_category(reviewable: Reviewable) -> None:
    instances = reviewable.index(0.4).instances
    assert set(instances.thresh) == {0.4}
    sides = {3: 40.0, 8: (36 * 60) ** 0.5}
    expected = [sides[category] for category in instances.category.tolist()]
    assert instances.reference_side[:, 0] == pytest.approx(expected, rel=0.03)
    assert not instances.is_lacking.any()


def test_what_other_labels_of_the_images_lack_is_known(reviewable: Reviewable) -> None:
    steps = reviewable.steps
    prototypes = steps.prototypes()
    other = steps.plan(prototypes, labeling=steps.config.labeling.model_copy(update={"points_per_side": 2}))
    run, shard = type(reviewable.run)(steps.store, other.key), other.pending[0]
    found, labeled = reviewable.run.read_shard(shard) or (Detections.empty(), None)
    assert labeled is not None
    run.commit(shard, found[found.score > 0.6], labeled)
    assert other_labels(reviewable.run) is not None
    lacking = reviewable.index().instances
    expected = [bool(score < 0.6 and row < 14) for row, score in enumerate(lacking.score)]
    # A part of an object lies on another place than the whole, the rival on that of another category.
    assert lacking.is_lacking.tolist() == expected


def test_labels_that_were_removed_meanwhile_are_told(reviewable: Reviewable) -> None:
    index = reviewable.index()
    garbage = find_garbage(reviewable.steps.store, min_age_hours=0, labels=[reviewable.run.key])
    remove(reviewable.steps.store, garbage)
    with pytest.raises(StoreError, match="were removed meanwhile"):
        index.detection(0)


def test_pictures_are_of_the_image_and_of_the_surroundings_of_instances(reviewable: Reviewable) -> None:
    index = reviewable.index()
    pictures = ReviewPictures(index)
    assert pictures.pixels(0).shape == (96, 128, 3)
    assert pictures.image(0).startswith(b"\xff\xd8")
    assert pictures.crop(0) != pictures.crop(1)
    assert pictures.reference(0).startswith(b"\xff\xd8")
    left, top, right, bottom = bounds_around((12, 14, 52, 54), (96, 128))
    assert (left, top, right - left, bottom - top) == (0, 0, 68, 68)
