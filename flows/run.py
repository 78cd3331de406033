"""One run of a configuration from the command line: check, run in a Prefect session, report.

The session has settings for a quiet terminal, and a server for the duration of the command.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from flows.config.run_config import RunConfig
from flows.service.api import check_answers, check_login
from refseg_core.errors import ConfigurationError

PREFECT_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,refseg_core",
}


_DEFAULT_METHOD = (
    "Neither labeling.method nor labeling.path is set: labels are made by the method 'accurate' on the path 'guided' "
    "(labeling.path: exact is the published method)."
)


def set_prefect_defaults() -> None:
    """Sets Prefect's settings in the environment, unless the user has; call it before Prefect is imported."""
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)


def check_prefect() -> None:
    """Raises ConfigurationError where Prefect's server does not answer or let in, or its folder cannot be written."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if url:
        check_answers(
            url,
            "Start it or correct the address; without PREFECT_API_URL each command starts a temporary server.",
        )
        check_login(url)
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"PREFECT_HOME: {home} cannot be written ({error.strerror}), and Prefect keeps its settings and its "
            "temporary server's database there. Set PREFECT_HOME to a folder that can be written."
        ) from error


@contextmanager
def prefect_session() -> Iterator[None]:
    """Runs the block with a Prefect server, progress bars and short error messages."""
    set_prefect_defaults()
    from prefect.settings import PREFECT_API_URL

    from flows.execution.temporary_server import start_temporary_server, without_heartbeats
    from flows.terminal import messages, progress_bars, without_tracebacks

    with ExitStack() as session:
        if "PREFECT_API_URL" not in os.environ and PREFECT_API_URL.value() is None:
            messages.print("Starting a temporary Prefect server (set PREFECT_API_URL to use your own).", style="dim")
            if server := start_temporary_server():
                session.enter_context(server.explaining_its_end())
            session.enter_context(without_heartbeats())
        session.enter_context(progress_bars())
        session.enter_context(without_tracebacks())
        yield


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
    check_prefect()
    from flows.config.preflight import check
    from flows.oddities import report_comparison, report_oddities, tell_once
    from flows.terminal import messages
    from tasks.store.store import Store

    checked = check(config, partial(report_oddities, config, messages.print))
    if checked.targets is not None:
        report_comparison(config, messages.print, checked.references, checked.targets)
    if config.labeling.is_by_default:
        tell_once(Store(config.store), "method", [_DEFAULT_METHOD], partial(messages.print, style="dim"))
    with prefect_session():
        yield
