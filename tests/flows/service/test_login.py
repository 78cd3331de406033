"""The Prefect server answers nobody without its login, and commands say so."""

import base64
import importlib
import pkgutil
import re
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from flows.local_stack.options import StackOptions, own_variables, parts_of, prepare
from flows.local_stack.state_folder import ServiceFolder
from flows.run import check_prefect
from flows.service import api
from flows.service.api import LOGIN_VARIABLE, require_api
from refseg_core.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.testclient import TestClient

_OPEN = {"/health", "/ready"}  # that they answer tells only that the server runs
_WRONG = ["", "refseg:", "refseg:guessed", ":", "refseg"]


@pytest.fixture
def folder(tmp_path: Path) -> ServiceFolder:
    folder = ServiceFolder(tmp_path / "service")
    folder.make()
    return folder


def _options(host: str = "127.0.0.1", *, auth: bool = True) -> StackOptions:
    return StackOptions(host, 4999, None, 1, None, None, auth=auth)


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(folder: ServiceFolder) -> "Iterator[TestClient]":
    """A client of Prefect's server, with the login that the service gives it."""
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, temporary_settings
    from starlette.testclient import TestClient

    (server, *_) = parts_of(folder, _options(), None)
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: server.environment["PREFECT_SERVER_API_AUTH_STRING"]}):
        yield TestClient(create_app())


def _requests() -> Iterator[tuple[str, str]]:
    """The method and path of every request that the server has an answer to."""
    from prefect.server.api.server import create_api_app

    for path, methods in create_api_app().openapi()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"{[^}]*}", str(uuid.uuid4()), path)
    yield from (("GET", path) for path in ("/docs", "/openapi.json", "/no/such/route"))


def _sockets() -> Iterator[str]:
    from prefect.server import api
    from starlette.routing import WebSocketRoute

    for module in pkgutil.iter_modules(api.__path__):
        router = getattr(importlib.import_module(f"{api.__name__}.{module.name}"), "router", None)
        for route in () if router is None else router.routes:
            if isinstance(route, WebSocketRoute):
                yield re.sub(r"{[^}]*}", "refseg-gpu", route.path)


@pytest.mark.slow
def test_without_the_login_every_route_of_the_api_answers_401(client: "TestClient", folder: ServiceFolder) -> None:
    wrong: list[dict[str, str]] = [{}, *map(_headers, _WRONG), {"Authorization": f"Bearer {folder.login()}"}]
    closed = [(method, path) for method, path in _requests() if path not in _OPEN]
    assert len(closed) > 150
    for method, path in closed:
        for headers in wrong:
            assert client.request(method, f"/api{path}", headers=headers).status_code == 401, (method, path, headers)
    assert client.get("/api/admin/version", headers=_headers(folder.login())).status_code == 200
    assert {client.get(f"/api{path}").status_code for path in _OPEN} <= {200, 503}


@pytest.mark.slow
@pytest.mark.parametrize("protocols", [[], ["prefect"]])
def test_without_the_login_every_socket_is_closed(client: "TestClient", protocols: list[str]) -> None:
    from starlette.websockets import WebSocketDisconnect

    paths = list(_sockets())
    assert {"/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled"} < set(paths)
    for path in paths:
        with client.websocket_connect(f"/api{path}", protocols) if protocols else nullcontext(None) as socket:
            if socket is None:
                with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"/api{path}"):
                    pytest.fail("it was accepted")
            else:
                socket.send_json({"type": "auth", "token": "guessed"})
                with pytest.raises(WebSocketDisconnect):
                    socket.receive_json()


def _headers(login: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def test_workers_and_commands_of_the_service_have_the_login(folder: ServiceFolder) -> None:
    server, *workers = parts_of(folder, _options(), None)
    login = folder.login()
    assert re.fullmatch(r"refseg:[\w-]{40}", login)
    assert own_variables(folder, _options(), None)[LOGIN_VARIABLE] == login
    assert {worker.environment[LOGIN_VARIABLE] for worker in workers} == {login}
    assert server.environment["PREFECT_SERVER_API_AUTH_STRING"] == login
    assert not any(login in " ".join(part.command) for part in (server, *workers))


def test_the_login_is_made_once_and_for_the_owner_only(folder: ServiceFolder) -> None:
    login = folder.login()
    assert ServiceFolder(folder.path).login() == login
    (file,) = (file for file in folder.path.rglob("*") if file.is_file() and login in file.read_text())
    assert file.stat().st_mode & 0o077 == 0


def test_without_auth_nobody_has_or_needs_a_login(folder: ServiceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGIN_VARIABLE, "of:another")
    for part in parts_of(folder, _options(auth=False), None):
        assert part.environment.get(LOGIN_VARIABLE) is None
        assert part.environment.get("PREFECT_SERVER_API_AUTH_STRING") is None
    assert LOGIN_VARIABLE not in own_variables(folder, _options(auth=False), None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "box.example"])
def test_no_auth_is_refused_where_others_reach_the_server(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"--no-auth: with --host {re.escape(host)} others reach the server"):
        prepare(ServiceFolder(tmp_path), _options(host, auth=False))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
def test_no_auth_is_allowed_where_nobody_else_does(host: str, tmp_path: Path) -> None:
    prepare(ServiceFolder(tmp_path), _options(host, auth=False))


# --- commands --------------------------------------------------------------------------------------------------------


class _Guarded(BaseHTTPRequestHandler):
    """Answers as Prefect's server with a login does."""

    def do_GET(self) -> None:
        is_let_in = self.path == "/api/health" or self.headers["Authorization"] == _headers("me:right")["Authorization"]
        self.send_response(200 if is_let_in else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that asks for a login, at which commands look."""
    server = HTTPServer(("127.0.0.1", 0), _Guarded)
    thread = Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    monkeypatch.delenv(LOGIN_VARIABLE, raising=False)
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_commands_that_have_the_login_are_let_in(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGIN_VARIABLE, "me:right")
    assert require_api() == guarded


@pytest.mark.slow
def test_commands_without_the_login_say_where_it_is(guarded: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not set: the Prefect server at .* asks for a login\. .*env\.sh"):
        require_api()


def test_a_run_without_the_login_says_where_it_is_before_it_begins(
    guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=rf"is not set: the Prefect server at {guarded} asks for a login"):
        check_prefect()
    monkeypatch.setenv(LOGIN_VARIABLE, "me:right")
    check_prefect()


@pytest.mark.slow
def test_commands_with_another_login_do_not_repeat_it(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGIN_VARIABLE, "me:wrong")
    with pytest.raises(ConfigurationError, match="does not fit") as error:
        require_api()
    assert "me:wrong" not in str(error.value)


class _Slow(BaseHTTPRequestHandler):
    """Hangs up on the first request, and answers the next ones."""

    num_asked = 0

    def do_GET(self) -> None:
        type(self).num_asked += 1
        if self.num_asked == 1:
            self.close_connection = True
            return
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_server_that_is_busy_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api, "_PAUSE", 0.001)
    monkeypatch.setattr(_Slow, "num_asked", 0)
    with HTTPServer(("127.0.0.1", 0), _Slow) as server:
        thread = Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        api.check_answers(f"http://127.0.0.1:{server.server_port}/api", "Start it.")
        server.shutdown()
        thread.join()
    assert _Slow.num_asked == 2
    assert "takes long to answer; waiting up to 30 s" in caplog.text
