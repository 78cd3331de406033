"""The options of a stack: their checks, and the parts that follow from them."""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from flows.execution.names import CPU_POOL, GPU_POOL
from flows.local_stack import seaweedfs
from flows.local_stack.processes import is_port_free, kill_marked
from flows.local_stack.programs import Part, host_name, labeler_kind, server_part, visible_gpus, worker_part
from flows.local_stack.state_folder import ServiceFolder
from flows.service.api import LOGIN_VARIABLE, ui_address
from refseg_core.errors import ConfigurationError

_EVERYWHERE = ("0.0.0.0", "::")
_DRIVERS = ("postgresql+asyncpg", "sqlite+aiosqlite")


@dataclass(frozen=True)
class StackOptions:
    """The options of `refseg service up`."""

    host: str
    port: int
    s3_port: int | None  # None: without an S3 server
    gpu_workers: int | None  # None: one for each GPU, at least one
    database: str | None
    notify: str | None
    auth: bool = True

    @property
    def public_host(self) -> str:
        """The machine's name for other machines and browsers."""
        if self.host in _EVERYWHERE:
            return host_name()
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def api_url(self) -> str:
        """The Prefect server's address for other machines."""
        return f"http://{self.public_host}:{self.port}/api"

    @property
    def own_host(self) -> str:
        """The machine's name for its own parts."""
        return "127.0.0.1" if self.host in _EVERYWHERE else self.public_host


def prepare(folder: ServiceFolder, options: StackOptions) -> seaweedfs.ObjectStore | None:
    """Creates the folder and the S3 server's files. Raises ConfigurationError naming all problems at once."""
    if folder.is_held():
        raise ConfigurationError(
            f"The service of {folder.path} is up already: `refseg service status` shows it, `refseg service down` ends "
            "it. A second service needs its own --folder, --port and --s3-port."
        )
    kill_marked(str(folder.path))  # what a killed supervisor left
    problems = []
    if not options.auth and not is_loopback(options.host):
        problems.append(
            f"--no-auth: with --host {options.host} others reach the server, and whoever does can run code on its "
            "workers. Leave out one of them."
        )
    if options.database is not None and urlsplit(options.database).scheme not in _DRIVERS:
        problems.append(f"--database: expected a URL that begins with {' or '.join(f'{d}://' for d in _DRIVERS)}.")
    servers = [("Prefect server", options.port, "--port")]
    if options.s3_port is not None:
        servers.append(("S3 server", options.s3_port, "--s3-port"))
        try:
            seaweedfs.find_program()
        except ConfigurationError as error:
            problems.append(str(error))
    problems += [
        f"Port {port} of {options.host}, for the {what}, is in use (or the address is not this machine's): "
        f"choose another with {flag}."
        for what, port, flag in servers
        if not is_port_free(options.host, port)
    ]
    if problems:
        raise ConfigurationError("\n".join(problems))
    folder.make()
    return None if options.s3_port is None else seaweedfs.prepare(folder, host=options.host, port=options.s3_port)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def parts_of(folder: ServiceFolder, options: StackOptions, store: seaweedfs.ObjectStore | None) -> list[Part]:
    """Returns the programs to run: servers first, then workers."""
    from tasks.models.loading import num_gpus

    server = server_part(
        host=options.host,
        port=options.port,
        api_url=options.api_url,
        home=str(folder.home),
        database=options.database,
        login=folder.login() if options.auth else None,
        log=folder.log_of("server"),
    )
    parts = [server] if store is None else [server, seaweedfs.s3_part(store, folder, seaweedfs.find_program())]
    environment: dict[str, str | None] = {LOGIN_VARIABLE: None, **own_variables(folder, options, store)}
    if store is not None:
        environment |= {"AWS_PROFILE": None, "AWS_SESSION_TOKEN": None}

    def worker(name: str, pool: str, gpu: str | None = None) -> Part:
        log, gate = folder.log_of(name), str(folder.pools_made)
        return worker_part(name, pool, gpu=gpu, environment=environment, log=log, waits_for=gate)

    gpus = visible_gpus(os.environ, num_gpus())
    number = max(1, len(gpus)) if options.gpu_workers is None else options.gpu_workers
    parts.append(worker("cpu0", CPU_POOL))
    kind = labeler_kind(gpus[0] if gpus else None)
    parts += [worker(f"{kind}{index}", GPU_POOL, gpus[index % len(gpus)] if gpus else None) for index in range(number)]
    return parts


def own_variables(folder: ServiceFolder, options: StackOptions, store: seaweedfs.ObjectStore | None) -> dict[str, str]:
    """Returns the environment in which programs of this machine use the stack."""
    return {
        "PREFECT_HOME": str(folder.home),
        "PREFECT_API_URL": f"http://{options.own_host}:{options.port}/api",
        "PREFECT_UI_URL": ui_address(options.api_url),
        **({LOGIN_VARIABLE: folder.login()} if options.auth else {}),
        **({} if store is None else store.environment(options.own_host)),
    }
