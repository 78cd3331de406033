"""Scheduled runs of one configuration, as a deployment of its own."""

import re

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.config.run_config import RunConfig
from flows.execution.names import CPU_POOL
from flows.pipeline import run_pipeline
from refseg_core.errors import ConfigurationError, brief
from tasks.storage.uris import last_name, redact


def schedule(config: RunConfig, *, cron: str, timezone: str, name: str | None) -> str:
    """Creates or updates the deployment of this name; returns its full name.

    One run at a time: a run that is due while the previous one is active is cancelled (CANCEL_NEW). The next run labels
    what it would have labeled; queued runs would find almost nothing to do, and pile up behind one that hangs.
    """
    deployment = nightly(config, cron=cron, timezone=timezone, name=name)
    deployment.apply()
    return f"{deployment.flow_name}/{deployment.name}"


def nightly(config: RunConfig, *, cron: str, timezone: str, name: str | None) -> RunnerDeployment:
    """Returns the deployment, not yet on a server. Raises ConfigurationError for an invalid schedule."""
    name = name or re.sub(r"[^\w.-]+", "-", last_name(config.targets.images)).strip("-") or "images"
    try:
        return RunnerDeployment.from_flow(
            run_pipeline,
            f"{name}-nightly",
            description=f"Labels new images in {redact(config.targets.images)}.",
            schedule=Cron(cron, timezone=timezone),
            parameters={"config": config.for_service()},
            tags=["refseg", "refseg-run", "nightly"],
            work_pool_name=CPU_POOL,
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    except ValueError as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigurationError(f"--cron {brief(cron)}, --timezone {brief(timezone)}: {problem}") from error
