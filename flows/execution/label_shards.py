"""Labels a group of shards in one process: all of them, or those that were handed to one worker."""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from prefect import flow, runtime
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows.errors import ShardsFailedError
from flows.execution.cancellation import heeding_cancellation
from flows.execution.concurrency_limits import slots_of_tags
from refseg_core.errors import ConfigurationError, WeightsError
from tasks.label_shard import ShardSummary, label_shard
from tasks.outputs.prefect_ui.progress import ProgressArtifact
from tasks.outputs.prefect_ui.publishing import is_shown
from tasks.runtime.cancellation import stopping_with_this
from tasks.runtime.progress import report
from tasks.specs import LabelJob
from tasks.storage.retry import reason
from tasks.storage.uris import last_name
from tasks.store.shard_plans import Shard

_AT_ONCE = 2  # while the model works on one shard, the next one is read and the one before is written
_NAMES_SHOWN = 8


def _run_name() -> str:
    job, shards = runtime.flow_run.parameters["job"], runtime.flow_run.parameters["shards"]
    return group_name(LabelJob.model_validate(job), [_shard(shard) for shard in shards])


def _shard(value: Any) -> Shard:
    return value if isinstance(value, Shard) else Shard(**value)


def group_name(job: LabelJob, shards: list[Shard]) -> str:
    """What a run over these shards is called: label boats 0000-00012 to 0000-00043."""
    place = last_name(job.images) or "images"
    numbers = [shard.name for shard in shards]
    return f"label {place} {' to '.join(dict.fromkeys([*numbers[:1], *numbers[-1:]])) or 'nothing'}"


@flow(
    name="label shards",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=_AT_ONCE),  # type: ignore[arg-type]
    persist_result=False,
)
def label_shards(job: LabelJob, shards: list[Shard], elsewhere: bool = False) -> None:
    """Labels the shards, each unless it is labeled already. One that fails does not stop the others.

    With `elsewhere` the flow's task runner has them labeled in other processes, as many at once as these are.
    Raises ShardsFailedError where some failed, and at once what would stop all of them.
    """
    # Who waits for a slot is not lost, and may be cancelled.
    with stopping_with_this(), _progress(job, shards), heeding_cancellation(), slots_of_tags():
        reason_of: dict[Shard, str] = {}
        for shard, future in _few_at_once(job, shards, len(shards) if elsewhere else _AT_ONCE):
            future.wait()
            if not future.state.is_completed():
                failure = cast(Exception, future.state.result(raise_on_failure=False))
                if isinstance(failure, ConfigurationError | WeightsError):
                    raise failure
                reason_of[shard] = reason(failure)
            elif elsewhere:  # what those processes report is not heard in this one
                report("label", advanced=len(shard))
    if reason_of:
        raise shards_failed(reason_of, len(shards))


def shards_failed(reason_of: Mapping[Shard, str], num_shards: int) -> ShardsFailedError:
    """The error that names some of the shards that failed, and why the first of them did."""
    named = {shard.name: why for shard, why in reason_of.items()}
    return ShardsFailedError(
        f"{len(named)} of {num_shards} shards could not be labeled: {', '.join(list(named)[:_NAMES_SHOWN])}. "
        f"The first: {next(iter(named.values()))}. What is labeled is kept; the same command goes on from there.",
        named,
    )


def _progress(job: LabelJob, shards: list[Shard]) -> AbstractContextManager[object]:
    """Tells the Prefect UI how far this worker is; without a worker the run itself tells it."""
    worker = os.environ.get("PREFECT__WORKER_NAME")
    if worker is None or not is_shown():
        return nullcontext()
    return ProgressArtifact(job.store, worker, total=sum(len(shard) for shard in shards))


def _few_at_once(
    job: LabelJob, shards: list[Shard], at_once: int
) -> Iterator[tuple[Shard, PrefectFuture[ShardSummary]]]:
    """Each shard and its labeling to come, in order; only few are begun before the caller has awaited the first."""
    waiting: deque[tuple[Shard, PrefectFuture[ShardSummary]]] = deque()
    for shard in shards:
        waiting.append((shard, label_shard.submit(job, shard)))
        if len(waiting) >= at_once:
            yield waiting.popleft()
    yield from waiting
