"""The programs of a stack, as the supervisor reads them from a file."""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from flows.execution.names import CPU_POOL
from refseg_core.errors import ConfigurationError

_RUNS_AT_ONCE = 8  # runs of the CPU pool mostly wait for GPU workers; each is a process of its own, 0.5 GB
_SECONDS_FOR_IMAGES = 20.0  # after half of them, runs save what is finished without the images at hand
_SECONDS_TO_WAIT = "3600"  # before a run that no worker has taken is Late
_WORKER_SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "10",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,refseg_core",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
_NEVER_INHERITED = ("PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE")


@dataclass(frozen=True)
class Part:
    """A program to run. `environment` is added to the supervisor's; None removes a variable."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str | None] = field(default_factory=dict)
    port: int | None = None
    folder: str | None = None  # working directory
    log: str | None = None  # None: the supervisor's output
    waits_for: str | None = None  # a file that has to exist before the start
    leaves: tuple[str, ...] = ()  # files that are left when it is killed
    grace_seconds: float = 6.0  # between SIGTERM and SIGKILL
    ends_first: bool = False  # ended before the others


def to_json(parts: Sequence[Part]) -> str:
    """Returns the parts as text."""
    return json.dumps([asdict(part) for part in parts], indent=2)


def from_json(text: str) -> list[Part]:
    """Returns the parts that `to_json` wrote."""
    return [
        Part(**{**entry, "command": tuple(entry["command"]), "leaves": tuple(entry["leaves"])})
        for entry in json.loads(text)
    ]


def server_part(
    *, host: str, port: int, api_url: str, home: str, database: str | None, login: str | None, log: str
) -> Part:
    """Returns the Prefect server with its UI, on SQLite unless a database is given; `login`: user and password."""
    database_settings = {} if database is None else {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    return Part(
        name="server",
        command=(sys.executable, "-m", "flows.local_stack.prefect_server", "--host", host, "--port", str(port)),
        environment={
            **dict.fromkeys((*_NEVER_INHERITED, "PREFECT_API_URL")),
            "PREFECT_SERVER_API_AUTH_STRING": login,
            "PREFECT_HOME": home,
            # By default the UI calls port 4200, whatever the server's port is.
            "PREFECT_SERVER_UI_API_URL": os.environ.get("PREFECT_SERVER_UI_API_URL", api_url),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # Groups of shards wait while each worker is at another; the UI would show them in yellow after 15 s.
            "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": _SECONDS_TO_WAIT,
            # In memory, leases would be lost when the server restarts, and their slots stay taken.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "DO_NOT_TRACK": "1",
            **database_settings,
        },
        port=port,
        log=log,
    )


def worker_part(
    name: str,
    pool: str,
    *,
    gpu: str | None = None,
    environment: Mapping[str, str | None] | None = None,
    worker_name: str | None = None,
    log: str | None = None,
    waits_for: str | None = None,
) -> Part:
    """Returns a process worker; one of the GPU pool runs one flow at a time, which fills its GPU.

    `gpu` is the only one that its runs see; None: all that the supervisor sees.
    """
    limit = _RUNS_AT_ONCE if pool == CPU_POOL else 1
    options = ("--pool", pool, "--name", worker_name or f"{host_name()}-{name}", "--limit", str(limit))
    return Part(
        name=name,
        command=(sys.executable, "-m", "prefect", "worker", "start", "--type", "process", *options),
        environment={
            # Values that the user has set have precedence.
            **{setting: os.environ.get(setting, value) for setting, value in _WORKER_SETTINGS.items()},
            **(environment or {}),
            **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
        },
        log=log,
        waits_for=waits_for,
        grace_seconds=_SECONDS_FOR_IMAGES,
        ends_first=True,
    )


def visible_gpus(environment: Mapping[str, str], count: int) -> list[str]:
    """Returns the names, as in CUDA_VISIBLE_DEVICES, of the GPUs that this process sees."""
    named = [gpu.strip() for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


def choose_gpus(wanted: str, visible: Sequence[str]) -> list[str | None]:
    """Returns the GPUs of `--gpus`, one for each worker. Raises ConfigurationError if one does not exist."""
    if wanted == "all":
        return list(visible) or [None]
    named = [gpu.strip() for gpu in wanted.split(",") if gpu.strip()]
    unknown = [gpu for gpu in named if gpu not in visible]
    if unknown or not named:
        found = f"there are {', '.join(visible)}" if visible else "this machine shows none"
        raise ConfigurationError(f"--gpus {wanted}: {found}. Use 'all', or numbers such as 0,1.")
    return list(named)


def labeler_kind(gpu: str | None) -> str:
    """Returns how the names of workers that label begin, on a GPU or without one."""
    return "label" if gpu is None else "gpu"


def host_name() -> str:
    """Returns the name of this machine."""
    return socket.gethostname().split(".")[0] or "localhost"
