"""The pipeline without Prefect: flows and tasks as the functions that they are made from, in the flows' own order.

Runs take milliseconds then, nothing is retried and nothing is shown. What Prefect adds is tested in
`tests/flows/test_pipeline.py`.
"""

from collections.abc import Callable
from typing import Any

import pytest
from prefect import Flow, State, Task
from prefect.states import Completed, Failed

from flows import pipeline
from flows.execution import engines, label_shards


def call_without_prefect(patch: pytest.MonkeyPatch) -> None:
    """Exchanges every flow and task of the pipeline, until the patch is undone."""
    for module in (pipeline, engines, label_shards):
        for name, value in list(vars(module).items()):
            if isinstance(value, Flow):
                patch.setattr(module, name, value.fn)
            elif isinstance(value, Task):
                patch.setattr(module, name, _Plain(value.fn))
            elif name == "is_shown":
                patch.setattr(module, name, lambda: False)


class _Plain:
    """A task that is a function; what is submitted is done at once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.fn = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.fn(*arguments, **named)

    def submit(self, *arguments: Any, **named: Any) -> "_Ended":
        try:
            return _Ended(Completed(data=self.fn(*arguments, **named)))
        except Exception as error:
            return _Ended(Failed(data=error))


class _Ended:
    """A task's run that has ended."""

    def __init__(self, state: State[Any]) -> None:
        self.state = state

    def wait(self) -> None:
        """There is nothing to wait for."""
