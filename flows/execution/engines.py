"""Where shards are labeled: in this process, by workers of the Prefect server, or on a Dask cluster."""

from collections.abc import Sequence
from functools import partial

from prefect.client.orchestration import get_client

from flows.config.run_config import ExecutionConfig, RunConfig
from flows.errors import BankFailedError
from flows.execution.gpu_workers import GpuPool
from flows.execution.label_shards import label_shards
from flows.execution.names import BUILD_BANK
from flows.execution.run_monitor import run_on_worker
from flows.execution.scheduler import Scheduler
from refseg_core.errors import ConfigurationError
from tasks.models.loading import num_gpus
from tasks.specs import LabelJob
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import Shard
from tasks.store.store import Store

_BANK_ATTEMPTS = 3


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
    own = {"n_workers": max(1, num_gpus()), "threads_per_worker": 1, "resources": {"GPU": 1}}
    where = {"cluster_kwargs": own} if execution.dask_address is None else {"address": execution.dask_address}
    with dask.annotate(resources={"GPU": 1}):
        label_shards.with_options(task_runner=DaskTaskRunner(**where))(job, list(shards), elsewhere=True)


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
