"""One run of a configuration from the command line: check, run in a Prefect session, report."""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.config.run_config import RunConfig
from flows.prefect_session import prefect_session, set_prefect_defaults


def execute(config: RunConfig) -> None:
    """Checks, runs and reports a configuration."""
    with checked_session(config):
        from flows.pipeline import run_pipeline

        result = run_pipeline(config)
    from flows.reports.run_report import report_run

    report_run(config.store, result.plan, result.metrics)


@contextmanager
def checked_session(config: RunConfig) -> Iterator[None]:
    """Checks the configuration, then opens a Prefect session for the block."""
    set_prefect_defaults()
    from flows.config.preflight import check

    check(config)
    with prefect_session():
        yield
