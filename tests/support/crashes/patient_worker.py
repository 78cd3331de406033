"""For Dask's workers to load first: each labels two images, and waits with the next ones until its run is stopped."""

import time
from typing import Any

from refseg_core.labeling.batch_labeler import BatchLabeler
from tasks.runtime.cancellation import is_stopping

_NUM_AT_ONCE = 2
_MOST_SECONDS = 300.0


def dask_setup(_: object) -> None:
    """Called by Dask with the worker, in its process."""
    encode, num_begun = BatchLabeler.encode, 0

    def patient(labeler: BatchLabeler, frames: Any) -> Any:
        nonlocal num_begun
        num_begun += len(frames)
        deadline = time.monotonic() + _MOST_SECONDS
        while num_begun > _NUM_AT_ONCE and not is_stopping() and time.monotonic() < deadline:
            time.sleep(0.01)
        return encode(labeler, frames)

    BatchLabeler.encode = patient  # type: ignore[method-assign]
