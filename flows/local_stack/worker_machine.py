"""The workers of a machine that joins a server on another one, supervised in the foreground."""

import logging
import os
import sys
import tempfile

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flows.execution.names import CPU_POOL, GPU_POOL
from flows.local_stack.programs import Part, choose_gpus, host_name, labeler_kind, visible_gpus, worker_part
from flows.local_stack.supervisor import Supervisor
from refseg_core.errors import ConfigurationError
from tasks.models.loading import num_gpus


def work_for(api_url: str, pool: str, gpus: str, name: str | None) -> None:
    """Runs workers until a signal ends them. Raises ConfigurationError if the server has no such pool."""
    _check_pool(api_url, pool)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="refseg-worker-") as own:
        Supervisor(worker_parts(pool, gpus, name or host_name(), visible_gpus(os.environ, num_gpus())), own).run()


def worker_parts(pool: str, gpus: str, name: str, visible: list[str]) -> list[Part]:
    """Returns a worker for each GPU, which sees only that one; one worker in the CPU pool or without GPUs."""
    chosen = [None] if pool == CPU_POOL else choose_gpus(gpus, visible)
    kind = "cpu" if pool == CPU_POOL else labeler_kind(chosen[0])
    return [
        worker_part(f"{kind}{index}", pool, gpu=gpu, worker_name=f"{name}-{kind}{gpu or index}")
        for index, gpu in enumerate(chosen)
    ]


def _check_pool(api_url: str, pool: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound as error:
            raise ConfigurationError(
                f"--pool: the Prefect server at {api_url} has no work pool {pool!r}. `refseg service deploy` "
                f"creates {CPU_POOL} and {GPU_POOL}."
            ) from error
