"""What a command needs of Prefect is checked at once, in one message."""

import socket
import time
from pathlib import Path

import pytest
from prefect.settings import get_current_settings

from flows.run import check_prefect, prefect_session
from flows.service import api
from refseg_core.errors import ConfigurationError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


def test_a_server_that_is_not_there_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"no Prefect server answers at http://127.0.0.1:9/api\. Start it or"):
        check_prefect()
    assert time.monotonic() - began < 20  # Prefect alone tries for minutes


def test_a_server_that_takes_connections_and_never_answers_is_said_to_be_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PATIENCE", 0.05)
    monkeypatch.setattr(api, "_PAUSE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        with pytest.raises(ConfigurationError, match=r"takes connections but gave no answer within 0 s: it is over"):
            check_prefect()


@pytest.mark.parametrize("variable", ["PREFECT_HOME", "HOME"])
def test_a_home_that_cannot_be_written_is_named(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "home"))
    with pytest.raises(ConfigurationError, match=r"home.* cannot be written .*Set PREFECT_HOME to a folder"):
        check_prefect()


def test_a_home_is_made_where_it_is_missing_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check_prefect()
    assert list((tmp_path / "prefect").iterdir()) == []


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9/api"], ids=["temporary", "own"])
def test_flows_send_heartbeats_to_servers_that_outlive_the_command(
    url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary one asks for none, and Prefect ends each flow up to a second later for them."""
    monkeypatch.setattr("flows.execution.temporary_server.start_temporary_server", lambda: None)
    if url:
        monkeypatch.setenv("PREFECT_API_URL", url)
    with prefect_session():
        assert (get_current_settings().flows.heartbeat_frequency is None) == (url is None)
