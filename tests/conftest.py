"""What all tests share: how their processes are set up, where they find what is not in the project, what they count."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, settings

from tests.support.counts import count, counted

# Tasks are also called without a flow here, and then have nowhere to send their logs.
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")

# Properties are tried on the same examples everywhere, however slow the machine; the profile `explore` draws others.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared"


# What is imported stays: to look through it for garbage, now and again and at the end, takes a worker seconds.
gc.disable()


def pytest_collection_finish() -> None:
    """When a worker has imported everything. The process that only distributes the tests never gets here."""
    import torch

    gc.freeze()
    gc.enable()
    torch.set_num_threads(1)  # several workers share the cores; threads of each would only get in the others' way


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that share a service share a worker, too: a service for each worker is more than two cores bear."""
    group = item.get_closest_marker("xdist_group")
    is_worker_asked_to = item.config.getoption("loadgroup", False)
    if group is not None and is_worker_asked_to and not item.nodeid.endswith(f"@{group.args[0]}"):
        pytest.fail(
            f"pytest-xdist does not keep the tests of a group together with pytest {pytest.__version__}: "
            "install the version that pyproject.toml requires",
            pytrace=False,
        )


@pytest.fixture(autouse=True)
def forget_memory() -> Iterator[None]:
    """What a test wrote to `memory://` would slow down each listing of all later ones."""
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def _existing(folder: Path, what: str, variable: str) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{what} not found in {folder}; set {variable} to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real weights and images."""
    folder = Path(os.environ.get("REFSEG_SHARED", _BESIDE_THE_CHECKOUT))
    return _existing(folder, "real weights and images", "REFSEG_SHARED")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The folder with the original implementation's numbers."""
    folder = Path(os.environ.get("REFSEG_GOLDEN", _BESIDE_THE_CHECKOUT / "method" / "golden"))
    return _existing(folder, "golden numbers", "REFSEG_GOLDEN")


# --- what tests counted, at the end of the run -----------------------------------------------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its counts to the process that started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counted"] = dict(counted)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker that was killed hands over nothing."""
    for name, number in getattr(node, "workeroutput", {}).get("counted", {}).items():
        count(name, number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each name."""
    if counted:
        terminalreporter.section("counted")
    for name, number in sorted(counted.items()):
        terminalreporter.line(f"{number:8}  {name}")
