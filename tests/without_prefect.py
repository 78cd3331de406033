"""The pipeline without Prefect: flows and tasks as the functions that they are made from, in the flows' own order.

Runs take milliseconds then, and nothing is retried. What Prefect adds is tested in `tests/test_pipeline.py`.
"""

from collections.abc import Callable
from typing import Any

import pytest
from prefect import Flow, Task
from prefect.states import Completed, Failed

from flows import pipeline


def call_without_prefect(patch: pytest.MonkeyPatch) -> None:
    """Exchanges every flow and task of the pipeline, until the patch is undone."""
    for name, value in list(vars(pipeline).items()):
        if isinstance(value, Flow):
            patch.setattr(pipeline, name, value.fn)
        elif isinstance(value, Task):
            patch.setattr(pipeline, name, _plain(value.fn))


def _plain(task: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, return_state: bool = False, **named: Any) -> Any:
        if not return_state:
            return task(*arguments, **named)
        try:
            return Completed(data=task(*arguments, **named))
        except Exception as error:
            return Failed(data=error)

    return call
