"""A pytest plugin (`pytest_plugins = ["tests.stores"]`): every kind of place a store can lie in, fresh and empty.

Only fixtures: a test module that also imported it would have pytest complain.
"""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.servers import ObjectStore

BACKENDS = ("path", "file", "memory", "s3")
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of an S3 server that runs as long as the tests."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


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
