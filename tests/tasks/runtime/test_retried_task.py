"""Faults of the world are retried with growing delays; errors of our own never are."""

from itertools import pairwise
from typing import cast

import pytest
from botocore.exceptions import EndpointConnectionError
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from refseg_core.errors import (
    ConfigurationError,
    DatasetError,
    ImageError,
    RefsegError,
    StoreError,
    WeightsError,
)
from tasks.evaluate import evaluate
from tasks.fill_memory_bank import fill_memory_bank
from tasks.index_dataset import index_dataset
from tasks.label_shard import label_shard
from tasks.plan_shards import plan_shards
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.runtime.retried_task import is_transient, retried_task
from tasks.sample_references import sample_references
from tasks.segment_references import segment_references

TASKS = [
    evaluate,
    fill_memory_bank,
    index_dataset,
    label_shard,
    plan_shards,
    postprocess_memory_bank,
    sample_references,
    segment_references,
]


@retried_task("double {number}")
def _double(number: int) -> int:
    """Doubles."""
    return 2 * number


def _is_retried(error: Exception) -> bool:
    return is_transient(_double, cast(TaskRun, None), Failed(data=error))


@pytest.mark.parametrize(
    "error",
    [
        OSError("connection reset"),
        TimeoutError("slow"),
        ConnectionError("gone"),
        RuntimeError("CUDA out of memory"),
        EndpointConnectionError(endpoint_url="http://nowhere"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_faults_of_the_world_are_retried(error: Exception) -> None:
    assert _is_retried(error)


@pytest.mark.parametrize("kind", [RefsegError, ConfigurationError, DatasetError, ImageError, StoreError, WeightsError])
def test_errors_of_our_own_are_permanent(kind: type[RefsegError]) -> None:
    assert not _is_retried(kind("wrong"))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_is_retried_ever_later_with_jitter(task: Task[..., object]) -> None:
    assert task.retries == 3
    delays = task.retry_delay_seconds
    assert isinstance(delays, list)
    assert all(later >= 2 * earlier for earlier, later in pairwise(delays))
    assert task.retry_jitter_factor
    assert task.retry_condition_fn is is_transient


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_prefect_stores_nothing_of_a_task_since_the_store_says_what_is_done(task: Task[..., object]) -> None:
    assert task.cache_policy == NO_CACHE
    assert task.persist_result is False
    assert task.result_storage is None


def test_a_task_is_still_an_ordinary_function() -> None:
    assert _double.fn(21) == 42
    assert _double.__doc__ == "Doubles."
    assert _double.task_run_name == "double {number}"
