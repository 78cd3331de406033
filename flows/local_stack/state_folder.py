"""The folder of a stack: its settings, secrets, state, logs and data, and the lock of its supervisor."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile

from refseg_core.errors import ConfigurationError

DEFAULT_FOLDER = "~/.refseg-service"
FOLDER_VARIABLE = "REFSEG_SERVICE_FOLDER"  # names another
_PRIVATE = 0o600
_USER = "refseg"


@dataclass(frozen=True)
class PartState:
    """The state of a part."""

    name: str
    state: str  # running, waiting, restarting or stopped
    pid: int | None
    since: float  # seconds since 1970
    restarts: int
    port: int | None
    log: str | None


@dataclass(frozen=True)
class StackState:
    """The state of a stack: its supervisor's process and its parts."""

    pid: int
    parts: tuple[PartState, ...]


class ServiceFolder:
    """A folder for one stack, readable by its owner only."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().absolute()
        self.logs = self.path / "logs"
        self.home = self.path / "prefect"
        self.s3 = self.path / "s3"
        self.plan = self.path / "parts.json"
        self.facts = self.path / "facts.json"
        self.env_file = self.path / "env.sh"
        self.state = self.path / "state.json"
        self.pools_made = self.path / "pools-made"

    def make(self) -> None:
        """Creates the folder. Raises ConfigurationError where it cannot be written."""
        try:
            for folder in (self.path, self.logs, self.home, self.s3):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"--folder: {self.path} cannot be written ({error.strerror}). The service keeps its data, logs and "
                "secrets there; choose another."
            ) from error

    def log_of(self, name: str) -> str:
        """Returns the path of a part's log."""
        return str(self.logs / f"{name}.log")

    # --- state ---

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the stack for this process. Raises BlockingIOError if another has locked it."""
        with (self.path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def is_held(self) -> bool:
        """Whether a process supervises the stack; a lock ends with its process."""
        if not (self.path / "lock").exists():
            return False
        try:
            with self.held():
                return False
        except BlockingIOError:
            return True

    def write_state(self, state: StackState) -> None:
        """Replaces the state."""
        new = self.path / "state.json.new"
        new.write_text(json.dumps(asdict(state), indent=2))
        new.replace(self.state)

    def read_state(self) -> StackState | None:
        """Returns the state that was last written."""
        try:
            content = json.loads(self.state.read_text())
        except FileNotFoundError:
            return None
        return StackState(content["pid"], tuple(PartState(**part) for part in content["parts"]))

    # --- secrets ---

    def write_private(self, path: Path, text: str) -> None:
        """Writes a file that only its owner can read, from its first byte on."""
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w") as file:  # noqa: PTH123
            file.write(text)
        new.replace(path)

    def login(self) -> str:
        """Returns the Prefect server's user and password, generated at the first call, as its settings have them."""
        file = self.path / "login"
        if not file.exists():
            self.write_private(file, f"{_USER}:{secrets.token_urlsafe(30)}")
        return file.read_text().strip()

    def write_exports(self, variables: Mapping[str, str]) -> None:
        """Writes the file that a shell sources to use the stack."""
        lines = [f"export {name}='{value}'\n" for name, value in variables.items()]
        self.write_private(self.env_file, "".join(lines))
