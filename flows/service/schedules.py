"""Runs of one configuration, night after night, as a deployment of its own."""

import re
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.config.run_config import RunConfig
from flows.execution.work_pools import CPU_POOL
from flows.pipeline import run_pipeline
from refseg_core.errors import ConfigurationError
from tasks.storage.uris import last_name, redact


def schedule(config: RunConfig, *, cron: str, timezone: str, name: str | None) -> str:
    """Creates or changes the deployment of this name, and returns its whole one.

    One run at a time: a night that begins while the one before still works is left out (CANCEL_NEW). Whatever it would
    have labeled is still missing the night after, and is labeled then; runs that queued up instead would each find
    next to nothing to do, and one that hangs would have them pile up behind it.
    """
    deployment = nightly(config, cron=cron, timezone=timezone, name=name)
    deployment.apply()
    return f"{deployment.flow_name}/{deployment.name}"


def nightly(config: RunConfig, *, cron: str, timezone: str, name: str | None) -> RunnerDeployment:
    """The deployment as no server knows it yet. Raises ConfigurationError for a time that is none."""
    name = name or _place(config)
    try:
        return RunnerDeployment.from_flow(
            run_pipeline,
            f"{name}-nightly",
            description=f"Labels what is new in {redact(config.targets.images)}, night after night.",
            schedule=Cron(cron, timezone=timezone),
            parameters={"config": for_workers(config)},
            tags=["refseg", "refseg-run", "nightly"],
            work_pool_name=CPU_POOL,
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    except ValueError as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigurationError(f"--cron {cron!r}, --timezone {timezone!r}: {told}") from error


def for_workers(config: RunConfig) -> dict[str, Any]:
    """The configuration as a run's parameter: GPU workers label, unless it names a Dask cluster."""
    engine = "dask" if config.execution.engine == "dask" else "workers"
    execution = config.execution.model_copy(update={"engine": engine})
    return config.model_copy(update={"execution": execution}).model_dump(mode="json")


def _place(config: RunConfig) -> str:
    return re.sub(r"[^\w.-]+", "-", last_name(config.targets.images)).strip("-") or "images"
