"""A SeaweedFS server that several test processes share: one starts it, and it ends with the last of them.

Whoever uses the server holds a shared lock on a file. A keeper, which is this file run as a program, starts the
server and stops it as soon as nobody holds that lock. Locks end with the processes that hold them, however those end,
so a server never outlives its tests, not even killed ones. Only the standard library is imported, for a quick start.
"""

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

# The parts of the server, each of which listens on a port and, for the others, on another.
_PARTS = ("master", "volume", "filer", "s3")
_SOCKETS = "/tmp/seaweedfs-{part}-grpc-{port}.sock"  # where the server puts them, whatever its options say
_MOST_SECONDS_TO_START = 60.0
_NUM_TRIES = 3  # between choosing a free port and listening on it another process may have taken it


class Account(NamedTuple):
    """Credentials, and what SeaweedFS allows their owner."""

    key: str
    secret: str
    actions: tuple[str, ...] = ()


ADMIN = Account("admin-key", "admin-secret", ("Admin", "Read", "List", "Tagging", "Write"))
READER = Account("reader-key", "reader-secret", ("Read", "List"))
TENANT_BUCKET = "tenant-store"
TENANT = Account("tenant-key", "tenant-secret", ("Read", "List", f"Write:{TENANT_BUCKET}"))
STRANGER = Account("unknown-key", "unknown-secret")


def find_program() -> Path | None:
    """The server's program, as its Python package installs it or as the system has it."""
    found = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    return Path(found) if found else None


@contextmanager
def shared_server(program: Path, folder: Path) -> Iterator[str]:
    """The endpoint of the server that all who name this folder share; it keeps everything in there.

    It knows ADMIN, READER and TENANT, and nobody else.
    """
    endpoint_file = folder / "endpoint"
    with ExitStack() as locks:
        # The keeper removes the folder under an exclusive lock: who gets here finds either a server or nothing.
        locks.enter_context(_locked(folder.with_suffix(".users"), fcntl.LOCK_SH))
        with _locked(folder.with_suffix(".starting"), fcntl.LOCK_EX):
            if not endpoint_file.exists():
                endpoint_file.write_text(_start(program, folder))
        yield endpoint_file.read_text()


@contextmanager
def _locked(path: Path, operation: int) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, operation)
        yield


def _start(program: Path, folder: Path) -> str:
    log = folder.with_suffix(".log")
    for _ in range(_NUM_TRIES):
        folder.mkdir()
        ports = _free_ports()
        with log.open("w") as output:
            keeper = subprocess.Popen(
                [sys.executable, __file__, str(program), str(folder), json.dumps(ports)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt from the keyboard is for the tests only
            )
        if _answers(ports["s3.port"], keeper):
            keeper.returncode = 0  # it ends after this process, so nobody waits for it
            return f"http://127.0.0.1:{ports['s3.port']}"
        keeper.terminate()
        keeper.wait()
    raise RuntimeError(f"SeaweedFS does not start:\n{log.read_text()[-3000:]}")


def _free_ports() -> dict[str, int]:
    names = [f"{part}.port{suffix}" for part in _PARTS for suffix in ("", ".grpc")]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: port.getsockname()[1] for name, port in zip(names, sockets, strict=True)}


def _answers(port: int, keeper: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _MOST_SECONDS_TO_START
    while time.monotonic() < deadline and keeper.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


# --- the keeper ------------------------------------------------------------------------------------------------------


def _keep(program: str, folder: Path, ports: dict[str, int]) -> None:
    """Runs the server until it ends or nobody uses it any more, and removes all that it leaves."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with folder.with_suffix(".users").open("a") as users:
        server = subprocess.Popen(
            _command(program, folder, ports),
            cwd=folder,
            env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},  # one file a bucket, not seven
            start_new_session=True,
        )
        try:
            while server.poll() is None and not _lock_if_free(users):
                time.sleep(0.1)
        finally:
            _stop(server, folder, ports)


def _lock_if_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stop(server: subprocess.Popen[bytes], folder: Path, ports: dict[str, int]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)  # asked to end, it takes half a minute
        server.wait()
    for part in _PARTS:
        Path(_SOCKETS.format(part=part, port=ports[f"{part}.port.grpc"])).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _command(program: str, folder: Path, ports: dict[str, int]) -> list[str]:
    identities = [_identity(account) for account in (ADMIN, READER, TENANT)]
    (folder / "accounts.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    settings = {
        **{name: str(port) for name, port in ports.items()},
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": "data",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": "64",
        "volume.max": "10000",
        "filer": "true",
        "filer.localSocket": "filer.sock",
        "s3": "true",
        "s3.config": "accounts.json",
        "s3.localSocket": "s3.sock",
        "s3.autoCreateBucket": "false",  # as real ones: a bucket that is missing is an error
        "s3.iam": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    return [program, "-logtostderr", "server", *(f"-{name}={value}" for name, value in settings.items())]


def _identity(account: Account) -> dict[str, object]:
    credentials = [{"accessKey": account.key, "secretKey": account.secret}]
    return {"name": account.key, "credentials": credentials, "actions": account.actions}


if __name__ == "__main__":
    _keep(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
