"""One run of a configuration from the command line: checked, run with Prefect at hand, reported."""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.config.run_config import RunConfig
from flows.prefect_session import prefect_at_hand, prefect_settings


def execute(config: RunConfig) -> None:
    """Checks, runs and reports a configuration."""
    with pipeline_of(config):
        from flows.pipeline import run_pipeline

        result = run_pipeline(config)
    from flows.reports.run_report import report_run

    report_run(config, result)


@contextmanager
def pipeline_of(config: RunConfig) -> Iterator[None]:
    """Checks the configuration, then runs the block with Prefect at hand."""
    prefect_settings()
    from flows.config.preflight import check

    check(config)
    with prefect_at_hand():
        yield
