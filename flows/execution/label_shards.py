"""The flow that labels a group of shards in one process: all shards of a run, or the group of one worker."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import cast

from prefect import flow, runtime
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows.errors import ShardsFailedError
from flows.execution.cancellation import stopping_when_cancelled
from flows.execution.concurrency_limits import holding_tag_slots
from flows.execution.names import group_name
from flows.execution.stopping import finishing_images
from refseg_core.errors import ConfigurationError, WeightsError
from tasks.label_shard import label_shard
from tasks.outputs.prefect_ui.progress import ProgressArtifact
from tasks.outputs.prefect_ui.publishing import is_shown
from tasks.runtime.cancellation import StoppedError, is_stopping, stopping_with_this
from tasks.runtime.progress import ProgressStep, report
from tasks.specs import LabelJob
from tasks.storage.retry import reason
from tasks.store.shard_plans import Shard

_AT_ONCE = 2  # while the model works on one shard, the next is read and the last is written


def _run_name() -> str:
    job, shards = runtime.flow_run.parameters["job"], runtime.flow_run.parameters["shards"]
    names = [(shard if isinstance(shard, Shard) else Shard(**shard)).name for shard in shards]
    return group_name(LabelJob.model_validate(job).images, names)


@flow(
    name="label shards",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=_AT_ONCE),  # type: ignore[arg-type]
    persist_result=False,
)
def label_shards(job: LabelJob, shards: list[Shard], elsewhere: str | None = None) -> None:
    """Labels the shards that are not labeled yet; a shard that fails does not stop the others.

    With `elsewhere`, all shards are submitted at once and the flow's task runner labels them in other processes, which
    know this run by that name.
    Raises ShardsFailedError if shards failed, and immediately an error that would stop all of them.
    """
    # A run that waits for a slot shows its progress and can be cancelled.
    with ExitStack() as around:
        for block in (stopping_with_this(), _progress(job, shards), stopping_when_cancelled(), holding_tag_slots()):
            around.enter_context(block)
        around.enter_context(finishing_images())
        reason_of: dict[Shard, str] = {}
        for shard, future in _few_at_once(job, shards, elsewhere):
            future.wait()
            if not future.state.is_completed():
                failure = cast(Exception, future.state.result(raise_on_failure=False))
                if isinstance(failure, ConfigurationError | WeightsError):
                    raise failure
                if isinstance(failure, StoppedError):
                    continue
                reason_of[shard] = reason(failure)
            elif elsewhere and not is_stopping():  # other processes do not report their progress here
                report(ProgressStep.LABEL, advanced=len(shard))
    if reason_of:
        raise ShardsFailedError.of({shard.name: why for shard, why in reason_of.items()}, len(shards))


def _progress(job: LabelJob, shards: list[Shard]) -> AbstractContextManager[object]:
    """Shows this worker's progress in the Prefect UI; without a worker the run itself shows it."""
    worker = os.environ.get("PREFECT__WORKER_NAME")
    if worker is None or not is_shown():
        return nullcontext()
    return ProgressArtifact(job.store, worker, total=sum(len(shard) for shard in shards))


def _few_at_once(
    job: LabelJob, shards: list[Shard], elsewhere: str | None
) -> Iterator[tuple[Shard, PrefectFuture[dict[str, int]]]]:
    """Yields each shard and its future, in order, with at most two of them submitted and not awaited; elsewhere, all.

    Submits no more when the work is stopped.
    """
    at_once = _AT_ONCE if elsewhere is None else len(shards)
    waiting: deque[tuple[Shard, PrefectFuture[dict[str, int]]]] = deque()
    for shard in shards:
        if is_stopping():
            break
        waiting.append((shard, label_shard.submit(job, shard, elsewhere)))
        if len(waiting) >= at_once:
            yield waiting.popleft()
    yield from waiting
