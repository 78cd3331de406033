"""A pytest plugin (`pytest_plugins = ["tests.stores"]`): every kind of place a store can lie in, fresh and empty.

Only fixtures: a test module that also imported it would have pytest complain.
"""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.servers import ObjectStore

BACKENDS = ("path", "file", "memory", "s3")
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of an S3 server that runs as long as the tests.

    It answers one request at a time, unlike moto's own: moto looks and puts in two steps, so a race would have two
    winners.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{server.host}:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The S3 server, which the environment points to."""
    for name, value in {**_CREDENTIALS, "AWS_ENDPOINT_URL": moto}.items():
        monkeypatch.setenv(name, value)
    return ObjectStore(moto)


@pytest.fixture(params=BACKENDS)
def empty_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a folder in which nothing was ever written, once for each kind of place."""
    return uri_on(request.param, request, tmp_path)


def uri_on(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder on a backend."""
    if backend == "s3":
        server: ObjectStore = request.getfixturevalue("s3")
        return f"s3://{server.new_bucket()}/folder"
    return {
        "path": str(tmp_path / "folder"),
        "file": (tmp_path / "folder").as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}/folder",
    }[backend]
