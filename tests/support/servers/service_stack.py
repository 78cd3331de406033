"""A whole service for tests, started and ended by the commands that people use, on ports of its own."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient

from flows.local_stack.processes import free_ports
from flows.local_stack.state_folder import FOLDER_VARIABLE, PartState, ServiceFolder
from flows.service.api import answers
from tests.support.commands import refseg_process

_ROOT = Path(__file__).resolve().parents[3]
_MESSAGE_LENGTH = 200


@dataclass(frozen=True)
class RunningStack:
    """A service that runs. `environment` is that of a program which uses it."""

    folder: Path
    api_url: str
    ui_url: str
    s3_endpoint: str | None
    bucket: str | None
    environment: dict[str, str]

    @property
    def parts(self) -> dict[str, PartState]:
        """How its parts are now: server, cpu0, label0 (gpu0 on a GPU) and so on, s3."""
        state = ServiceFolder(self.folder).read_state()
        return {} if state is None else {part.name: part for part in state.parts}

    @property
    def pids(self) -> dict[str, int]:
        """The process of each part that has one now."""
        return {name: part.pid for name, part in self.parts.items() if part.pid is not None}

    @property
    def labelers(self) -> list[str]:
        """The names of the workers of the GPU pool."""
        return [name for name in self.parts if name.startswith(("gpu", "label"))]

    def client(self) -> SyncPrefectClient:
        """A client of its Prefect server, with the login."""
        return SyncPrefectClient(self.api_url, auth_string=self.environment["PREFECT_API_AUTH_STRING"])

    @property
    def port(self) -> int:
        """The Prefect server's."""
        return int(self.api_url.removesuffix("/api").rpartition(":")[2])

    def refseg(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A command that uses it."""
        return refseg_process(*arguments, environment=self.environment)

    def wait_for(self, name: str, state: str, other_than: int | None = None, seconds: float = 150.0) -> PartState:
        """The part, as soon as it is in this state, with another process than the given one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            part = self.parts.get(name)
            if part is not None and part.state == state and part.pid != other_than:
                return part
            time.sleep(0.1)
        raise AssertionError(f"{name} is not {state} within {seconds} s: {self.parts}\n{self.log(name)}")

    @contextmanager
    def without_server(self) -> Iterator[None]:
        """Within the block nothing listens at the Prefect server's port; its supervisor, halted, starts it then."""
        supervisor, killed = self._supervisor_pid, self.pids["server"]
        os.kill(supervisor, signal.SIGSTOP)
        try:
            os.killpg(killed, signal.SIGKILL)
            while answers(f"{self.api_url}/health"):
                time.sleep(0.1)
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)
        self.wait_for("server", "running", other_than=killed)

    @property
    def _supervisor_pid(self) -> int:
        state = ServiceFolder(self.folder).read_state()
        assert state is not None
        return state.pid

    def log(self, name: str) -> str:
        """The end of a part's log; the supervisor has one too."""
        file = self.folder / "logs" / f"{name}.log"
        return file.read_text(errors="replace")[-3000:] if file.exists() else ""

    def messages(self, name: str, number: int = 20) -> str:
        """The last messages of a part's log, without what errors trail along, cut to a line each."""
        lines = (self.folder / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        messages = [line[:_MESSAGE_LENGTH] for line in lines if re.match(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", line)]
        return "\n".join(messages[-number:])


@contextmanager
def running_stack(folder: Path, gpu_workers: int = 2, *, s3: bool = False) -> Iterator[RunningStack]:
    """Within the block a service runs, in a folder that may have been used before; at its end nothing of it is left."""
    ports = free_ports(["server", "s3"])
    wanted = ("--s3-port", str(ports["s3"])) if s3 else ("--no-s3",)
    options = ("--port", str(ports["server"]), *wanted, "--gpu-workers", str(gpu_workers))
    up = refseg_process("service", "up", "--folder", folder, *options, environment=clean_environment())
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        facts = json.loads((folder / "facts.json").read_text())
        del facts["own_api_url"], facts["auth"]
        variables = _exports(folder / "env.sh")
        environment = {**clean_environment(), **variables, "PREFECT_HOME": str(folder / "prefect")}
        yield RunningStack(folder, environment=environment, **facts)
    finally:
        down = refseg_process("service", "down", "--folder", folder, environment=clean_environment())
        assert down.returncode == 0, down.stdout + down.stderr


def clean_environment() -> dict[str, str]:
    """This process's environment without what points to another server, and with the sources of this checkout."""
    elsewhere = ("PREFECT_", "AWS_", FOLDER_VARIABLE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
    return {**kept, "PYTHONPATH": str(_ROOT)}


def _exports(file: Path) -> dict[str, str]:
    lines = [line.removeprefix("export ").partition("=") for line in file.read_text().splitlines()]
    return {name: value.strip("'") for name, _, value in lines}
