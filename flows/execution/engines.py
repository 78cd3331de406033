"""Where shards are labeled: in this process, by workers of the Prefect server, or on a Dask cluster."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event
from uuid import uuid4

from prefect.client.orchestration import get_client

from flows.config.run_config import ExecutionConfig, RunConfig
from flows.errors import BankFailedError
from flows.execution import stopping
from flows.execution.gpu_workers import GpuPool
from flows.execution.label_shards import label_shards
from flows.execution.names import BUILD_BANK
from flows.execution.run_monitor import run_on_worker
from flows.execution.scheduler import Scheduler
from flows.execution.stopping import handled_by_this_process, once_stopping
from refseg_core.errors import ConfigurationError
from tasks.models.loading import num_gpus
from tasks.runtime.cancellation import request_stop_of, save_finished_of, stopping_with_this
from tasks.specs import LabelJob
from tasks.storage.retry import reason
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import Shard
from tasks.store.store import Store

log = logging.getLogger(__name__)

_BANK_ATTEMPTS = 3
_LOOK_SECONDS = 0.2


def label_with(execution: ExecutionConfig, job: LabelJob, shards: Sequence[Shard]) -> None:
    """Labels the shards. Raises ShardsFailedError if some could not be labeled."""
    if not shards:
        return
    if execution.engine == "workers":
        labels = StoredLabels(Store(job.store), job.key)
        with get_client(sync_client=True) as client:
            Scheduler(job, labels, GpuPool(client), execution, labels.seconds_per_image()).label(shards)
    elif execution.engine == "dask":
        _label_with_dask(execution, job, shards)
    else:
        label_shards(job, list(shards))


def _label_with_dask(execution: ExecutionConfig, job: LabelJob, shards: Sequence[Shard]) -> None:
    try:
        import dask
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise ConfigurationError("execution.engine: 'dask' needs more packages: pip install 'refseg[dask]'.") from error
    run = uuid4().hex
    with (
        stopping_with_this(),
        _dask_cluster(execution.dask_address) as address,
        once_stopping(partial(_tell_to_stop, address, run), "stopping on Dask"),
    ):
        label = label_shards.with_options(task_runner=DaskTaskRunner(address=address))
        with dask.annotate(resources={"GPU": 1}):
            label(job, list(shards), elsewhere=run)


@contextmanager
def _dask_cluster(address: str | None) -> Iterator[str]:
    """Yields the address of a cluster: the given one, or one of this machine's GPUs that exists within the block."""
    if address is not None:
        yield address
        return
    from distributed import LocalCluster

    with handled_by_this_process():
        cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=max(1, num_gpus()), threads_per_worker=1, resources={"GPU": 1}
        )
    with cluster:
        yield cluster.scheduler_address


def _tell_to_stop(address: str, run: str, left: Event) -> None:
    """Tells the cluster's workers again and again, since some may join; others that cannot be told are not ours.

    Where their images take long, what else is finished is saved in the meantime.
    """
    from distributed import Client

    began, is_saved = time.monotonic(), False
    try:
        with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            while not left.wait(_LOOK_SECONDS):
                client.run(request_stop_of, run, on_error="ignore")
                if not is_saved and time.monotonic() - began > stopping.IMAGE_SECONDS:
                    client.run(save_finished_of, run, on_error="ignore")  # what cannot be saved yet is after its image
                    is_saved = True
    except OSError as error:
        log.warning("The Dask cluster cannot be told to stop: %s", reason(error))


def build_bank_with_workers(config: RunConfig) -> None:
    """Builds the bank on a GPU worker, which leaves it in the store. Raises BankFailedError if no worker can."""
    here = config.model_copy(update={"execution": ExecutionConfig()})
    with get_client(sync_client=True) as client:
        pool = GpuPool(client)
        for attempt in range(_BANK_ATTEMPTS):
            parameters = {"config": here.model_dump(mode="json")}
            start = partial(pool.start, BUILD_BANK, "build bank", parameters, token=f"bank {attempt}", tags=())
            watch = run_on_worker(start, pool, config.execution)
            if watch.status.state == "COMPLETED":
                return
            if watch.status.state == "CANCELLED":
                break
    raise BankFailedError(f"The bank could not be built: {watch.outcome}")
