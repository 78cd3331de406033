"""The retries of Prefect tasks: a few, with pauses that grow, and none for an error that no retry can help."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from refseg_core.errors import RefsegError
from tasks.runtime.cancellation import StoppedError

P = ParamSpec("P")
R = TypeVar("R")

_RETRIES = 3
_FIRST_DELAY_SECONDS = 2
_JITTER = 0.5


def retried_task(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Returns a decorator for Prefect tasks whose runs have this name and are retried with exponential backoff.

    Prefect caches none of its results: the store alone says what is done.
    """
    return task(
        task_run_name=run_name,
        retries=_RETRIES,
        retry_delay_seconds=exponential_backoff(backoff_factor=_FIRST_DELAY_SECONDS),
        retry_jitter_factor=_JITTER,
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Returns whether a failed task is retried: all errors but our own may be transient."""
    failure = state.result(raise_on_failure=False)
    return not isinstance(failure, RefsegError | StoppedError)
