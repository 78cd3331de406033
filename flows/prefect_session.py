"""Prefect for the command line: settings that keep the terminal quiet, and a server for as long as a command lasts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

PREFECT_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,refseg_core",
}


def prefect_settings() -> None:
    """Ours; the user's own win. To be called before Prefect is imported."""
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_at_hand() -> Iterator[None]:
    """Runs the block with a Prefect server, and bars for what our steps report."""
    prefect_settings()
    from flows.terminal import messages, one_line_faults, progress_bars

    if "PREFECT_API_URL" not in os.environ:
        messages.print("Starting a temporary Prefect server (set PREFECT_API_URL to use your own).", style="dim")
    with progress_bars(), one_line_faults():
        yield
