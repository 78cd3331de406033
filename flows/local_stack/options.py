"""What a stack shall be: what is asked for, what would keep it from running, and the parts that it then has."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from flows.execution.names import CPU_POOL, GPU_POOL
from flows.local_stack import seaweedfs
from flows.local_stack.processes import is_port_free, kill_marked
from flows.local_stack.programs import Part, gpu_settings, host_name, server_part, visible_gpus, worker_part
from flows.local_stack.state_folder import ServiceFolder
from flows.service.api import ui_address
from refseg_core.errors import ConfigurationError

_EVERYWHERE = ("0.0.0.0", "::")
_DRIVERS = ("postgresql+asyncpg", "sqlite+aiosqlite")


@dataclass(frozen=True)
class Wishes:
    """What a stack shall be like."""

    host: str
    port: int
    s3_port: int | None  # null: without an S3 server
    gpu_workers: int | None  # null: one for each GPU, at least one
    database: str | None
    notify: str | None

    @property
    def public_host(self) -> str:
        """What other programs, and browsers, call the machine."""
        if self.host in _EVERYWHERE:
            return host_name()
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def api_url(self) -> str:
        """The Prefect server's address, as all are told it."""
        return f"http://{self.public_host}:{self.port}/api"

    @property
    def own_host(self) -> str:
        """What the machine's own parts call it."""
        return "127.0.0.1" if self.host in _EVERYWHERE else self.public_host


def check_wishes(folder: ServiceFolder, wishes: Wishes) -> seaweedfs.ObjectStore | None:
    """Raises ConfigurationError for whatever would keep it from running, all at once."""
    if folder.is_held():
        raise ConfigurationError(
            f"The service of {folder.path} is up already: `refseg service status` shows it, `refseg service down` ends "
            "it. A second one beside it needs its own --folder, --port and --s3-port."
        )
    kill_marked(str(folder.path))  # what a supervisor left that was killed
    problems = []
    if wishes.database is not None and urlsplit(wishes.database).scheme not in _DRIVERS:
        problems.append(f"--database: expected a URL that begins with {' or '.join(f'{d}://' for d in _DRIVERS)}.")
    doors = [("Prefect server", wishes.port, "--port")]
    if wishes.s3_port is not None:
        doors.append(("S3 server", wishes.s3_port, "--s3-port"))
        try:
            seaweedfs.find_program()
        except ConfigurationError as error:
            problems.append(str(error))
    problems += [
        f"Port {port} of {wishes.host}, where the {what} would listen, is taken by another program (or the address is "
        f"not this machine's): choose another with {flag}."
        for what, port, flag in doors
        if not is_port_free(wishes.host, port)
    ]
    if problems:
        raise ConfigurationError("\n".join(problems))
    folder.make()
    return None if wishes.s3_port is None else seaweedfs.prepare(folder, host=wishes.host, port=wishes.s3_port)


def parts_of(folder: ServiceFolder, wishes: Wishes, store: seaweedfs.ObjectStore | None) -> list[Part]:
    """What shall run: servers first, then workers."""
    server = server_part(
        host=wishes.host,
        port=wishes.port,
        api_url=wishes.api_url,
        home=str(folder.home),
        database=wishes.database,
        log=folder.log_of("server"),
    )
    parts = [server] if store is None else [server, seaweedfs.s3_part(store, folder, seaweedfs.find_program())]
    environment: dict[str, str | None] = {**own_variables(folder, wishes, store)}
    if store is not None:
        environment |= {"AWS_PROFILE": None, "AWS_SESSION_TOKEN": None}

    def worker(name: str, pool: str, gpu: str | None = None) -> Part:
        return worker_part(
            name,
            pool,
            environment={**environment, **gpu_settings(gpu)},
            log=folder.log_of(name),
            waits_for=str(folder.pools_made),
        )

    gpus = _gpus()
    number = max(1, len(gpus)) if wishes.gpu_workers is None else wishes.gpu_workers
    parts.append(worker("cpu0", CPU_POOL))
    parts += [worker(f"gpu{index}", GPU_POOL, gpus[index % len(gpus)] if gpus else None) for index in range(number)]
    return parts


def _gpus() -> list[str]:
    from tasks.models.loading import num_gpus

    return visible_gpus(os.environ, num_gpus())


def own_variables(folder: ServiceFolder, wishes: Wishes, store: seaweedfs.ObjectStore | None) -> dict[str, str]:
    """What the parts of this machine, and `up` itself, need to use the stack."""
    return {
        "PREFECT_HOME": str(folder.home),
        "PREFECT_API_URL": f"http://{wishes.own_host}:{wishes.port}/api",
        "PREFECT_UI_URL": ui_address(wishes.api_url),
        **({} if store is None else store.environment(wishes.own_host)),
    }
