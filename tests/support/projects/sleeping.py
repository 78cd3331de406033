"""The flow that workers run, with a model that sleeps: for measuring what is not the model.

    REFSEG_TEST_SECONDS_PER_IMAGE=0.02    how long it sleeps for each image; it finds nothing

Deployed as `tests.support.projects.sleeping.label_shards` instead of `flows.execution.label_shards.label_shards`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np
import numpy.typing as npt

from flows.execution.label_shards import label_shards
from refseg_core.labeling.image_labels import ImageLabels
from refseg_core.tables import Detections
from tasks import label_shard as label_module
from tasks.specs import LabelJob

__all__ = ["label_shards"]

SECONDS_VARIABLE = "REFSEG_TEST_SECONDS_PER_IMAGE"
_one_at_a_time = Lock()


class SleepingLabeler:
    """Takes its time and finds nothing."""

    images_per_batch = 1
    seconds_slept = 0.0
    first_at: float | None = None  # when the first image began and the last one ended
    last_at = 0.0

    def to_frame(self, image_HW3: npt.NDArray[np.uint8]) -> "SleepingLabeler":
        return self

    def find(self, images: list["SleepingLabeler"]) -> list["SleepingLabeler"]:
        started = time.perf_counter()
        time.sleep(float(os.environ[SECONDS_VARIABLE]) * len(images))
        SleepingLabeler.first_at = SleepingLabeler.first_at or started
        SleepingLabeler.last_at = time.perf_counter()
        SleepingLabeler.seconds_slept += SleepingLabeler.last_at - started
        return images

    def labels(self, image_id: str) -> ImageLabels:
        return ImageLabels(Detections.empty(), 0, 0, 0.0)


@contextmanager
def _borrowed(_: LabelJob) -> Iterator[SleepingLabeler]:
    with _one_at_a_time:
        yield SleepingLabeler()


label_module.borrowed_labeler = _borrowed  # type: ignore[assignment]
